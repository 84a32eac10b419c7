import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbdenoise.cli.app import main
from kbdenoise.imaging.files import write_image
from kbdenoise.progress import Advance, Progress
from kbdenoise.runs.folder import Run, RunRecord
from kbdenoise.submission.log import LogEntry, append_log
from kbdenoise.training.result import FoldResult, FoldsResult, TrainResult

Captured = pytest.CaptureFixture[str]

SMALL = ["--model", "unet", "--width", "4", "--patch", "16", "--batch", "1", "--device", "cpu"]

RUNS_TABLE = """\
  run              contest   model     status      steps   metric           best
  sharp-lynx                           damaged         0                       -
  calm-heron       demo      unet      finished   20,000   mae-mean-luma    1.90
  [i]brisk-otter   demo      kbnet-s   running     5,000   mae-mean-luma   11.86
"""

RUNS_COMPARED = """\
  setting              calm-heron   [i]brisk-otter
  model                unet         kbnet-s
  patch                128          192
  steps done           20,000       5,000
  best mae-mean-luma   1.9020       11.8610
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs and two test pictures, as somebody might have them."""
    folder = tmp_path_factory.mktemp("downloads")
    rng = np.random.default_rng(0)
    for number in range(8):
        clean = np.repeat(np.linspace(0.2, 0.9, 24, dtype=np.float32)[None, :, None], 32, axis=0)
        clean = np.repeat(clean * (0.9 + 0.01 * number), 3, axis=2)  # [32, 24, 3]
        noisy = np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32)
        if number < 6:
            write_image(folder / "train" / "clean" / f"page{number}.png", clean)
        kind = "train" if number < 6 else "test"
        write_image(folder / kind / "noisy" / f"page{number}.png", noisy)
    return folder


