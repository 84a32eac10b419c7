"""Dense-sparse-dense training."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import SettingsError
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.progress import Event, Note, silent
from kbdenoise.runs.folder import Run, compare_runs
from kbdenoise.runs.history import read_history
from kbdenoise.training import loop, validation
from kbdenoise.training.clock import Clock
from kbdenoise.training.loop import run_steps
from kbdenoise.training.session import Session
from kbdenoise.training.sparsity import masks_by_size, phase_at, within
from kbdenoise.training.train import train
from tests.training.test_time_limit import session_of
from tests.training.test_train import TINY, assert_equal_weights, stop_at

DSD = {**TINY, "hyper": "", "dsd": 0.3, "steps": 20, "val_every": 4, "warmup": "0"}


BLOCKS = {"encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}


def zeros(run: Path, name: str) -> dict[str, float]:
    """Share of exact zeros in every kernel of a weights file."""
    tensors = safetensors.torch.load_file(run / f"{name}.safetensors")
    return {k: float((t == 0).float().mean()) for k, t in tensors.items() if t.ndim > 1}


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, dict[str, torch.Tensor]]]:
    """Step, phase and weights after every step."""
    seen: list[tuple[int, int, dict[str, torch.Tensor]]] = []
    take_step = loop.take_step

    def noted(session: Session, batch: Any, **words: Any) -> Any:
        pulse = take_step(session, batch, **words)
        now = {n: p.detach().clone() for n, p in session.model.named_parameters()}
        seen.append((session.now.step, session.now.phase, now))
        return pulse

    monkeypatch.setattr(loop, "take_step", noted)
    return seen


def masked(name: str, *, sparsity: float, **hyper: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    model = build_model(name, channels=3, **hyper)
    return model, masks_by_size(
        model, describe_model(name, channels=3, side=0, **hyper), sparsity=sparsity
    )


def test_a_mask_keeps_the_largest_weights_of_every_layer_but_the_rim() -> None:
    model, masks = masked("unet", sparsity=0.3, width=4, levels=2)

    kernels = [n for n, p in model.named_parameters() if p.squeeze().ndim > 1]
    assert len(masks) == len(kernels) - 2
    for name, mask in masks.items():
        weights = model.get_parameter(name).detach().abs()
        assert int(mask.sum()) == round(0.7 * mask.numel())
        assert float(weights[mask].min()) >= float(weights[~mask].max())


def test_a_set_of_kernel_bases_counts_as_one_layer() -> None:
    model, masks = masked("kbnet-s", sparsity=0.5, width=4, **BLOCKS)

    basis = [name for name in masks if name.endswith(".w")]
    assert basis
    for name in basis:
        assert masks[name].shape == model.get_parameter(name).shape
        assert int(masks[name].sum()) == round(0.5 * masks[name].numel())


@pytest.mark.parametrize(
    ("name", "hyper", "whole"),
    [
        ("kbnet-s", BLOCKS, {"intro", "ending"}),
        ("nafnet", BLOCKS, {"intro", "ending"}),
        ("drunet", {"blocks": 1}, {"m_head", "m_tail"}),
        ("tone", {}, {"encoder.0", "curve"}),
        ("tone", {"kind": "affine"}, {"encoder.0", "affine"}),
        (
            "tone+res-unet",
            {},
            {"tone.encoder.0", "tone.curve", "restorer.intro", "restorer.ending"},
        ),
    ],
)
def test_only_what_meets_the_picture_and_what_is_added_stays_whole(
    name: str, hyper: dict[str, Any], whole: set[str]
) -> None:
    model, masks = masked(name, sparsity=0.3, width=4, **hyper)

    kept = {n for n, p in model.named_parameters() if p.squeeze().ndim > 1} - set(masks)
    biases = {n for n, _ in model.named_parameters() if n.endswith(".b")}
    assert kept == {f"{layer}.weight" for layer in whole} | biases


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_left_out_weights_stay_zero_for_the_phase_and_come_back_after_it(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str
) -> None:
    seen = watched(monkeypatch)

    train(contest.folder, runs=tmp_path, **(DSD | {"optimiser": optimiser}))

    assert [phase for _, phase, _ in seen] == [0] * 8 + [1] * 6 + [2] * 6
    names = [n for n, p in seen[0][2].items() if p.squeeze().ndim > 1]
    sparse = {n: [float((w[n] == 0).float().mean()) for _, p, w in seen if p == 1] for n in names}
    inner = [n for n in names if sparse[n][0] > 0.2]
    assert len(inner) == len(names) - 2
    for name in inner:
        zero = seen[8][2][name] == 0
        assert all(bool((w[name][zero] == 0).all()) for _, p, w in seen if p == 1)
        assert float((seen[-1][2][name] == 0).float().mean()) < 0.2


def test_the_last_phase_runs_at_a_tenth_of_the_rate(contest: LocalContest, tmp_path: Path) -> None:
    result = train(contest.folder, runs=tmp_path, **(DSD | {"val_every": 1, "min_lr": 0.0}))

    rates = [row["lr"] for row in read_history(result.run / "history.csv")]
    assert max(rates[8:14]) == pytest.approx(1e-3)
    assert max(rates[14:]) == pytest.approx(1e-4)


def test_the_phases_are_reported_beside_a_control_of_equal_length(
    contest: LocalContest, tmp_path: Path
) -> None:
    events: list[Event] = []
    sparse = train(contest.folder, runs=tmp_path, progress=events.append, **DSD)
    control = train(contest.folder, runs=tmp_path, dsd_control=True, **DSD)

    told = [e.text for e in events if isinstance(e, Note) and e.text.startswith("phase")]
    assert [text.partition(" ended at ")[2] for text in told] == ["step 8", "step 14", "step 20"]
    assert "sparse" in told[1]
    records = [Run(path=r.run).read_record() for r in (sparse, control)]
    assert [p["step"] for p in records[0].phases] == [p["step"] for p in records[1].phases]
    assert records[0].phases[0]["score"] == records[1].phases[0]["score"]
    assert records[0].phases[2]["score"] != records[1].phases[2]["score"]
    settings = [d.setting for d in compare_runs([Run(path=r.run) for r in (sparse, control)])]
    assert "after dense again" in settings and "after dense" not in settings
    assert max(zeros(control.run, "last").values()) < 0.05


@pytest.mark.parametrize("stop", [4, 12, 16])
def test_a_stopped_run_resumes_with_its_masks(
    contest: LocalContest, tmp_path: Path, stop: int
) -> None:
    whole = train(contest.folder, runs=tmp_path / "whole", **DSD)
    train(contest.folder, runs=tmp_path / "cut", progress=stop_at(stop), **DSD)

    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)
    phases = [Run(path=r.run).read_record().phases for r in (whole, resumed)]
    assert phases[0] == phases[1]


def test_the_averaged_weights_are_as_sparse(contest: LocalContest, tmp_path: Path) -> None:
    changes = DSD | {"ema": 0.9}
    run = train(contest.folder, runs=tmp_path, progress=stop_at(12), **changes).run

    shares = sorted(zeros(run, "last").values())
    assert shares[2] > 0.2


def test_phases_follow_one_another_in_their_shares() -> None:
    shares = (0.4, 0.3, 0.3)

    assert [phase_at(shares, p) for p in (0.0, 0.39, 0.4, 0.69, 0.7, 1.0)] == [0, 0, 1, 1, 2, 2]
    assert within(shares, 1, 0.4) == 0.0
    assert within(shares, 1, 0.55) == pytest.approx(0.5)
    assert within(shares, 2, 1.0) == 1.0


@pytest.mark.parametrize("text", ["", "50% 50%", "50% 20% 20%", "40% 0% 60%", "2 epochs 1% 97%"])
def test_phases_that_make_no_run_are_refused(
    contest: LocalContest, tmp_path: Path, text: str
) -> None:
    with pytest.raises(SettingsError, match="--dsd-phases"):
        train(contest.folder, runs=tmp_path, dsd_phases=text, **DSD)


def test_a_control_of_nothing_is_refused(contest: LocalContest, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--dsd-control needs --dsd"):
        train(contest.folder, runs=tmp_path, dsd_control=True, **TINY)


def test_a_plateau_of_one_phase_does_not_lower_the_rate_of_the_next(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "pooled", lambda rows, metric: 5.0)  # never better
    changes = {"schedule": "plateau", "lr_patience": 1, "val_every": 1, "min_lr": 1e-5}

    result = train(contest.folder, runs=tmp_path, **(DSD | changes | {"guard": 0.0}))

    rates = [row["lr"] for row in read_history(result.run / "history.csv")]
    assert rates[0] == rates[8] == pytest.approx(1e-3)  # each phase from its peak
    assert rates[14] == pytest.approx(1e-4)
    assert min(rates) == pytest.approx(1e-5)  # never below --min-lr


def test_patience_ends_a_run_in_its_last_phase_only(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "pooled", lambda rows, metric: 5.0)
    changes = {"steps": 40, "val_every": 2, "patience": 2}

    result = train(contest.folder, runs=tmp_path, **(DSD | changes))

    assert result.stopped_by == "patience" and result.steps == 32
    steps = [phase["step"] for phase in Run(path=result.run).read_record().phases]
    assert steps == [16, 28, 32]


def test_no_phase_ends_before_its_first_step_however_late_it_is(
    contest: LocalContest, tmp_path: Path
) -> None:
    """As after going back to step 0, where half of the time is over."""
    session = session_of(contest, tmp_path, **(DSD | {"steps": 4, "time_limit": "1h"}))
    session.now.time_share = 0.5

    run_steps(session, progress=silent)

    assert [phase["step"] for phase in session.record.phases] == [1, 3, 4]


def test_a_phase_that_ends_as_the_time_does_is_the_last_one(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(contest, tmp_path, **(DSD | {"steps": 10**6, "time_limit": "1h"}))
    session.now.time_share, validate, shows = 0.5, loop.validate, [0.0]

    def long(session: Session, **words: Any) -> Any:
        shows[0] = 3600.0
        return validate(session, **words)

    monkeypatch.setattr(loop, "validate", long)
    monkeypatch.setattr(Clock, "elapsed_s", lambda self: shows[0])
    assert run_steps(session, progress=silent) == "time limit"
    assert [(p["phase"], p["step"]) for p in session.record.phases] == [("dense", 1)]


@pytest.mark.parametrize(
    ("went_back", "why"), [(0, "s went on preparing"), (1, "training diverged")]
)
def test_a_time_limit_that_is_over_before_the_first_phase_is_told(
    contest: LocalContest, tmp_path: Path, went_back: int, why: str
) -> None:
    session = session_of(contest, tmp_path, **(DSD | {"time_limit": "1h"}))
    session.now.elapsed_s, session.now.went_back = 3600.0, went_back

    with pytest.raises(SettingsError, match=f"--time-limit 1h is too short .*{why}"):
        run_steps(session, progress=silent)


def test_a_run_killed_just_before_it_was_called_finished_is_on_resuming(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "pooled", lambda rows, metric: 5.0)
    changes = DSD | {"steps": 40, "val_every": 2, "patience": 2}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "forget_good", killed)
        with pytest.raises(KeyboardInterrupt):
            train(contest.folder, runs=tmp_path, **changes)
    result = train(resume="last", runs=tmp_path)

    assert (result.stopped_by, result.steps) == ("patience", 32)
    run = Run(path=result.run)
    assert [phase["step"] for phase in run.read_record().phases] == [16, 28, 32]
    assert run.read_record().status == "finished" and not run.good_file.exists()
    with pytest.raises(SettingsError, match="no better score"):
        train(resume="last", runs=tmp_path)
