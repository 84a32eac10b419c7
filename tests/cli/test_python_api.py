import subprocess
import sys
from pathlib import Path

import pytest

import kbdenoise
from kbdenoise import errors

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["fetch", "inspect", "train", "predict", "evaluate", "submit"])
def test_the_steps_of_the_way_are_functions_of_the_package(name: str) -> None:
    function = getattr(kbdenoise, name)

    assert callable(function)
    assert function.__name__ == name
    assert getattr(kbdenoise, name) is function


def test_errors_and_version_are_public() -> None:
    for name in ("KbdenoiseError", "DataError", "KaggleError", "SettingsError"):
        assert getattr(kbdenoise, name) is getattr(errors, name)
    assert kbdenoise.__version__[0].isdigit()


def test_all_that_is_listed_is_there() -> None:
    for name in dir(kbdenoise):
        getattr(kbdenoise, name)


def test_what_is_not_there_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'kbdenoise' has no attribute 'trian'"):
        _ = kbdenoise.trian  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, kbdenoise; dir(kbdenoise); kbdenoise.SettingsError; kbdenoise.__version__; "
        "heavy = {'torch', 'cv2', 'pandas', 'numpy', 'pydantic', 'typer'} & set(sys.modules); "
        "sys.exit(' '.join(heavy) or 0)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        timeout=60,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