@pytest.fixture(scope="module")
def workplace(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a contest was fetched and a model trained, by these very commands."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        assert main(["fetch", "tiny", "--from", str(pictures), "-q"]) == 0
        words = ["train", *SMALL, "--steps", "3", "--folds", "3", "--fold", "0"]
        words += ["--name", "brisk-otter", "-q"]
        assert main(words) == 0
        yield folder


@pytest.fixture
def run_name(workplace: Path) -> str:
    """The whole name of the run."""
    (path,) = (p for p in (workplace / "runs").iterdir() if p.name.endswith("_brisk-otter"))
    return path.name


def one_object(capsys: Captured, *words: str) -> dict[str, Any]:
    """What a command says with --json, which must be one object on one line."""
    code = main([*words, "--json"])

    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.count("\n") == 1
    content = json.loads(out)
    assert isinstance(content, dict)
    return content


def test_fetch_counts_and_says_what_comes_next(
    workplace: Path, pictures: Path, capsys: Captured
) -> None:
    code = main(["fetch", "tiny", "--from", str(pictures)])

    out, err = capsys.readouterr()
    assert code == 0
    assert out.startswith("✓ data/tiny   6 pairs, paired by name · 2 test images\n")
    assert err.endswith("  next: kbdenoise inspect tiny\n")


@pytest.mark.usefixtures("workplace")
def test_inspect_shows_counts_figures_and_where_to_look(capsys: Captured) -> None:
    code = main(["inspect"])

    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.startswith("✓ data/tiny   6 pairs in 6 groups · 2 test pictures\n")
    assert "24x32 px" in out
    assert err.endswith("next: kbdenoise train tiny --preset quick --time-limit 10m\n")


@pytest.mark.usefixtures("workplace")
def test_inspect_names_what_is_wrong(capsys: Captured) -> None:
    broken = Path("data", "tiny", "contest.toml").read_text().partition('root = "')[2].split('"')[0]
    bad = Path(broken, "train", "noisy", "orphan.png")
    bad.write_bytes(b"no picture")
    try:
        code = main(["inspect"])
    finally:
        bad.unlink()

    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.startswith("! data/tiny")
    assert "  1 noisy without a clean partner: orphan.png\n" in out


@pytest.mark.usefixtures("workplace")
def test_train_names_run_score_and_next_command(capsys: Captured) -> None:
    words = ["train", *SMALL, "--steps", "2", "--folds", "3", "--fold", "0"]
    code = main([*words, "--runs", "other runs"])

    out, err = capsys.readouterr()
    (run,) = Path("other runs").iterdir()
    assert code == 0, err
    assert out.startswith(f"✓ {run}   psnr ")
    assert "at step 2" in out and "ended by: steps" in out
    assert err.endswith(f"next: kbdenoise evaluate {run.name} --runs 'other runs'\n")


@pytest.mark.usefixtures("workplace")
def test_a_dry_run_of_training_writes_nothing(capsys: Captured) -> None:
    code = main(["train", *SMALL, "--folds", "3", "--runs", "never", "--dry-run"])

    assert code == 0
    assert "nothing was trained" in capsys.readouterr().out
    assert not Path("never").exists()


def test_evaluate_compares_with_doing_nothing_and_lists_the_worst(
    capsys: Captured, run_name: str
) -> None:
    code = main(["evaluate", "brisk-otter"])

    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert code == 0, err
    assert lines[0].startswith(f"✓ runs/{run_name}   psnr ")
    assert "higher is better" in lines[0]
    assert [line.split()[0] for line in lines if line.startswith(("  doing", "  unet"))]
    assert any(line.split()[:2] == ["worst", "pictures"] for line in lines)
    assert err.endswith(f"next: kbdenoise predict {run_name}\n")


def test_predict_restores_the_test_pictures(capsys: Captured, run_name: str) -> None:
    code = main(["predict", "last", "--out", "restored pages"])

    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.startswith("✓ restored pages   2 pictures, ")
    assert {p.name for p in Path("restored pages").glob("*.png")} == {"page6.png", "page7.png"}


@pytest.mark.usefixtures("workplace")
def test_predict_restores_named_pictures(capsys: Captured, pictures: Path) -> None:
    picture = pictures / "train" / "noisy" / "page0.png"

    code = main(["predict", "last", str(picture), "-o", "one", "-q"])

    assert code == 0
    assert capsys.readouterr() == ("one\n", "")
    assert Path("one", "page0.png").is_file()


@pytest.mark.usefixtures("workplace")
def test_predict_overwrites_nothing_unasked(capsys: Captured, pictures: Path) -> None:
    picture = pictures / "train" / "noisy" / "page1.png"
    Path("full").mkdir()
    Path("full", "page1.png").write_bytes(b"mine")

    code = main(["predict", "last", str(picture), "--out", "full"])

    assert code == 2
    assert "--force" in capsys.readouterr().err
    assert Path("full", "page1.png").read_bytes() == b"mine"


def test_submit_writes_checks_and_says_what_is_left(capsys: Captured, run_name: str) -> None:
    code = main(["submit", "last", "--dry-run", "--message", "first"])

    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.startswith(f"✓ submissions/{run_name}")
    assert "checked" in out
    assert err.endswith("next: kbdenoise submit last\n")


def test_the_next_submit_goes_where_this_one_went(capsys: Captured, run_name: str) -> None:
    places = ["--contest", "tiny", "--submissions", "my answers"]

    code = main(["submit", run_name, "--dry-run", *places])

    _, err = capsys.readouterr()
    assert code == 0, err
    wanted = f"next: kbdenoise submit {run_name} --contest tiny --submissions 'my answers'\n"
    assert err.endswith(wanted)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["fetch", "tiny"], {"folder", "contest", "pairs", "tests", "notes"}),
        (["inspect"], {"folder", "summary", "summary_file", "sheet_file"}),
        (["evaluate", "brisk-otter"], {"run", "metric", "score", "rows", "table"}),
        (["predict", "brisk-otter", "--dry-run"], {"run", "out", "pictures", "megapixels"}),
        (["submit", "brisk-otter", "--dry-run"], {"path", "rows", "local_score", "sha256"}),
        (["runs", "list"], {"runs"}),
        (["runs"], {"runs"}),
        (["runs", "show", "brisk-otter"], {"run", "status", "best_score", "versions"}),
        (["runs", "compare", "brisk-otter", "brisk-otter"], {"runs", "differences"}),
        (["models"], {"models"}),
        (["models", "show", "unet"], {"name", "sizes"}),
        (["settings", "train", "--device", "cpu"], {"model", "data", "optimiser", "device"}),
        (["settings", "predict"], {"tiles", "device"}),
        (["doctor"], {"version", "healthy", "findings"}),
    ],
)
def test_json_is_exactly_one_object_with_the_names_of_the_api(
    capsys: Captured, words: list[str], keys: set[str]
) -> None:
    content = one_object(capsys, *words)

    assert content["command"].startswith(words[0])
    assert keys < set(content)


