"""The program `kbdenoise`: its commands in the order of use, and errors as text and exit codes."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from kbdenoise import __version__
from kbdenoise.cli import (
    bench,
    doctor,
    evaluate,
    export,
    fetch,
    inspect,
    leaderboard,
    models,
    predict,
    runs,
    score,
    settings,
    submit,
    train,
)
from kbdenoise.cli.console import (
    ASKED_WRONGLY,
    DONE,
    FAILED,
    INTERRUPTED,
    show_error,
    show_traceback,
    write,
)
from kbdenoise.cli.options import Command, with_durations, write_failure
from kbdenoise.devices import let_mps_fall_back, let_threads_spin
from kbdenoise.errors import KbdenoiseError
from kbdenoise.team import speaks, tells

PANELS: dict[str, tuple[Command | typer.Typer, ...]] = {
    "Contest": (
        fetch.fetch,
        inspect.inspect,
        submit.submit,
        score.score,
        leaderboard.leaderboard,
    ),
    "Work": (train.train, evaluate.evaluate, predict.predict, export.export),
    "Look": (doctor.doctor, bench.bench, runs.app, models.app, settings.app),
}

# `torchrun` ends all processes as soon as one has ended: the leader has to be given its time.
_LEADER_SPEAKS_S = 5.0

app = typer.Typer(
    name="kbdenoise",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="First time?  kbdenoise doctor, then  kbdenoise fetch demo",
)
for _panel, _commands in PANELS.items():
    for _command in _commands:
        if isinstance(_command, Command):
            _command.add_to(app, _panel)
        else:
            app.add_typer(_command, rich_help_panel=_panel)


def _show_version(wanted: bool) -> None:
    if wanted:
        write(sys.stdout, f"kbdenoise {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_show_version, help="Show the version."
        ),
    ] = False,
) -> None:
    """Restore images for Kaggle contests."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), nl=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0, 1, 2, 130, or that of an error's kind."""
    let_threads_spin()
    let_mps_fall_back()
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _stop) if in_main_thread else None
    words = with_durations(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream put in place by somebody else
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _run(words)
    except KeyboardInterrupt:  # a second one, while the first or an error was being told
        return INTERRUPTED
    finally:
        if in_main_thread:  # what ends us from now on has nothing to clean up
            try:
                signal.signal(signal.SIGTERM, before)
            except KeyboardInterrupt:  # a signal that came as the command ended is heard here
                signal.signal(signal.SIGTERM, before)


def _run(words: list[str]) -> int:
    """One command line, its errors told in words."""
    try:
        code = app(args=words, prog_name="kbdenoise", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except KbdenoiseError as error:
        if "--debug" in words:
            show_traceback()
        if tells(error):
            show_error(error.message, hint=error.hint)
        elif not speaks():
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(_LEADER_SPEAKS_S)
        return error.exit_code
    except typer.TyperException as error:
        return _show_usage_error(error, words) if speaks() else ASKED_WRONGLY
    except (KeyboardInterrupt, typer.Abort):
        if speaks():
            show_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _let_go_of_stdout()
        return FAILED
    except OSError as error:
        if error.filename is None:
            return _show_bug()
        if "--debug" in words:
            show_traceback()
        show_error(
            f"{error.filename}: {error.strerror}",
            hint="check that it exists, its name and its permissions",
        )
        return FAILED
    except Exception as error:
        if not _lacks_memory(error):
            return _show_bug()
        if "--debug" in words:
            show_traceback()
        show_error(
            "the memory ran out",
            hint="close other programs, or raise the limit (`ulimit -v`, or the container's)",
        )
        return FAILED


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "can't start new thread" in str(error)


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a command as Ctrl-C does: what was begun is cleaned up."""
    raise KeyboardInterrupt


def _show_bug() -> int:
    show_traceback()
    show_error(
        "this is a bug in kbdenoise",
        hint="please report it with the lines above and what `kbdenoise doctor` says",
    )
    return FAILED


def _show_usage_error(error: typer.TyperException, words: list[str]) -> int:
    """Name the nearest option, or else the help page of the command that was meant."""
    path = getattr(getattr(error, "ctx", None), "command_path", "kbdenoise")
    hint = f"{path} --help shows what there is"
    message = error.format_message().strip().replace("Value error, ", "")
    if near := getattr(error, "possibilities", None):
        message, hint = error.message, f"did you mean {near[0]}? {hint}"
    if message:  # without one, a help page was shown already
        if "--json" in words:
            command = path.removeprefix("kbdenoise").strip() or "kbdenoise"
            write_failure(command, message, hint, ASKED_WRONGLY, {})
        show_error(message, hint=hint)
    return ASKED_WRONGLY


def _let_go_of_stdout() -> None:
    """Keep Python from complaining once more, at its exit, that nobody reads us."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
