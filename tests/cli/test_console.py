import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kbdenoise.cli import drawing
from kbdenoise.cli.console import Console, show_error
from kbdenoise.cli.drawing import PAUSE_S, LiveDrawer, PlainDrawer
from kbdenoise.progress import Advance, Fact, Note


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Result:
    run: Path
    steps: int


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """A function that gives a terminal of some width, colours as asked."""

    def make(*, columns: int = 100, no_color: bool = False) -> Terminal:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", "30")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_color:
            monkeypatch.setenv("NO_COLOR", "1")
        return Terminal()

    return make


def show(console: Console) -> None:
    console.progress(Fact(label="device", text="cpu"))
    result = Result(Path("runs/a"), 5)
    console.show(result, text="✓ runs/a", short="a", next_command="kbdenoise evaluate a")


def test_the_result_goes_to_stdout_and_all_else_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Console("train"))

    out, err = capsys.readouterr()
    assert out == "✓ runs/a\n"
    assert err == "  device   cpu\n  next: kbdenoise evaluate a\n"


def test_quiet_leaves_only_the_result_in_its_shortest_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Console("train", quiet=True))

    assert capsys.readouterr() == ("a\n", "")


@pytest.mark.parametrize("quiet", [False, True])
def test_json_is_exactly_one_object(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    show(Console("train", as_json=True, quiet=quiet))

    out, err = capsys.readouterr()
    assert json.loads(out) == {"command": "train", "run": "runs/a", "steps": 5}
    assert bool(err) is not quiet


def test_a_log_gets_a_line_at_once_and_then_one_every_thirty_seconds() -> None:
    now, stream = 0.0, io.StringIO()
    drawer = PlainDrawer(stream, clock=lambda: now)

    for step in range(1, 101):
        now = float(step)
        drawer.draw(Advance(task="train", done=step, total=100, values={"loss": 0.5}))

    assert PAUSE_S == 30.0
    assert stream.getvalue().splitlines() == [
        "train done=1 of=100 loss=0.5000",
        "train done=31 of=100 loss=0.5000",
        "train done=61 of=100 loss=0.5000",
        "train done=91 of=100 loss=0.5000",
    ]


def test_tasks_that_take_turns_share_the_thirty_seconds_of_a_log() -> None:
    stream = io.StringIO()
    drawer = PlainDrawer(stream, clock=lambda: 0.0)

    for task in ("train", "validate", "train"):
        drawer.draw(Advance(task=task, done=1, total=2))

    assert stream.getvalue() == "train done=1 of=2\n"


def test_facts_and_notes_reach_a_log_at_once() -> None:
    stream = io.StringIO()
    drawer = PlainDrawer(stream, clock=lambda: 0.0)

    drawer.draw(Fact(label="model", text="unet"))
    drawer.draw(Note(text="validation at step 5", values={"rmse": 0.01543, "best": "yes"}))
    drawer.draw(Note(text="a GPU is idle"))

    assert stream.getvalue() == (
        "  model    unet\nvalidation at step 5 rmse=0.01543 best=yes\na GPU is idle\n"
    )


def test_shares_and_bytes_are_told_as_percentages() -> None:
    stream = io.StringIO()
    PlainDrawer(stream, clock=lambda: 0.0).draw(Advance(task="train", done=0.314, total=1.0))
    PlainDrawer(stream, clock=lambda: 0.0).draw(Advance(task="fetch", done=2e9, total=4e9))
    PlainDrawer(stream, clock=lambda: 0.0).draw(Advance(task="look", done=0, total=0))

    assert stream.getvalue() == "train done=31%\nfetch done=50%\nlook done=?\n"


def drawn(stream: Terminal, *events: Advance | Note | Fact) -> str:
    now = 0.0
    drawer = LiveDrawer(stream, clock=lambda: now)
    for event in events:
        drawer.draw(event)
        now += 1.0
    drawer._progress.refresh()  # the screen is redrawn by a clock otherwise
    drawer.close()
    return stream.getvalue()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_shows_task_count_figures_and_the_time_left(
    terminal: Callable[..., Terminal],
) -> None:
    text = drawn(
        terminal(),
        Advance(task="train", done=10, total=100, values={"loss": 0.5}),
        Advance(task="train", done=20, total=100, values={"loss": 0.4}),
    )

    last = without_codes(text).split("\r")[-1]
    assert "train 20/100" in without_codes(text)
    assert "loss 0.4000  left 0:08" in without_codes(text), last
    assert text.endswith("\x1b[2K") or "\x1b[?25h" in text  # the line is gone, the cursor is back


def test_a_finished_task_leaves_the_terminal(terminal: Callable[..., Terminal]) -> None:
    text = drawn(
        terminal(),
        Advance(task="read", done=1, total=2),
        Advance(task="read", done=2, total=2),
        Advance(task="train", done=1, total=2),
    )

    assert "read" not in without_codes(text).rpartition("train")[0].rpartition("\r")[2]


def test_names_in_brackets_are_no_markup(terminal: Callable[..., Terminal]) -> None:
    text = without_codes(
        drawn(
            terminal(),
            Advance(task="[bold]a.png[/]", done=1, total=3, values={"file": "[red]:smile:"}),
            Note(text="[/nonsense] :smile:"),
            Fact(label="[x]", text="[y]"),
        )
    )

    for name in ("[bold]a.png[/]", "[red]:smile:", "[/nonsense] :smile:", "[y]"):
        assert name in text


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_no_line_is_wider_than_a_narrow_terminal(
    terminal: Callable[..., Terminal], columns: int
) -> None:
    values = {"step": 6200, "loss": 0.0231, "images_per_s": 142.0, "memory_gib": 9.8}

    text = drawn(
        terminal(columns=columns),
        Advance(task="train", done=6200, total=20_000, values=values),
        Advance(task="train", done=6300, total=20_000, values=values),
    )

    lines = re.split(r"[\r\n]+", without_codes(text))
    assert max(map(len, lines)) <= columns
    assert columns != 40 or "train 6,300/20,000 step 6,2" in re.sub(" +", " ", " ".join(lines))


def test_no_color_means_no_colours(
    terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal(no_color=True)
    monkeypatch.setattr(sys, "stderr", stream)

    drawn(stream, Advance(task="train", done=1, total=2))
    show_error("it broke", hint="mend it")

    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", stream.getvalue())
    assert "error: it broke\n hint: mend it\n" in stream.getvalue()


def test_errors_are_coloured_on_a_terminal(
    terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    show_error("it broke")

    assert stream.getvalue() == "\x1b[31merror: \x1b[0mit broke\n"


def test_a_dumb_terminal_gets_plain_lines(
    terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console("train")

    console.progress(Advance(task="train", done=1, total=2))
    console.close()

    assert stream.getvalue() == "train done=1 of=2\n"


def test_the_bar_goes_away_when_the_work_fails(
    terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    with pytest.raises(ZeroDivisionError), Console("train") as console:
        console.progress(Advance(task="train", done=1, total=2))
        raise ZeroDivisionError

    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_an_error_of_several_lines_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    show_error("two files:\na\x1b[2J.png", hint="remove\nthem")

    assert capsys.readouterr().err == (
        "error: two files:\n       a\\x1b[2J.png\n hint: remove\n       them\n"
    )


def test_a_task_may_begin_again(terminal: Callable[..., Terminal]) -> None:
    text = drawn(
        terminal(),
        Advance(task="validate", done=20, total=20),
        Advance(task="validate", done=1, total=20),
    )

    assert "validate 1/20" in without_codes(text)


def test_the_remaining_time_needs_a_speed() -> None:
    task = drawing._Task(0, 10, started_at=0.0)

    assert task.seconds_left(Advance(task="t", done=10, total=20), now=5.0) is None
    assert task.seconds_left(Advance(task="t", done=15, total=20), now=5.0) == 5.0