def test_quiet_training_gives_the_name_for_the_next_command(
    capsys: Captured, run_name: str
) -> None:
    code = main(["runs", "show", "brisk-otter", "--quiet"])

    assert code == 0
    assert capsys.readouterr() == (f"runs/{run_name}\n", "")


def test_a_run_is_shown_with_what_was_submitted_of_it(
    capsys: Captured, run_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "handed" / "log.csv"
    plain = LogEntry(
        time="2026-11-22T14:32:05+00:00",
        contest="demo",
        run=run_name,
        csv="submissions/first.csv",
        sha256="1",
        metric="mae-mean-luma",
        held_out_score=1.75,
        message="ema",
        status="written",
    )
    append_log(log, plain)
    append_log(log, replace(plain, status="complete", reference="4000001", public_score=1.5))
    append_log(log, replace(plain, run="another", reference="4000002"))
    words = ["runs", "show", "brisk-otter", "--submissions", str(log.parent)]

    code = main(words)
    told = capsys.readouterr().out
    listed = one_object(capsys, *words)["submissions"]

    assert code == 0
    assert [line.split() for line in told.splitlines()[-3:]] == [
        ["submission", "message", "status", "local", "public", "when"],
        ["first.csv", "ema", "written", "1.750", "-", "2026-11-22", "14:32"],
        ["4000001", "ema", "complete", "1.750", "1.500", "2026-11-22", "14:32"],
    ]
    assert [(e["reference"], e["public_score"]) for e in listed] == [("", None), ("4000001", 1.5)]


RESULT = TrainResult(
    run=Path("runs/2026-11-22_kbnet-s_brisk-otter"),
    metric="mae-mean-luma",
    unit="grey levels",
    best_score=1.8614,
    best_step=6000,
    untouched_score=13.9,
    steps=6214,
    seconds=754.0,
    stopped_by="steps",
)


@pytest.fixture
def train_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[TrainResult], dict[str, Any]]:
    """A function that puts an invented training in the place of the real one."""
    monkeypatch.chdir(tmp_path)

    def put(result: TrainResult) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def train(name: str | None, *, progress: Progress, **given: Any) -> TrainResult:
            seen.update(given, name=name)
            progress(Advance(task="train", done=1, total=2, values={"loss": 0.5}))
            return result

        monkeypatch.setattr("kbdenoise.training.train.train", train)
        return seen

    return put


def test_the_end_of_a_training_looks_like_this(
    capsys: Captured, train_gives: Callable[[TrainResult], dict[str, Any]]
) -> None:
    train_gives(RESULT)

    code = main(["train"])

    assert code == 0
    assert capsys.readouterr() == (
        "✓ runs/2026-11-22_kbnet-s_brisk-otter   mae-mean-luma 1.861 grey levels at step 6,000"
        " · untouched 13.90\n"
        "  6,214 steps in 12:34, ended by: steps\n",
        "train done=1 of=2 loss=0.5000\n"
        "  next: kbdenoise evaluate 2026-11-22_kbnet-s_brisk-otter\n",
    )


def test_an_interrupted_training_says_how_to_go_on_and_exits_with_130(
    capsys: Captured, train_gives: Callable[[TrainResult], dict[str, Any]]
) -> None:
    train_gives(replace(RESULT, stopped_by="interrupt", best_step=0, best_score=float("nan")))

    code = main(["train"])

    out, err = capsys.readouterr()
    assert code == 130
    assert "no score yet" in out
    assert err.endswith("  to go on: kbdenoise train --resume 2026-11-22_kbnet-s_brisk-otter\n")


FOLDS = FoldsResult(
    run=Path("runs/2026-11-22_unet_brisk-otter-folds"),
    metric="mae-mean-luma",
    unit="grey levels",
    out_of_fold_score=2.311,
    untouched_score=11.15,
    mean_score=2.42,
    spread=0.2114,
    pictures=50,
    folds=tuple(
        FoldResult(
            fold=fold,
            run=Path(f"runs/2026-11-22_unet_brisk-otter-fold{fold}"),
            pictures=25,
            score=score,
            untouched_score=11.0 + fold,
            steps=1500,
            best_step=1400,
        )
        for fold, score in enumerate((2.2, 2.64))
    ),
    seconds=754.0,
    scores_file=Path("runs/2026-11-22_unet_brisk-otter-folds/out_of_fold.csv"),
    stopped_by="steps",
)

