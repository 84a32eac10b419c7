"""What goes to which stream: the result to stdout, everything else to stderr.

For a person on a terminal there are bars; elsewhere plain lines. `--json` turns the result into one
JSON object, `--quiet` into its shortest form and silences everything on stderr but errors.
"""

import os
import shutil
import sys
from types import TracebackType
from typing import Any, Self, TextIO

from kbdenoise.cli.drawing import Drawer, LiveDrawer, PlainDrawer
from kbdenoise.cli.words import printable, to_json
from kbdenoise.progress import Event
from kbdenoise.team import speaks

DONE, FAILED, ASKED_WRONGLY, INTERRUPTED = 0, 1, 2, 130
"""Exit codes of the program; the kinds of KaggleError have their own, 3 to 10."""

_RED, _DIM = "31", "2"


class Console:
    """The screen of one command. Its `progress` is the callback that library functions take."""

    def __init__(
        self, command: str, *, quiet: bool = False, as_json: bool = False, debug: bool = False
    ) -> None:
        self.command = command
        self.quiet = quiet
        self.as_json = as_json
        self.speaks = speaks()  # of processes that work together only one does
        self._drawer: Drawer | None = None
        if debug:
            log_to_stderr()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not (self.quiet or self.as_json)

    @property
    def width(self) -> int:
        """Columns of the terminal that the result goes to; 0 when it goes to a file or a pipe."""
        if not is_terminal(sys.stdout):
            return 0
        return shutil.get_terminal_size().columns

    def progress(self, event: Event) -> None:
        """Draw one event on stderr."""
        if self.quiet or not self.speaks:
            return
        if self._drawer is None:
            live = is_terminal(sys.stderr)
            self._drawer = LiveDrawer(sys.stderr) if live else PlainDrawer(sys.stderr)
        self._drawer.draw(event)

    def show(self, result: Any, *, text: str, short: str = "", next_command: str = "") -> None:
        """Write the result: `text` for a person, `short` when quiet, or the object as JSON."""
        self.close()
        if not self.speaks:
            return
        if self.as_json:
            write(sys.stdout, to_json(self.command, result))
        elif not self.quiet:
            write(sys.stdout, text)
        elif short:
            write(sys.stdout, short)
        if next_command:
            self.say(f"next: {next_command}")

    def say(self, text: str) -> None:
        """A line on stderr beside the result, unless quiet."""
        if self.speaks and not self.quiet:
            self.close()
            write(sys.stderr, paint(f"  {printable(text)}", _DIM, sys.stderr), safe=True)

    def close(self) -> None:
        """End the progress display. Does no harm when there is none."""
        if self._drawer is not None:
            self._drawer.close()
            self._drawer = None


def show_error(message: str, *, hint: str = "") -> None:
    """`error: ...` and ` hint: ...` on stderr."""
    for label, text, colour in (("error: ", message, _RED), (" hint: ", hint, _DIM)):
        if text:
            lines = printable(text).replace("\n", "\n" + " " * len(label))
            write(sys.stderr, paint(label, colour, sys.stderr) + lines, safe=True)


def show_traceback() -> None:
    """The traceback of the exception that is being handled, on stderr and without secrets."""
    import traceback

    from kbdenoise.contests.kaggle_client.scrub import scrub

    write(sys.stderr, scrub(traceback.format_exc().rstrip()), safe=True)


def write(stream: TextIO, text: str, *, safe: bool = False) -> None:
    """A text and a line end, flushed; control characters are written out unless it is `safe`."""
    stream.write((text if safe else printable(text)) + "\n")
    stream.flush()


def paint(text: str, code: str, stream: TextIO) -> str:
    """Colour on a terminal that wants it. Colour never carries meaning alone."""
    wanted = is_terminal(stream) and not os.environ.get("NO_COLOR")
    return f"\x1b[{code}m{text}\x1b[0m" if wanted else text


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def log_to_stderr() -> None:
    """Show kbdenoise's developer log; `--debug` asks for it."""
    import logging

    from kbdenoise.contests.kaggle_client.scrub import ScrubbingFormatter

    logger = logging.getLogger("kbdenoise")
    logger.setLevel(logging.DEBUG)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(ScrubbingFormatter("%(asctime)s %(name)s: %(message)s"))
        logger.addHandler(handler)
