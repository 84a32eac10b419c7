"""What a time limit does to the schedule, to validations and to the end, by a clock of our own."""

import math
import random
import time
from pathlib import Path
from typing import Any

import pytest

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.devices import choose_device
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import FloatImage, to_float, write_image
from kbdenoise.progress import Advance, Event, Note, silent
from kbdenoise.resolving import resolve
from kbdenoise.runs.folder import Run, create_run
from kbdenoise.runs.history import read_history
from kbdenoise.training import loop, validation
from kbdenoise.training.clock import Clock
from kbdenoise.training.ending import no_step
from kbdenoise.training.one_run import train_session
from kbdenoise.training.prepare import gather, new_session
from kbdenoise.training.session import Session
from kbdenoise.training.train import train
from kbdenoise.training.validation import plan_validation
from tests.conftest import MakeContest, smooth_picture
from tests.training.test_train import TINY

LIMITED = TINY | {"steps": 10**6, "val_every": 10**6, "time_limit": "20m", "ema": 0.0}


def session_of(contest: LocalContest, runs: Path, **changes: Any) -> Session:
    config = resolve(TrainConfig(), ("test", LIMITED | changes))
    material = gather(contest, config, choose_device("cpu"), silent)
    return new_session(create_run(runs, model="unet", name="otter"), material)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that starts at 300 s, as where decoding took long; a step takes 100 s."""
    shows, take_step = [300.0], loop.take_step

    def slow(session: Session, batch: Any, **words: Any) -> Any:
        pulse = take_step(session, batch, **words)
        shows[0] += 100.0
        return pulse

    monkeypatch.setattr(loop, "take_step", slow)
    monkeypatch.setattr(Clock, "elapsed_s", lambda self: shows[0])
    return shows


def noted_rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rate of every step."""
    rates: list[float] = []
    set_rate = loop.set_rate

    def noted(session: Session) -> float:
        rates.append(set_rate(session))
        return rates[-1]

    monkeypatch.setattr(loop, "set_rate", noted)
    return rates


