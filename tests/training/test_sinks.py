import importlib.util
import sys
import textwrap
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import SettingsError
from kbdenoise.progress import Event, Note
from kbdenoise.runs.history import read_history
from kbdenoise.training import sinks
from kbdenoise.training.train import TrainResult, train

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
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def train_tiny(contest: LocalContest, runs: Path, **changes: Any) -> TrainResult:
    result = train(contest.folder, runs=runs, **(TINY | changes))
    assert isinstance(result, TrainResult)
    return result


@pytest.fixture(autouse=True)
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbdenoise.training.loop._REPORT_EVERY_S", 0.0)


class Recorder:
    """A sink that keeps what it is given, and fails at a step if asked to."""

    def __init__(self, fails_at: int = 0) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.closed = 0
        self.fails_at = fails_at

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise OSError("the server has gone")
        self.points.append((step, dict(values)))

    def close(self) -> None:
        self.closed += 1

    def curve(self, name: str) -> dict[int, float]:
        return {step: values[name] for step, values in self.points if name in values}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recorder]:
    """A function that puts a recorder in the place of TensorBoard."""

    def put(name: str = "tensorboard", **options: Any) -> Recorder:
        made = Recorder(**options)
        monkeypatch.setitem(sinks.SINKS, name, lambda run, config: made)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: types.SimpleNamespace(origin=name)
        )
        return made

    return put


def test_reports_and_validations_are_logged_as_in_the_history(
    contest: LocalContest, tmp_path: Path, recorder: Callable[..., Recorder]
) -> None:
    made = recorder()

    result = train_tiny(contest, tmp_path / "runs", log_to="tensorboard")

    history = read_history(result.run / "history.csv")
    for name in ("val_score", "val_raw_score", "val_psnr_db"):
        logged = made.curve(name)
        assert list(logged) == [5, 10, 12]
        assert list(logged.values()) == pytest.approx([row[name] for row in history])
    for name in ("loss", "lr", "images_per_s"):
        assert set(made.curve(name)) >= {1, 2, 3, 4, 6}
    assert made.curve("lr")[5] == pytest.approx(history[0]["lr"])
    assert made.closed == 1


def test_figures_that_are_not_there_are_not_logged(
    contest: LocalContest, tmp_path: Path, recorder: Callable[..., Recorder]
) -> None:
    made = recorder()

    train_tiny(contest, tmp_path / "runs", log_to="tensorboard", val_raw=False)

    assert made.curve("val_score") and not made.curve("val_raw_score")


def test_a_sink_that_fails_is_told_of_once_and_ends_nothing(
    contest: LocalContest, tmp_path: Path, recorder: Callable[..., Recorder]
) -> None:
    failing, other = recorder("tensorboard", fails_at=6), recorder("wandb")
    events: list[Event] = []

    result = train_tiny(
        contest, tmp_path / "runs", log_to="wandb,tensorboard", progress=events.append
    )

    told = [e.text for e in events if isinstance(e, Note) and "without" in e.text]
    assert told == ["training goes on without tensorboard: OSError: the server has gone"]
    assert result.steps == 12
    assert max(step for step, _ in failing.points) == 5
    assert max(step for step, _ in other.points) == 12


