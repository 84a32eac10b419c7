"""Take an image-restoration contest from its name to a scored submission.

    >>> import kbdenoise
    >>> kbdenoise.fetch("demo")                      # doctest: +SKIP
    >>> run = kbdenoise.train("demo", preset="quick").run.name  # doctest: +SKIP
    >>> kbdenoise.evaluate(run).score                # doctest: +SKIP

The functions are found on first use, so that importing kbdenoise stays quick and imports neither
torch nor OpenCV. Importing sets up nothing: no logging, no device, no login.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from kbdenoise.errors import DataError, KaggleError, KbdenoiseError, SettingsError

if TYPE_CHECKING:
    from kbdenoise.contests.fetch import fetch
    from kbdenoise.export.package import export_model
    from kbdenoise.inference.evaluate import evaluate
    from kbdenoise.inference.predict import predict
    from kbdenoise.report.inspect import inspect
    from kbdenoise.submission.leaderboard import leaderboard
    from kbdenoise.submission.score import score
    from kbdenoise.submission.submit import submit
    from kbdenoise.training.bench import bench
    from kbdenoise.training.train import train

__version__ = "0.1.0"

__all__ = [
    "fetch",
    "inspect",
    "train",
    "predict",
    "evaluate",
    "export_model",
    "submit",
    "score",
    "leaderboard",
    "bench",
    "KbdenoiseError",
    "DataError",
    "KaggleError",
    "SettingsError",
    "__version__",
]

_HOMES = {
    "fetch": "kbdenoise.contests.fetch",
    "inspect": "kbdenoise.report.inspect",
    "train": "kbdenoise.training.train",
    "predict": "kbdenoise.inference.predict",
    "evaluate": "kbdenoise.inference.evaluate",
    "export_model": "kbdenoise.export.package",
    "submit": "kbdenoise.submission.submit",
    "score": "kbdenoise.submission.score",
    "leaderboard": "kbdenoise.submission.leaderboard",
    "bench": "kbdenoise.training.bench",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'kbdenoise' has no attribute '{name}'")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next look-up does not come here again
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
