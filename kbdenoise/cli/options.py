"""Commands from functions, the options that several share, and what follows on a command."""

import inspect
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import INTERRUPTED, Console, show_error, write
from kbdenoise.cli.setting_options import Config, parameter, setting_options, unmarked
from kbdenoise.cli.words import to_json
from kbdenoise.errors import KbdenoiseError, SettingsError
from kbdenoise.presets import Preset
from kbdenoise.team import is_in_team, speaks, tells

Settings = dict[str, Any]
"""Settings given as options, by their flat names; those not given are absent."""

DATA, RUNS, SUBMISSIONS = Path("data"), Path("runs"), Path("submissions")
"""Where the library looks too when nothing else is said."""

ContestArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="CONTEST",
        help="Name or folder of a contest; not needed where there is only one.",
        autocompletion=complete.contests_here,
        show_default=False,
    ),
]
ContestOption = Annotated[
    str | None,
    typer.Option(
        "--contest",
        metavar="NAME",
        help="Another contest than the one the run was trained on.",
        autocompletion=complete.contests_here,
        show_default=False,
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Name of a run, the beginning of one, its folder, 'last' or 'best'.",
        autocompletion=complete.runs,
    ),
]
DataOption = Annotated[
    Path, typer.Option("--data", metavar="FOLDER", help="Folder that holds the contests.")
]
RunsOption = Annotated[
    Path, typer.Option("--runs", metavar="FOLDER", help="Folder that holds the runs.")
]
SubmissionsOption = Annotated[
    Path,
    typer.Option("--submissions", metavar="FOLDER", help="Folder that holds submissions."),
]
WaitOption = Annotated[
    str,
    typer.Option(
        "--wait",
        metavar="[DURATION]",
        help="Wait for the score, so long at most (15m, 2h); 15m where nothing is said.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="PATH", help="Where to write.", show_default=False),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Check and tell, but write and send nothing.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
PresetOption = Annotated[
    Preset, typer.Option("--preset", help="A word for twenty numbers; `settings train` shows them.")
]
GpusOption = Annotated[
    str,
    typer.Option(
        "--gpus",
        metavar="all|NUMBER",
        help="Use several GPUs of this machine, a process each; with --device cpu so many on it.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings in TOML; they win over the preset, options win over them.",
        show_default=False,
    ),
]

STANDARD_WAIT = "15m"
_DURATION = re.compile(r"0|(?=\d)(\d+h)?(\d+m)?(\d+s)?")

_COMMON = {
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only the result, in its shortest form.")
    ],
    "as_json": Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")],
    "debug": Annotated[
        bool, typer.Option("--debug", help="Show the developer log, and tracebacks of all errors.")
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command ready to be hung into an app."""

    name: str
    """All its words after `kbdenoise`."""
    run: Callable[..., None]
    examples: tuple[str, ...]

    def add_to(self, app: typer.Typer, panel: str | None = None) -> None:
        """Register the command under its last word."""
        app.command(
            self.name.split()[-1],
            rich_help_panel=panel,
            epilog=epilog(*self.examples),
            no_args_is_help=False,
        )(self.run)


def command(
    *examples: str,
    name: str = "",
    settings: Config | None = None,
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function.

    The function's parameter `console` becomes `--quiet`, `--json` and `--debug`; its parameter
    `settings` becomes one option for each setting of the given configuration class.
    """

    def decorate(function: Callable[..., None]) -> Command:
        words = name or function.__name__
        return Command(name=words, run=_faced(function, words, settings), examples=examples)

    return decorate


def group(name: str, *commands: Command, help: str, default: Command | None = None) -> typer.Typer:
    """Commands under a common first word, which alone runs `default` or prints its help."""
    app = typer.Typer(name=name, help=help, no_args_is_help=default is None)
    if default is not None:
        _set_default(app, default)
    for entry in commands:
        entry.add_to(app)
    return app


def epilog(*examples: str) -> str:
    """The last lines of a help page."""
    return "\n".join(["Examples:", *map(unmarked, examples)])


def from_file(kind: Config, config: Path | None, settings: Settings) -> Settings:
    """Settings of a TOML file, if there is one, under those given as options."""
    if config is None:
        return settings
    from kbdenoise.resolving import read_settings

    return read_settings(kind, config) | settings


def follow(*words: str, data: Path = DATA, runs: Path = RUNS) -> str:
    """A command to go on with, ready to paste, which looks where this one looked."""
    places = [("--data", data, DATA), ("--runs", runs, RUNS)]
    extra = [word for option, p, usual in places if p != usual for word in (option, str(p))]
    return shlex.join(["kbdenoise", *words, *extra])


def on_gpus(wanted: str, *, device: str, console: Console) -> None:
    """Run this command in as many processes as `--gpus` wants, and end; nothing for one of them."""
    if is_in_team():
        return
    from kbdenoise.launch import count_gpus, launch

    processes = count_gpus(wanted, device=device)
    if processes > 1:
        code = launch(sys.argv[1:], processes=processes, tell=console.say)
        raise typer.Exit(code)


def with_durations(words: Sequence[str]) -> list[str]:
    """The words of a command line, in which a bare `--wait` has its standard duration.

    >>> with_durations(["score", "--wait", "last"])
    ['score', '--wait=15m', 'last']
    """
    given = []
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        bare = word == "--wait" and not _DURATION.fullmatch(following)
        given.append(f"--wait={STANDARD_WAIT}" if bare else word)
    return given


def _set_default(app: typer.Typer, default: Command) -> None:
    own = inspect.signature(default.run).parameters.values()
    defaults = {p.name: p.default for p in own}

    def start(ctx: typer.Context, **given: Any) -> None:
        if ctx.invoked_subcommand is None:
            default.run(**given)
        elif given != defaults:
            raise SettingsError(
                f"options of '{app.info.name}' stand before '{ctx.invoked_subcommand}'",
                hint=f"write them after it: kbdenoise {app.info.name} {ctx.invoked_subcommand} ...",
            )

    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    _wear(start, inspect.Signature([context, *own]))
    app.callback(invoke_without_command=True)(start)


def _wear(function: Callable[..., None], signature: inspect.Signature) -> None:
    """Show Typer this signature instead of the function's own."""
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}


def _faced(
    function: Callable[..., None],
    words: str,
    config: Config | None,
) -> Callable[..., None]:
    own = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(function).parameters.values()
        if p.name not in {"console", "settings"}
    ]
    derived = list(setting_options(config)) if config else []
    common = [parameter(key, face, default=False) for key, face in _COMMON.items()]

    def run(*, quiet: bool, as_json: bool, debug: bool, **given: Any) -> None:
        settings = {p.name: value for p in derived if (value := given.pop(p.name)) is not None}
        if config:
            given["settings"] = settings
        try:
            with Console(words, quiet=quiet, as_json=as_json, debug=debug) as console:
                function(console=console, **given)
        except KbdenoiseError as error:
            if as_json and tells(error):
                write_failure(words, error.message, error.hint, error.exit_code, error.facts)
            raise
        except KeyboardInterrupt as stop:  # Typer would turn it into a silent exit
            if as_json and speaks():
                facts = getattr(stop, "facts", {})
                write_failure(words, "interrupted", str(stop), INTERRUPTED, facts)
            if speaks():
                show_error("interrupted", hint=str(stop))
            raise typer.Exit(INTERRUPTED) from None

    run.__doc__ = function.__doc__
    _wear(run, inspect.Signature([*own, *common, *derived]))
    return run


def write_failure(
    words: str, message: str, hint: str, exit_code: int, facts: Mapping[str, object]
) -> None:
    """An error of the command `words` as one JSON object on stdout."""
    failure = {"error": message, "hint": hint, "exit_code": exit_code}
    write(sys.stdout, to_json(words, failure | dict(facts)))