def test_a_sink_that_cannot_begin_or_end_ends_nothing(
    contest: LocalContest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorder: Callable[..., Recorder],
) -> None:
    made = recorder("wandb")

    def refuse(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setitem(sinks.SINKS, "tensorboard", refuse)
    monkeypatch.setattr(made, "close", refuse)
    events: list[Event] = []

    result = train_tiny(
        contest, tmp_path / "runs", log_to="tensorboard wandb", progress=events.append
    )

    told = [e.text for e in events if isinstance(e, Note) and "without" in e.text]
    assert [text.split(":")[0].split()[-1] for text in told] == ["tensorboard", "wandb"]
    assert result.stopped_by == "steps"


def test_sinks_are_closed_where_training_fails(
    contest: LocalContest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorder: Callable[..., Recorder],
) -> None:
    made = recorder()

    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("kbdenoise.training.loop.take_step", broken)

    with pytest.raises(ValueError, match="a bug"):
        train_tiny(contest, tmp_path / "runs", log_to="tensorboard")

    assert made.closed == 1


def test_a_sink_that_there_is_not_is_refused_with_the_nearest_name(
    contest: LocalContest, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="--log-to knows no 'tensorbord'") as caught:
        train_tiny(contest, tmp_path / "runs", log_to="tensorbord")

    assert caught.value.hint == "did you mean 'tensorboard'?"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A folder that W&B left behind in the working folder is no package."""
    (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    importlib.invalidate_caches()

    with pytest.raises(SettingsError, match=f"needs the package {name}") as caught:
        sinks.check_sinks(name)

    assert caught.value.hint == f"pip install 'kbdenoise[{name}]'"


def test_the_extras_that_are_named_are_there() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())

    assert set(sinks.SINKS) < set(project["project"]["optional-dependencies"])


class FakeWriter:
    """torch's SummaryWriter, as far as it is used."""

    made: list["FakeWriter"]

    def __init__(self, folder: str, *, purge_step: int, flush_secs: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.points: list[tuple[str, float, int]] = []
        FakeWriter.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points.append((name, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_tensorboard(monkeypatch: pytest.MonkeyPatch) -> type[FakeWriter]:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: types.SimpleNamespace(origin=name)
    )
    FakeWriter.made = []
    return FakeWriter


def test_after_a_resume_tensorboard_purges_from_the_first_step_that_is_new(
    contest: LocalContest, tmp_path: Path, fake_tensorboard: type[FakeWriter]
) -> None:
    def killed(event: Event) -> None:
        if isinstance(event, Note) and "validation at step 10" in event.text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(contest, tmp_path / "runs", log_to="tensorboard", progress=killed)
    train(resume="last", runs=tmp_path / "runs")

    before, after = fake_tensorboard.made
    assert before.closed and after.closed
    assert max(step for _, _, step in before.points) == 10
    assert after.purge_step == 6  # the state is that of step 5
    assert min(step for _, _, step in after.points) == 6
    assert before.folder == after.folder


def test_where_training_goes_back_tensorboard_purges_what_was_beyond(
    contest: LocalContest, tmp_path: Path, fake_tensorboard: type[FakeWriter]
) -> None:
    class Config:
        pass

    from kbdenoise.runs.folder import Run

    board = sinks.TensorBoard(Run(path=tmp_path), Config())  # type: ignore[arg-type]
    for step in (1, 2, 2, 3, 2, 3):
        board.log(step, {"loss": float(step)})
    board.close()

    assert [writer.purge_step for writer in fake_tensorboard.made] == [1, 2]
    assert [step for _, _, step in fake_tensorboard.made[0].points] == [1, 2, 2, 3]
    assert all(writer.closed for writer in fake_tensorboard.made)


@needs_tensorboard
def test_tensorboard_reads_one_smooth_curve_after_a_kill(
    contest: LocalContest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_child: Callable[..., Any],
) -> None:
    program = textwrap.dedent(f"""
        import os
        from pathlib import Path
        from kbdenoise.progress import Advance
        from kbdenoise.training import loop
        from kbdenoise.training.train import train
        loop._REPORT_EVERY_S = 0.0
        def killed(event):
            if isinstance(event, Advance) and event.values.get("step") == 9:
                session.sinks._sinks["tensorboard"]._writer.flush()
                os._exit(9)
        report = loop._report
        def noted(chosen, *rest):
            global session
            session = chosen
            report(chosen, *rest)
        loop._report = noted
        train(Path({str(contest.folder)!r}), runs=Path({str(tmp_path / "runs")!r}),
              log_to="tensorboard", progress=killed, **{TINY!r})
    """)
    child = start_child(program).wait()
    assert child.returncode == 9, child.stderr

    time.sleep(1.1)  # event files are read in the order of the seconds in their names
    monkeypatch.setattr("kbdenoise.training.loop._REPORT_EVERY_S", 0.0)
    resumed = train(resume="last", runs=tmp_path / "runs")

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(resumed.run / "tensorboard"))
    events.Reload()
    history = read_history(resumed.run / "history.csv")
    assert [e.step for e in events.Scalars("loss")] == list(range(1, 13))
    assert [e.step for e in events.Scalars("val_score")] == [5, 10, 12]
    assert [e.value for e in events.Scalars("val_score")] == pytest.approx(
        [row["val_score"] for row in history], rel=1e-6
    )


class FakeRun:
    """A run of W&B, as far as it is used: figures of earlier steps are an error here."""

    def __init__(self, step: int) -> None:
        self.step, self.finished = step, False
        self.points: list[tuple[int, dict[str, float]]] = []

    def log(self, values: dict[str, float], *, step: int) -> None:
        assert step >= self.step
        self.step = step
        self.points.append((step, values))

    def finish(self) -> None:
        self.finished = True


class FakeWandB(types.ModuleType):
    """W&B with a login or without one, with a server that answers or without one."""

    def __init__(self, *, login: bool, answers: bool, step: int = 0) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.run = FakeRun(step)
        self.torn_down = False
        self._login, self._answers = login, answers
        self.errors = types.SimpleNamespace(CommError=ConnectionError)

    def Settings(self, **options: Any) -> dict[str, Any]:
        return options

    def setup(self, settings: dict[str, Any]) -> None:
        assert settings["silent"]

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt
        return self._login

    def teardown(self) -> None:
        self.torn_down = True

    def init(self, **options: Any) -> FakeRun:
        self.begun.append(options)
        if options.get("mode") == "online" and not self._answers:
            raise ConnectionError("no such host")
        return self.run


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeWandB]:
    def put(**options: Any) -> FakeWandB:
        module = FakeWandB(**options)
        monkeypatch.setitem(sys.modules, "wandb", module)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: types.SimpleNamespace(origin=name)
        )
        monkeypatch.delenv("WANDB_MODE", raising=False)
        return module

    return put


@pytest.mark.parametrize(
    ("login", "answers", "modes"),
    [
        (True, True, ["online"]),
        (False, True, ["offline"]),
        (True, False, ["online", "offline"]),
    ],
)
def test_wandb_is_offline_without_a_login_or_a_server(
    contest: LocalContest,
    tmp_path: Path,
    fake_wandb: Callable[..., FakeWandB],
    login: bool,
    answers: bool,
    modes: list[str],
) -> None:
    module = fake_wandb(login=login, answers=answers)

    result = train_tiny(contest, tmp_path / "runs", log_to="wandb")

    assert [begun["mode"] for begun in module.begun] == modes
    begun = module.begun[-1]
    assert begun["name"] == result.run.name
    assert (begun["dir"], begun["resume"]) == (str(result.run), "allow")
    assert begun["config"]["data"]["patch"] == 16
    assert [step for step, values in module.run.points if "val_score" in values] == [5, 10, 12]
    assert module.run.finished
    assert module.torn_down == (len(modes) == 2)


def test_wandb_is_spared_the_steps_that_it_has(
    contest: LocalContest, tmp_path: Path, fake_wandb: Callable[..., FakeWandB]
) -> None:
    module = fake_wandb(login=True, answers=True, step=8)

    train_tiny(contest, tmp_path / "runs", log_to="wandb")

    assert min(step for step, _ in module.run.points) == 8
