import math
import os
import signal
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.batches import Batch, Images, to_images
from kbdenoise.data.patches import PatchSampler
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import read_image, write_image
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.progress import Advance, Event, Note
from kbdenoise.runs.folder import find_run, read_json
from kbdenoise.runs.history import read_history
from kbdenoise.training.train import TrainResult, train

StartChild = Callable[..., Any]

TINY: dict[str, Any] = {
    "model": "unet",
    "width": 4,
    "hyper": "levels=1 convs=1",
    "patch": 16,
    "batch": 2,
    "steps": 12,
    "val_every": 5,
    "folds": 4,
    "fold": 0,
    "device": "cpu",
    "threads": 1,
}

# Small hyper-parameters of other models.
SMALL = {
    "kbnet-s": "encoder_blocks=[1] middle_blocks=1 decoder_blocks=[1]",
    "dncnn": "depth=4",
    "tone": "",
    "tone+dncnn": "depth=4",
}


def tiny(model: str) -> dict[str, Any]:
    return TINY | {"model": model, "hyper": SMALL.get(model, TINY["hyper"])}


def train_tiny(contest: LocalContest, runs: Path, **changes: Any) -> TrainResult:
    return train(contest.folder, runs=runs, **(TINY | changes))


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / f"{name}.safetensors")


def assert_equal_weights(first: Path, second: Path, name: str = "last") -> None:
    one, other = weights(first, name), weights(second, name)
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def assert_equal_histories(first: Path, second: Path) -> None:
    """The same in every row, but for what the clock says."""
    rows = [read_history(run / "history.csv") for run in (first, second)]
    for one, other in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if k not in {"seconds", "images_per_s"}} == {
            k: v for k, v in other.items() if k not in {"seconds", "images_per_s"}
        }


def stop_at(step: int) -> Any:
    """A progress callback that asks this process to stop, as Ctrl-C does, at a validation."""

    def progress(event: Event) -> None:
        if isinstance(event, Note) and f"step {step}" in event.text:
            os.kill(os.getpid(), signal.SIGINT)

    return progress


def test_a_run_is_a_folder_that_tells_everything(contest: LocalContest, tmp_path: Path) -> None:
    result = train_tiny(contest, tmp_path / "runs")

    record = read_json(result.run / "run.json")
    assert {p.name for p in result.run.iterdir()} == {
        "config.toml",
        "run.json",
        "split.json",
        "history.csv",
        "best.safetensors",
        "last.safetensors",
        "state.pt",
    }
    assert record["status"] == "finished"
    assert record["steps"] == 12
    assert record["metric"] == "mae-mean-luma"
    assert record["data_checksum"]
    assert "patch = 16" in (result.run / "config.toml").read_text()
    assert [row["step"] for row in read_history(result.run / "history.csv")] == [5, 10, 12]
    assert result.stopped_by == "steps"
    assert math.isfinite(result.best_score)


def test_no_group_is_on_both_sides_of_the_split(contest: LocalContest, tmp_path: Path) -> None:
    result = train_tiny(contest, tmp_path / "runs")

    split = read_json(result.run / "split.json")
    sides = [{split["groups"][stem] for stem in split[side]} for side in ("train", "held_out")]
    assert not sides[0] & sides[1]
    assert len(split["train"]) + len(split["held_out"]) == 8


def test_two_runs_of_one_seed_give_the_same_weights(contest: LocalContest, tmp_path: Path) -> None:
    first = train_tiny(contest, tmp_path / "a")
    second = train_tiny(contest, tmp_path / "b")
    third = train_tiny(contest, tmp_path / "c", seed=1)

    assert_equal_weights(first.run, second.run)
    with pytest.raises(AssertionError):
        assert_equal_weights(first.run, third.run)