FOLDS_TEXT = """\
✓ runs/2026-11-22_unet_brisk-otter-folds   mae-mean-luma 2.311 grey levels out of fold, all 50 \
pictures · untouched 11.15
  by fold 2.420 ± 0.21 · 12:34 in all, ended by: steps

  fold                pictures   mae-mean-luma   untouched   best step
  brisk-otter-fold0         25           2.200       11.00       1,400
  brisk-otter-fold1         25           2.640       12.00       1,400

  picture by picture: runs/2026-11-22_unet_brisk-otter-folds/out_of_fold.csv
"""


def test_the_end_of_a_cross_validation_looks_like_this(
    capsys: Captured, train_gives: Callable[[Any], dict[str, Any]]
) -> None:
    train_gives(FOLDS)

    code = main(["train", "--folds", "2"])

    out, err = capsys.readouterr()
    assert (code, out) == (0, FOLDS_TEXT)
    assert err.endswith("  next: kbdenoise predict 2026-11-22_unet_brisk-otter-fold0\n")


def test_an_interrupted_cross_validation_says_how_to_go_on_with_all_of_it(
    capsys: Captured, train_gives: Callable[[Any], dict[str, Any]]
) -> None:
    train_gives(replace(FOLDS, stopped_by="interrupt", out_of_fold_score=float("nan")))

    code = main(["train", "--folds", "2"])

    out, err = capsys.readouterr()
    assert code == 130
    assert "not all folds are scored yet" in out
    assert err.endswith("  to go on: kbdenoise train --resume 2026-11-22_unet_brisk-otter-folds\n")


def test_a_cross_validation_as_json_names_runs_and_scores(
    capsys: Captured, train_gives: Callable[[Any], dict[str, Any]]
) -> None:
    train_gives(replace(FOLDS, spread=float("nan")))

    content = one_object(capsys, "train", "--folds", "2")

    assert content["out_of_fold_score"] == 2.311
    assert content["spread"] is None
    assert [fold["score"] for fold in content["folds"]] == [2.2, 2.64]


def test_only_what_was_given_reaches_the_library(
    train_gives: Callable[[TrainResult], dict[str, Any]],
) -> None:
    seen = train_gives(RESULT)

    main(
        ["train", "demo", "--patch", "96", "--precision", "fp32", "--resume", "last", "--name", "a"]
    )

    assert seen == {
        "name": "demo",
        "data": Path("data"),
        "runs": Path("runs"),
        "preset": "standard",
        "config": None,
        "resume": "last",
        "run_name": "a",
        "dry_run": False,
        "patch": 96,
        "precision": "fp32",
    }


