import json
import logging
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kbdenoise
from kbdenoise.cli import app as program
from kbdenoise.cli.app import main
from kbdenoise.errors import DataError, KaggleError, KbdenoiseError, SettingsError

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "cv2", "pandas", "skimage", "kaggle"}

FIRST_SCREEN = """\
Contest
fetch Get a contest and pair its images.
inspect Look at the data before training.
submit Predict, write the submission, check it, upload it.
score Ask for the score of a submission.
leaderboard Show own submissions, local against public.
Work
train Train a model on random patches.
evaluate Score a run on known pairs, worst picture first.
predict Restore whole images, tile by tile where they are large.
export Write a model for other engines, checked against torch.
Look
doctor Check this machine, and say what would mend it.
bench Measure training, restoring and loading on this machine.
runs List, show and compare runs.
models List the models, show what they cost.
settings Print the effective settings as TOML.
First time? kbdenoise doctor, then kbdenoise fetch demo
"""

COMMANDS = [
    "fetch",
    "inspect",
    "submit",
    "score",
    "leaderboard",
    "train",
    "evaluate",
    "predict",
    "export",
    "doctor",
    "bench",
    "runs list",
    "runs show",
    "runs compare",
    "models list",
    "models show",
    "settings train",
    "settings predict",
]

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A screen of fixed width, and a folder with nothing in it."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def plain(screen: str) -> str:
    """The words of a screen, whatever draws its boxes."""
    lines = (re.sub(r"[\s─-╿]+", " ", line).strip() for line in screen.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


def run(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "kbdenoise", *words]
    env = {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "PATH": "/usr/bin:/bin"}
    settings = {"capture_output": True, "text": True, "env": env, "timeout": 60} | options
    return subprocess.run(command, **settings)  # type: ignore[call-overload, no-any-return]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `kbdenoise models` end with this error."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("kbdenoise.cli.models.table", fail)


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_the_first_screen_lists_the_commands_in_the_order_of_use(
    capsys: Captured, words: list[str]
) -> None:
    code = main(words)

    screen = plain(capsys.readouterr().out)
    assert code == 0
    assert screen[screen.index("Contest\n") :] == FIRST_SCREEN


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_page_ends_with_two_examples_of_its_command(
    capsys: Captured, command: str
) -> None:
    code = main([*command.split(), "--help"])

    lines = plain(capsys.readouterr().out).splitlines()
    start = lines.index("Examples:")
    examples = " ".join(lines[start + 1 :]).split("kbdenoise ")[1:]
    assert code == 0
    assert len(examples) == 2
    assert all(example.startswith(command) for example in examples)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet_and_speak_json_and_show_tracebacks(
    capsys: Captured, command: str
) -> None:
    main([*command.split(), "--help"])

    words = capsys.readouterr().out.split()
    for option in ("-q", "--quiet", "--json", "--debug", "-h"):
        assert option in words


def test_every_example_of_a_help_page_has_only_known_options(capsys: Captured) -> None:
    for command in COMMANDS:
        main([*command.split(), "--help"])
        page = capsys.readouterr().out
        options = re.findall(r"(?<!\S)--[a-z-]+", page[page.index("Examples:") :])
        for option in options:
            assert page.count(option) > 1, (command, option)


def test_the_version_is_that_of_the_package(capsys: Captured) -> None:
    codes = [main(["--version"]), main(["-V"])]

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = f"kbdenoise {kbdenoise.__version__}\n"
    assert codes == [0, 0]
    assert capsys.readouterr().out == expected * 2
    assert declared.get("version", kbdenoise.__version__) == kbdenoise.__version__


def test_a_wrong_command_line_is_an_object_too_where_json_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["train", "--json", "--patc", "3"])

    told = json.loads(capsys.readouterr().out)
    assert code == told["exit_code"] == 2
    assert told["command"] == "train"
    assert (told["error"], told["hint"][:22]) == (
        "No such option: --patc",
        "did you mean --patch? ",
    )