@pytest.mark.parametrize(
    ("model", "ema"),
    [("unet", 0.0), *((name, 0.9) for name in ("unet", "kbnet-s", "dncnn", "tone", "tone+dncnn"))],
)
def test_a_resumed_run_is_bit_identical_to_one_never_stopped(
    contest: LocalContest, tmp_path: Path, model: str, ema: float
) -> None:
    changes = tiny(model) | {"ema": ema}
    whole = train(contest.folder, runs=tmp_path / "whole", **changes)

    stopped = train(contest.folder, runs=tmp_path / "cut", progress=stop_at(5), **changes)
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert stopped.stopped_by == "interrupt"
    assert stopped.steps == 5
    assert resumed.steps == 12
    assert_equal_weights(whole.run, resumed.run)
    assert_equal_weights(whole.run, resumed.run, "best")
    assert_equal_histories(whole.run, resumed.run)


@pytest.mark.parametrize(
    ("picture", "step"),
    [
        pytest.param(1, 5, id="at the first picture"),
        pytest.param(4, 5, id="at the last one, by the raw weights"),
        pytest.param(9, 12, id="when all steps are done"),
    ],
)
def test_a_stop_within_a_validation_takes_one_picture_and_loses_nothing(
    contest: LocalContest, tmp_path: Path, picture: int, step: int
) -> None:
    changes, seen = TINY | {"ema": 0.9}, [0]
    whole = train(contest.folder, runs=tmp_path / "whole", **changes)

    def ask(event: Event) -> None:
        if isinstance(event, Advance) and event.task == "validate":
            seen[0] += 1
            if seen[0] == picture:
                os.kill(os.getpid(), signal.SIGINT)

    stopped = train(contest.folder, runs=tmp_path / "cut", progress=ask, **changes)
    record = read_json(stopped.run / "run.json")
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert (stopped.stopped_by, record["status"]) == ("interrupt", "interrupted")
    assert (seen[0], stopped.steps) == (picture, step)
    assert resumed.stopped_by == "steps"
    assert_equal_weights(whole.run, resumed.run)
    assert_equal_weights(whole.run, resumed.run, "best")
    assert_equal_histories(whole.run, resumed.run)


@pytest.mark.parametrize("model", ["unet", "tone"])
def test_a_resumed_run_sees_the_same_augmented_patches(
    contest: LocalContest, tmp_path: Path, model: str
) -> None:
    changes = tiny(model) | {"print_scan": 0.5}
    changes |= {"mixup": 0.5, "noise": 0.1, "camera_noise": 0.1}
    plain = train(contest.folder, runs=tmp_path / "plain", **tiny(model))
    whole = train(contest.folder, runs=tmp_path / "whole", **changes)

    train(contest.folder, runs=tmp_path / "cut", progress=stop_at(5), **changes)
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)
    with pytest.raises(AssertionError):
        assert_equal_weights(whole.run, plain.run)


def test_a_run_killed_without_warning_resumes_to_the_same_weights(
    contest: LocalContest, tmp_path: Path, start_child: StartChild
) -> None:
    whole = train_tiny(contest, tmp_path / "whole", steps=40)
    program = textwrap.dedent(f"""
        import time
        from kbdenoise.training.train import train
        from pathlib import Path
        train(Path({str(contest.folder)!r}), runs=Path({str(tmp_path / "cut")!r}),
              progress=lambda event: time.sleep(0.05), **{TINY | {"steps": 40}!r})
    """)
    child = start_child(program)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cut").glob("*/state.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.process.kill()
    killed = child.wait()

    resumed = train(resume="last", runs=tmp_path / "cut")

    assert killed.returncode == -signal.SIGKILL
    assert resumed.steps == 40
    assert_equal_weights(whole.run, resumed.run)


def test_the_second_signal_stops_at_once(contest: LocalContest, tmp_path: Path) -> None:
    def progress(event: Event) -> None:
        if isinstance(event, Note):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(contest.folder, runs=tmp_path / "runs", progress=progress, **TINY)


def test_the_time_limit_includes_the_last_validation(contest: LocalContest, tmp_path: Path) -> None:
    started = time.monotonic()
    result = train_tiny(contest, tmp_path / "runs", steps=10**6, val_every=10**6, time_limit="4s")

    assert result.stopped_by == "time limit"
    assert time.monotonic() - started < 7
    assert 0 < result.steps < 10**6
    assert read_history(result.run / "history.csv")[-1]["step"] == result.steps
    assert read_history(result.run / "history.csv")[-1]["lr"] < 1e-4  # the cosine came to its end