@pytest.fixture
def three_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run, one that goes on and has an awkward name, and a damaged one."""
    monkeypatch.chdir(tmp_path)
    record = RunRecord(
        contest="demo",
        contest_folder="data/demo",
        metric="mae-mean-luma",
        model="unet",
        channels=3,
        parameters=622_067,
        device="cpu",
        data_checksum="",
        status="finished",
        started_at="2026-11-21T10:00:00+00:00",
        steps=20_000,
        best_score=1.902,
    )
    other = replace(
        record,
        model="kbnet-s",
        status="running",
        started_at="2026-11-22T10:00:00+00:00",
        steps=5000,
        best_score=11.861,
    )
    for name, one, patch in (("calm-heron", record, 128), ("[i]brisk-otter", other, 192)):
        run = Run(path=Path("runs", name))
        run.path.mkdir(parents=True)
        run.write_record(one)
        run.config_file.write_text(f'[model]\nmodel = "{one.model}"\n[data]\npatch = {patch}\n')
    Path("runs", "sharp-lynx").mkdir()
    Path("runs", "sharp-lynx", "run.json").write_text("{")


@pytest.mark.usefixtures("three_runs")
def test_the_table_of_runs_looks_like_this(capsys: Captured) -> None:
    code = main(["runs"])

    assert code == 0
    assert capsys.readouterr() == (
        RUNS_TABLE,
        "  next: kbdenoise runs show '[i]brisk-otter'\n",
    )


@pytest.mark.usefixtures("three_runs")
def test_compared_runs_show_only_what_differs(capsys: Captured) -> None:
    code = main(["runs", "compare", "calm-heron", "[i]brisk-otter"])

    assert code == 0
    assert capsys.readouterr() == (RUNS_COMPARED, "")


def test_without_runs_the_list_says_so(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    code = main(["runs", "list", "--runs", "nowhere"])

    assert code == 0
    assert capsys.readouterr() == (
        "  there is no run in nowhere/ yet\n",
        "  next: kbdenoise train --runs nowhere\n",
    )


def test_the_costs_of_a_model_stand_in_a_table(capsys: Captured) -> None:
    code = main(["models", "show", "unet"])

    out, err = capsys.readouterr()
    header, small, *_ = out.split("\n\n")[1].splitlines()
    assert code == 0
    assert header.split()[:2] == ["size", "parameters"]
    assert small.split()[0] == "small"
    assert err == "  next: kbdenoise train --model unet --size small\n"


def contests_in(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "data" / name).mkdir(parents=True)
        (folder / "data" / name / "contest.toml").write_text(f'slug = "{name}"\n')


def test_several_contests_are_an_error_where_nobody_can_be_asked(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    contests_in(tmp_path, "demo", "khu-descan")
    monkeypatch.chdir(tmp_path)

    code = main(["train", "--device", "cpu"])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: there are 2 contests in data/\n hint: ")


def test_several_contests_are_asked_about_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    train_gives: Callable[[TrainResult], dict[str, Any]],
) -> None:
    from kbdenoise.cli.console import Console

    seen = train_gives(RESULT)
    contests_in(tmp_path, "demo", "khu-descan")
    answers = iter([3, 2])
    monkeypatch.setattr(Console, "can_ask", property(lambda self: True))
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(answers))

    code = main(["train"])

    assert code == 0
    assert seen["name"] == "khu-descan"


@pytest.fixture
def theirs(workplace: Path) -> Path:
    """A weights file as authors publish them."""
    import torch

    from kbdenoise.models.build import build_model

    path = workplace / "theirs.pth"
    model = build_model("dncnn", channels=3, depth=3, width=4)
    torch.save({"net": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return path


def test_predict_takes_weights_and_then_every_word_is_a_picture(
    capsys: Captured, pictures: Path, theirs: Path
) -> None:
    chosen = sorted(p for p in (pictures / "test").rglob("*.png"))[:2]

    code = main(["predict", "--weights", str(theirs), *map(str, chosen), "--out", "w", "-q"])

    assert code == 0, capsys.readouterr().err
    assert {p.name for p in Path("w").glob("*.png")} == {p.name for p in chosen}


def test_predict_with_weights_restores_a_contest_s_test_set(capsys: Captured, theirs: Path) -> None:
    content = one_object(capsys, "predict", "-w", str(theirs), "--contest", "tiny", "--dry-run")

    assert content["run"] is None
    assert content["weights"] == str(theirs)
    assert content["out"] == "submissions/theirs"


def test_a_run_beside_weights_is_refused(capsys: Captured, theirs: Path, run_name: str) -> None:
    code = main(["predict", run_name, "--weights", str(theirs)])

    _, err = capsys.readouterr()
    assert code == 2
    assert f"there is no file {run_name}" in err
    assert "leave out the run or --weights" in err


def test_train_starts_from_weights_and_tells_so(capsys: Captured, theirs: Path) -> None:
    words = ["train", "tiny", "--init", theirs.name, "--patch", "16", "--folds", "3", "--dry-run"]

    code = main(words)

    _, err = capsys.readouterr()
    assert code == 0, err
    assert "dncnn: " in err and f"from {theirs}" in err


def test_train_names_a_hyperparameter_that_there_is_not(capsys: Captured, workplace: Path) -> None:
    code = main(["train", "tiny", "--model", "dncnn", "--hyper", "dept=3", "--dry-run"])

    _, err = capsys.readouterr()
    assert code == 2
    assert "dncnn has no hyper-parameter 'dept'" in err
    assert "did you mean 'depth'?" in err