def test_the_schedule_begins_with_training_and_ends_with_the_time(
    contest: LocalContest, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = noted_rates(monkeypatch)

    result = train(contest.folder, runs=tmp_path, **LIMITED)

    assert (result.stopped_by, result.steps) == ("time limit", 9)
    assert rates[:2] == [pytest.approx(1e-6)] * 2  # the warm-up's first step; the cold one
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[2] > 9e-4 and rates[-1] < 1e-5


def test_a_sitting_begins_where_the_one_before_has_left_the_schedule(
    contest: LocalContest, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, take_step = session_of(contest, tmp_path), loop.take_step
    session.now.time_share = 0.3

    def then_ask(session: Session, batch: Any, **words: Any) -> Any:
        session.request.asked = True
        return take_step(session, batch, **words)

    monkeypatch.setattr(loop, "take_step", then_ask)
    loop.run_steps(session, progress=silent)

    assert session.now.elapsed_s == 400
    assert session.moment().run == 0.3


def test_the_share_of_the_time_never_falls_and_comes_to_its_end(
    contest: LocalContest, tmp_path: Path
) -> None:
    session, draw = session_of(contest, tmp_path), random.Random(0)
    shares = [session.moment().run]

    while not session.out_of_time:
        session.now.validation_s = draw.uniform(0.0, 200.0)
        session.now.step_s = draw.uniform(0.0, 30.0)
        session.pass_time(session.now.elapsed_s + draw.uniform(0.0, 20.0))
        shares.append(session.moment().run)

    assert shares == sorted(shares) and shares[0] == 0.0
    assert shares[-1] > 0.99


def test_a_used_up_time_limit_is_told_and_a_longer_one_trains_on(
    contest: LocalContest, tmp_path: Path, clock: list[float]
) -> None:
    events: list[Event] = []
    first = train(contest.folder, runs=tmp_path, **LIMITED)

    with pytest.raises(SettingsError, match="used up its --time-limit 20m") as caught:
        train(resume="last", runs=tmp_path)
    assert "--time-limit ..." in caught.value.hint
    second = train(resume="last", runs=tmp_path, time_limit="30m", progress=events.append)

    assert (second.stopped_by, second.steps) == ("time limit", first.steps + 6)
    assert any("learning rate rises" in e.text for e in events if isinstance(e, Note))
    rows = read_history(second.run / "history.csv")
    assert [row["step"] for row in rows] == [first.steps, second.steps]
    assert rows[-1]["lr"] < 1e-5


def test_a_longer_limit_counts_though_its_first_sitting_saved_nothing(
    contest: LocalContest, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(contest.folder, runs=tmp_path, **LIMITED)

    def killed(*_: Any, **words: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(resume="last", runs=tmp_path, time_limit="1h")
    rates = noted_rates(monkeypatch)
    second = train(resume="last", runs=tmp_path)

    assert second.steps > 3 * first.steps
    assert rates[1] > 5e-4 and rates[-1] < 1e-5


def test_a_stopped_validation_counts_for_the_time_limit(
    contest: LocalContest, tmp_path: Path, clock: list[float]
) -> None:
    session = session_of(contest, tmp_path, steps=3)

    def ask(event: Event) -> None:
        if isinstance(event, Advance) and event.task == "validate":
            clock[0] += 50.0
            session.request.asked = True

    assert loop.run_steps(session, progress=ask) == "interrupt"
    assert session.now.elapsed_s == session.run.read_record().seconds == 650


def test_a_first_step_says_nothing_of_the_others(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, moments = session_of(contest, tmp_path), iter([0.0, 700.0, 700.0, 701.0])
    clock = Clock.start(session)
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    monkeypatch.setattr(Clock, "elapsed_s", lambda self: 0.0)
    kept = []

    for _ in range(2):
        clock.step_began = time.monotonic()
        clock.note_step(session)
        kept.append(session.now.step_s)

    assert kept == [0.0, 1.0]


def test_steps_and_saves_are_measured_and_kept_free_at_the_end(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, take_step = loop.save, loop.take_step

    def slow_save(session: Session, **words: Any) -> None:
        time.sleep(0.02)
        save(session, **words)

    def slow_step(session: Session, batch: Any, **words: Any) -> Any:
        time.sleep(0.01)
        return take_step(session, batch, **words)

    monkeypatch.setattr(loop, "save", slow_save)
    monkeypatch.setattr(loop, "take_step", slow_step)
    session = session_of(contest, tmp_path, steps=3)

    loop.run_steps(session, progress=silent)

    assert session.now.save_s >= 0.02 and session.now.step_s >= 0.01
    assert session.end_s <= 1200 - 3 - 0.01 - 4 * 0.02


def test_a_time_limit_that_is_over_before_the_first_step_is_no_success(
    contest: LocalContest, tmp_path: Path
) -> None:
    session = session_of(contest, tmp_path, steps=3)
    run = session.run

    with pytest.raises(SettingsError, match="--time-limit 20m is too short to train") as caught:
        train_session(session, started=time.monotonic() - 1199, progress=silent)

    assert f"--resume {run.name} --time-limit" in caught.value.hint
    assert run.read_record().status == "failed"
    with pytest.raises(DataError, match="no step of it has been saved"):
        run.weights()
    assert train(resume="last", runs=tmp_path, time_limit="1h").steps == 3
    assert run.weights() == run.best


def test_a_run_that_went_back_to_its_beginning_as_the_time_ended_says_so(
    contest: LocalContest, tmp_path: Path
) -> None:
    session = session_of(contest, tmp_path, steps=3)
    before = no_step(session)
    session.now.went_back, session.now.best_step = 1, 1

    after = no_step(session)

    assert "went on preparing" in before.message and "best weights" not in before.hint
    assert "diverged and went back to where it began" in after.message
    assert "preparing" not in after.message and str(session.run.best) in after.hint


def test_a_validation_too_long_for_the_limit_scores_fewer_pictures_and_says_so(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "_picture_s", lambda session, index: 150.0)
    events: list[Event] = []
    session = session_of(contest, tmp_path, steps=2, folds=2)
    of_all = session.record.untouched_score
    session.now.affordable_pictures, session.now.validation_s = 1, 9.0  # planned, never scored

    result = train_session(session, started=time.monotonic(), progress=events.append)

    assert any("2 of 4 pictures" in e.text for e in events if isinstance(e, Note))
    assert len(session.validated) == 2
    some = [session.metric.score(*pair(session, i)) for i in session.validated]
    assert result.untouched_score == pytest.approx(sum(some) / 2)
    assert result.untouched_score != of_all
    assert Run(path=result.run).read_record().untouched_score == result.untouched_score


def pair(session: Session, index: int) -> tuple[FloatImage, FloatImage]:
    return to_float(session.store.noisy(index)), to_float(session.store.clean(index))


def test_validations_are_planned_by_a_warm_picture_of_middling_size(
    make_contest: MakeContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call takes as long as loading libraries does, others a time for each pixel."""
    contest, timed = make_contest(pages=3, holdout=["Page.00000", "Page.00001"]), []
    for number, page in enumerate((contest.noisy, contest.clean)):
        for crop, (height, width) in enumerate([(96, 80), (24, 20)], start=1):
            picture = smooth_picture(number, height=height, width=width)
            write_image(page / f"Page.00000.{crop:02d}.png", picture)
    session = session_of(contest, tmp_path)
    pixels = [math.prod(session.store.size(i)) for i in session.validated]
    assert sorted(pixels) == [480, 1920, 1920, 7680]

    def picture_s(session: Session, index: int) -> float:
        timed.append(math.prod(session.store.size(index)))
        return (100.0 if len(timed) == 1 else 0.0) + timed[-1] / 1000

    monkeypatch.setattr(validation, "_picture_s", picture_s)
    plan_validation(session, silent)

    assert timed == [1920, 1920]
    assert session.now.validation_s == pytest.approx(sum(pixels) / 1000)
    assert not session.now.affordable_pictures