def test_training_brings_the_score_down(contest: LocalContest, tmp_path: Path) -> None:
    result = train_tiny(contest, tmp_path / "runs", steps=150, val_every=50, lr=5e-3)

    assert result.best_score < 0.5 * result.untouched_score


@pytest.mark.parametrize("model", ["tone", "tone+dncnn"])
def test_a_model_that_sees_the_page_learns_its_tone(
    contest: LocalContest, tmp_path: Path, model: str
) -> None:
    changes = tiny(model) | {"steps": 80, "val_every": 40, "lr": 5e-3}

    result = train(contest.folder, runs=tmp_path / "runs", **changes)

    assert result.best_score < 0.5 * result.untouched_score


def test_the_whole_page_is_what_a_model_that_sees_it_is_trained_with(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbdenoise.models import tone

    noted: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(page: torch.Tensor, noisy: torch.Tensor) -> None:
        if noisy.shape == (2, 3, 16, 16) and not noisy.is_meta:  # a batch of training patches
            noted.append((page, noisy))

    monkeypatch.setattr(tone, "_check_page", note)
    train(contest.folder, runs=tmp_path / "runs", **(tiny("tone") | {"steps": 3}))

    whole = {round(float(thumbnail(read_image(p), side=64).mean()), 4) for p in noisies(contest)}
    assert len(noted) == 3
    for page, _ in noted:
        assert {round(float(one.mean()), 4) for one in page} <= whole


def noisies(contest: LocalContest) -> list[Path]:
    return sorted(contest.noisy.iterdir())


@pytest.mark.parametrize(
    ("setting", "value", "was"), [("patch", 32, "16"), ("lr", 0.5, "0.001"), ("fold", 1, "0")]
)
def test_resuming_with_changed_settings_names_both_values(
    contest: LocalContest, tmp_path: Path, setting: str, value: Any, was: str
) -> None:
    train_tiny(contest, tmp_path / "runs")

    with pytest.raises(SettingsError) as caught:
        train(resume="last", runs=tmp_path / "runs", **{setting: value})

    assert str(value) in caught.value.message
    assert was in caught.value.message


def test_a_finished_run_can_be_given_more_steps(contest: LocalContest, tmp_path: Path) -> None:
    train_tiny(contest, tmp_path / "runs")

    with pytest.raises(SettingsError, match="done all its 12 steps"):
        train(resume="last", runs=tmp_path / "runs")
    result = train(resume="last", runs=tmp_path / "runs", steps=15)

    assert result.steps == 15


def test_resuming_on_changed_pictures_is_refused(contest: LocalContest, tmp_path: Path) -> None:
    train(contest.folder, runs=tmp_path / "runs", progress=stop_at(5), **TINY)
    picture = next(contest.noisy.iterdir())
    write_image(picture, np.full((48, 40, 3), 0.5, np.float32))

    with pytest.raises(DataError, match="have changed"):
        train(resume="last", runs=tmp_path / "runs")


def test_a_damaged_state_is_refused_by_name(contest: LocalContest, tmp_path: Path) -> None:
    result = train(contest.folder, runs=tmp_path / "runs", progress=stop_at(5), **TINY)
    state = result.run / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])

    with pytest.raises(DataError, match=r"state\.pt"):
        train(resume="last", runs=tmp_path / "runs")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch": 64}, "patch"),
        ({"model": "kbnet_s"}, "kbnet-s"),
        ({"patch": 21}, "multiple"),
        ({"stages": "16x2:50% 21x2:50%"}, "--stages 21x2 does not suit unet"),
        ({"stages": "16x2:50% 64x2:50%"}, "use --stages with sides of 40 or smaller"),
        ({"stages": "16x2:50%"}, "50 % together"),
        ({"mixup": 1.5}, "mixup"),
        ({"max_params": 10}, "parameters"),
        ({"size": "huge"}, "size"),
        ({"fold": 7}, "fold"),
        ({"min_lr": 1.0}, "min-lr"),
        ({"pach": 16}, "pach"),
        ({"device": "cuda"}, "cuda"),
    ],
)
def test_a_request_that_makes_no_sense_leaves_no_run_behind(
    contest: LocalContest, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")

    with pytest.raises(SettingsError) as caught:
        train_tiny(contest, tmp_path / "runs", **changes)

    assert words in caught.value.message + caught.value.hint
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_writes_no_run(contest: LocalContest, tmp_path: Path) -> None:
    result = train_tiny(contest, tmp_path / "runs", dry_run=True)

    assert result.stopped_by == "dry run"
    assert result.untouched_score > 0
    assert not (tmp_path / "runs").exists()


def test_training_that_diverges_stops_and_says_so(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbdenoise.training import losses

    def no_number(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        return restored.mean(dim=(1, 2, 3)) * math.nan

    monkeypatch.setitem(losses.LOSSES, "mse", no_number)  # type: ignore[index]

    with pytest.raises(DataError, match="diverged") as caught:
        train_tiny(contest, tmp_path / "runs", loss="mse", steps=100, val_every=1000)

    assert "--lr" in caught.value.hint


def test_a_full_disk_keeps_the_last_good_state(
    contest: LocalContest, tmp_path: Path, start_child: StartChild
) -> None:
    runs = tmp_path / "runs"
    train(contest.folder, runs=runs, progress=stop_at(5), **TINY)
    state = find_run("last", runs).state_file.read_bytes()
    program = textwrap.dedent(f"""
        import resource, signal
        from pathlib import Path
        from kbdenoise.errors import DataError
        from kbdenoise.training.train import train
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        try: train(resume="last", runs=Path({str(runs)!r}))
        except DataError as error: print(error.message)
    """)

    answer = start_child(program).wait()

    assert answer.returncode == 0, answer.stderr
    assert "no space left" in answer.stdout
    assert find_run("last", runs).state_file.read_bytes() == state
    assert train(resume="last", runs=runs).steps == 12


def test_progress_is_told_as_a_growing_share(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbdenoise.training.loop._REPORT_EVERY_S", 0.0)
    shares = []

    def progress(event: Event) -> None:
        if isinstance(event, Advance) and event.task == "train":
            shares.append(event.done / event.total)

    train(contest.folder, runs=tmp_path / "r", progress=progress, **(TINY | {"steps": 40}))

    assert len(shares) == 40
    assert all(0 <= share <= 1 for share in shares)
    assert shares[-1] > 0.9 > shares[10]


def test_a_disk_that_keeps_training_waiting_is_told_of_once(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a distant disk: every batch takes 0.2 s, a step a few milliseconds."""

    def slow(sampler: PatchSampler, step: int) -> Batch:
        time.sleep(0.2)
        return quick(sampler, step)

    quick = PatchSampler.batch
    monkeypatch.setattr(PatchSampler, "batch", slow)
    monkeypatch.setattr("kbdenoise.training.loop._LONG_WAIT_S", 0.1)
    events: list[Event] = []

    train_tiny(contest, tmp_path / "runs", steps=12, val_every=100, progress=events.append)

    told = [e.text for e in events if isinstance(e, Note) and "waiting for patches" in e.text]
    assert len(told) == 1 and "faster" in told[0]


def test_a_quick_disk_is_not_spoken_of(contest: LocalContest, tmp_path: Path) -> None:
    events: list[Event] = []

    train_tiny(contest, tmp_path / "runs", progress=events.append)

    assert not [e for e in events if isinstance(e, Note) and "waiting" in e.text]


def test_a_dry_run_of_a_resume_trains_nothing(contest: LocalContest, tmp_path: Path) -> None:
    train(contest.folder, runs=tmp_path / "runs", progress=stop_at(5), **TINY)

    result = train(resume="last", runs=tmp_path / "runs", dry_run=True)

    assert result.stopped_by == "dry run"
    assert find_run("last", tmp_path / "runs").read_record().steps == 5


@pytest.mark.parametrize("extra", [{"preset": "quick"}, {"run_name": "x"}, {"config": Path("c")}])
def test_what_a_resumed_run_cannot_take_is_refused(
    contest: LocalContest, tmp_path: Path, extra: dict[str, Any]
) -> None:
    train(contest.folder, runs=tmp_path / "runs", progress=stop_at(5), **TINY)

    with pytest.raises(SettingsError, match="takes its settings"):
        train(resume="last", runs=tmp_path / "runs", **extra)


def test_a_contest_that_was_moved_can_be_named_on_resuming(
    contest: LocalContest, tmp_path: Path
) -> None:
    train(contest.folder, runs=tmp_path / "runs", progress=stop_at(5), **TINY)
    moved = contest.folder.rename(tmp_path / "elsewhere")

    with pytest.raises(DataError):
        train(resume="last", runs=tmp_path / "runs")
    result = train(moved, resume="last", runs=tmp_path / "runs")

    assert result.steps == 12


def test_a_run_that_fails_is_not_left_as_running(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr("kbdenoise.training.loop.take_step", too_much)

    with pytest.raises(DataError, match="does not fit into the memory") as caught:
        train_tiny(contest, tmp_path / "runs")

    assert "--batch" in caught.value.hint
    assert find_run("last", tmp_path / "runs").read_record().status == "failed"


def test_a_run_killed_in_its_last_validation_is_validated_on_resuming(
    contest: LocalContest, tmp_path: Path
) -> None:
    whole = train_tiny(contest, tmp_path / "whole")

    def progress(event: Event) -> None:
        validating = isinstance(event, Advance) and event.task == "validate"
        if validating and find_run("last", tmp_path / "cut").read_record().steps == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(contest.folder, runs=tmp_path / "cut", progress=progress, **TINY)
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert find_run("last", tmp_path / "cut").read_record().status == "finished"
    assert resumed.best_score == whole.best_score
    assert_equal_weights(whole.run, resumed.run, "best")


def test_a_run_killed_before_its_first_step_can_be_resumed(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_tiny(contest, tmp_path / "whole")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kbdenoise.training.loop.take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(contest, tmp_path / "cut")
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)


def test_a_project_that_was_moved_finds_its_contest_again(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(contest.folder, runs=tmp_path / "runs", progress=stop_at(5), **TINY)
    (tmp_path / "new").mkdir()
    for name in ("data", "runs"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    monkeypatch.chdir(tmp_path / "new")

    assert train(resume="last").steps == 12


def test_a_file_of_a_run_that_may_not_be_read_is_not_called_damaged(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(contest.folder, runs=tmp_path / "runs", progress=stop_at(5), **TINY)
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "state.pt":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)

    with pytest.raises(DataError, match="Permission denied") as caught:
        train(resume="last", runs=tmp_path / "runs")

    assert "permission" in caught.value.hint


def test_a_batch_beyond_all_reason_is_refused(contest: LocalContest, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="must be between 0 and 65536"):
        train_tiny(contest, tmp_path / "runs", batch=10**12)


def test_a_step_that_overflows_leaves_weights_and_statistics_alone(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second batch is infinite: batch norm would keep that for ever."""
    calls = iter(range(10**6))

    def poisoned(batch: Batch, **options: Any) -> Images:
        images = to_images(batch, **options)
        factor = math.inf if next(calls) % 2 else 1.0
        return images._replace(noisy=images.noisy * factor)

    monkeypatch.setattr("kbdenoise.training.step.to_images", poisoned)

    changes = tiny("dncnn") | {"steps": 8, "val_every": 8}

    result = train(contest.folder, runs=tmp_path / "runs", **changes)

    for name, tensor in weights(result.run).items():
        assert torch.isfinite(tensor.float()).all(), name
    assert read_history(result.run / "history.csv")[-1]["skipped_steps"] == 4


def test_a_loss_scale_too_large_skips_steps_until_it_has_fallen(
    contest: LocalContest, tmp_path: Path
) -> None:
    """The path of fp16 on a GPU, walked on the CPU."""
    from kbdenoise.config import TrainConfig
    from kbdenoise.devices import DeviceChoice
    from kbdenoise.resolving import resolve
    from kbdenoise.runs.folder import create_run
    from kbdenoise.training.loop import run_steps
    from kbdenoise.training.prepare import gather, new_session
    from kbdenoise.training.state import load, save

    half = DeviceChoice(kind="cpu", reason="test", autocast="float16", precision_reason="test")
    config = resolve(TrainConfig(), ("test", TINY | {"steps": 30, "val_every": 30}))
    material = gather(contest, config, half, lambda event: None)
    session = new_session(create_run(tmp_path, model="unet", name="half"), material)
    session.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.0**40)

    run_steps(session, progress=lambda event: None)

    assert 0 < session.now.skipped_steps < 30
    assert session.scaler.get_scale() < 2.0**40
    assert math.isfinite(session.now.mean_loss)
    scale = session.scaler.get_scale()
    save(session)
    session.scaler = torch.amp.GradScaler("cpu", enabled=True)
    load(session, session.run.state_file)
    assert session.scaler.get_scale() == scale


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_kill_between_the_files_of_a_save_costs_no_exactness(
    contest: LocalContest, tmp_path: Path, start_child: StartChild, failing: int
) -> None:
    """The process dies inside a save, just before its n-th file takes its name."""
    whole = train_tiny(contest, tmp_path / "whole")
    program = textwrap.dedent(f"""
        import os
        from pathlib import Path
        from kbdenoise.training import loop
        from kbdenoise.training.train import train
        replace, save, saves, files = os.replace, loop.save, [0], [0]
        def counted(session, **words):
            saves[0] += 1
            save(session, **words)
        def dying(source, target):
            if saves[0] == 2:
                files[0] += 1
                if files[0] == {failing}:
                    os._exit(9)
            replace(source, target)
        loop.save, os.replace = counted, dying
        train(Path({str(contest.folder)!r}), runs=Path({str(tmp_path / "cut")!r}), **{TINY!r})
    """)

    child = start_child(program).wait()
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert child.returncode == 9, child.stderr
    assert_equal_weights(whole.run, resumed.run)
    assert_equal_weights(whole.run, resumed.run, "best")


def test_a_small_contest_holds_out_one_of_the_groups_that_it_has(
    contest: LocalContest, tmp_path: Path
) -> None:
    changes = {k: v for k, v in TINY.items() if k not in ("folds", "fold")}

    result = train(contest.folder, runs=tmp_path / "runs", **changes)

    assert len(read_json(result.run / "split.json")["held_out"]) == 2


def test_a_longer_run_says_that_its_rate_rises_once_more(
    contest: LocalContest, tmp_path: Path
) -> None:
    events: list[Event] = []
    train_tiny(contest, tmp_path, steps=20)

    train(resume="last", runs=tmp_path, steps=40, progress=events.append)

    told = [e.text for e in events if isinstance(e, Note) and "learning rate rises" in e.text]
    assert len(told) == 1 and "the longer run" in told[0]


def test_a_run_of_epochs_names_its_epochs_when_nothing_is_left(
    contest: LocalContest, tmp_path: Path
) -> None:
    changes = {k: v for k, v in TINY.items() if k != "steps"}
    train(contest.folder, runs=tmp_path, epochs=2.0, **changes)

    with pytest.raises(SettingsError, match="has done all") as caught:
        train(resume="last", runs=tmp_path)

    assert "--epochs 4" in caught.value.hint
    assert train(resume="last", runs=tmp_path, steps=9).steps == 9


def test_a_run_that_ran_out_of_patience_is_resumed_with_more_of_it(
    contest: LocalContest, tmp_path: Path
) -> None:
    train_tiny(contest, tmp_path, lr=0.0, min_lr=0.0, steps=50, val_every=2, patience=2)

    with pytest.raises(SettingsError, match="no better score for 2 validations") as caught:
        train(resume="last", runs=tmp_path)

    assert "--patience 4" in caught.value.hint
    assert train(resume="last", runs=tmp_path, patience=4).steps > 6