@pytest.mark.parametrize(
    ("words", "screen"),
    [
        (
            ["trian"],
            "error: No such command 'trian'. Did you mean 'train'?\n"
            " hint: kbdenoise --help shows what there is\n",
        ),
        (
            ["train", "--patc", "3"],
            "error: No such option: --patc\n"
            " hint: did you mean --patch? kbdenoise train --help shows what there is\n",
        ),
        (
            ["models", "show", "kbnet_s"],
            "error: there is no model called 'kbnet_s'\n hint: did you mean 'kbnet-s'?\n",
        ),
        (
            ["train", "--preset", "qick"],
            "error: Invalid value for '--preset': 'qick' is not one of 'quick', 'standard', "
            "'best', 'deck-dncnn', 'deck-srresnet', 'deck-unet', 'deck-kbnet-1', "
            "'deck-kbnet-final'.\n hint: kbdenoise train --help shows what there is\n",
        ),
        (
            ["runs", "--json", "list"],
            "error: options of 'runs' stand before 'list'\n"
            " hint: write them after it: kbdenoise runs list ...\n",
        ),
    ],
)
def test_a_wrong_request_is_answered_with_the_nearest_right_one(
    capsys: Captured, words: list[str], screen: str
) -> None:
    code = main(words)

    assert code == 2
    assert capsys.readouterr() == ("", screen)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--patch", "3"],
        ["train", "--patch", "many"],
        ["train", "--warmup", "0.95"],
        ["train", "--folds", "1"],
        ["train", "--device", "tpu"],
        ["train", "one", "two"],
        ["fetch"],
        ["runs", "compare"],
        ["train", "--config", "missing.toml", "--device", "cpu"],
        ["settings", "predict", "--tile", "64", "--overlap", "80"],
        ["settings", "train", "--device", "cpu", "--fold", "12"],
    ],
)
def test_what_makes_no_sense_exits_with_two_and_one_error(
    capsys: Captured, words: list[str]
) -> None:
    code = main(words)

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_a_group_alone_shows_its_commands_and_exits_with_two(capsys: Captured) -> None:
    code = main(["settings"])

    out, err = capsys.readouterr()
    assert code == 2
    assert "train" in out and "predict" in out
    assert err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KbdenoiseError("it broke"), 1),
        (DataError("it broke"), 1),
        (KaggleError("it broke"), 1),
        (SettingsError("it broke"), 2),
    ],
)
def test_our_errors_become_text_and_exit_codes(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: KbdenoiseError, code: int
) -> None:
    fail_with(monkeypatch, error)

    assert main(["models"]) == code
    assert capsys.readouterr() == ("", "error: it broke\n")


def test_debug_shows_the_traceback_of_our_own_errors(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("kbdenoise"), "handlers", [])  # what it adds goes again
    fail_with(monkeypatch, DataError("it broke", hint="mend it"))

    code = main(["models", "--debug"])

    err = capsys.readouterr().err
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("error: it broke\n hint: mend it\n")


@pytest.mark.parametrize(
    "error", [MemoryError("std::bad_alloc"), RuntimeError("can't start new thread")]
)
def test_a_lack_of_memory_is_no_bug(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fail_with(monkeypatch, error)

    code = main(["models"])

    err = capsys.readouterr().err
    assert code == 1
    assert err.startswith("error: the memory ran out\n hint: ")


def test_a_bug_always_shows_its_traceback(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, ZeroDivisionError("by nought"))

    code = main(["models"])

    err = capsys.readouterr().err
    assert code == 1
    assert "Traceback" in err and "ZeroDivisionError: by nought" in err
    assert "bug in kbdenoise" in err


def test_an_interrupt_exits_with_130_and_no_traceback(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())

    code = main(["models"])

    assert code == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_file_name_in_an_error_can_be_neither_markup_nor_a_cursor_movement(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, DataError("[red]\x1b[2J.png[/] is broken"))

    main(["models"])

    assert capsys.readouterr().err == "error: [red]\\x1b[2J.png[/] is broken\n"


def test_a_reader_who_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m kbdenoise models | true; echo ${{PIPESTATUS[0]}}"

    ended = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        timeout=60,
    )

    assert ended.stdout in ("0\n", "1\n")
    assert "Traceback" not in ended.stderr and "BrokenPipe" not in ended.stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["train", "--help"], ["models"], ["runs", "list"]]
)
def test_looking_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from kbdenoise.cli.app import main; "
        f"main({words!r}); print(*sys.modules, file=sys.stderr)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        timeout=60,
    )

    assert ended.returncode == 0, ended.stderr
    assert not HEAVY & set(ended.stderr.split())


def test_the_package_runs_as_a_module() -> None:
    ended = run("--version")

    assert (ended.returncode, ended.stdout) == (0, f"kbdenoise {kbdenoise.__version__}\n")


def test_letters_that_the_terminal_cannot_show_are_written_out(tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii"}

    ended = run("runs", "--runs", "läufe", env=env, cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "  there is no run in l\\xe4ufe/ yet\n"


def test_every_command_stands_in_a_panel() -> None:
    shown = [name for commands in program.PANELS.values() for name in commands]

    assert len(shown) == len(program.app.registered_commands + program.app.registered_groups)


def test_a_signal_that_comes_while_an_error_is_told_leaves_no_traceback(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(message: str, *, hint: str = "") -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "show_error", interrupted)

    assert main(["models", "show", "no-such-model"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_signal_that_comes_as_the_command_ends_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_handler, before, calls = signal.signal, signal.getsignal(signal.SIGTERM), []

    def heard_first(number: int, handler: object) -> object:
        calls.append(number)
        if len(calls) == 2:  # Python calls what handles a waiting signal before it sets another
            signal.getsignal(signal.SIGTERM)(number, None)  # type: ignore[operator, misc]
        return set_handler(number, handler)  # type: ignore[arg-type]

    monkeypatch.setattr(signal, "signal", heard_first)

    assert main(["--version"]) == 0

    assert calls == [signal.SIGTERM] * 3
    assert signal.getsignal(signal.SIGTERM) is before
