"""Values offered by the shell's completion, without importing anything heavy.

Typer keeps those that begin with what was typed.
"""

import ast
import contextlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import typer


def contests_here(ctx: typer.Context) -> list[str]:
    """Contests that lie in the data folder."""
    folder = Path(str(ctx.params.get("data") or "data"))
    return contests_in(folder)


def contests_in(folder: Path) -> list[str]:
    """Names of the contests in a data folder; what a killed fetch left there is hidden."""
    names = [p.parent.name for p in _glob(folder, "*/contest.toml")]
    return [name for name in names if not name.startswith(".")]


def contests_known() -> list[str]:
    """Contests that `fetch` knows by name."""
    return keys_of_table("kbdenoise.contests.catalogue", "CONTESTS")


def runs(ctx: typer.Context) -> list[str]:
    """Runs in the runs folder, the newest first, and the two words for a run."""
    folder = Path(str(ctx.params.get("runs") or "runs"))
    names = sorted((p.parent.name for p in _glob(folder, "*/run.json")), reverse=True)
    return ["last", "best", *names]


def models() -> list[str]:
    """Names of the model table and of the classical filters."""
    from kbdenoise.imaging.classical.summaries import SUMMARIES
    from kbdenoise.models.zoo import MODELS

    return [*MODELS, *SUMMARIES]


def losses() -> list[str]:
    """Names of the training losses."""
    from kbdenoise.loss_terms import LOSS_TERMS

    return list(LOSS_TERMS)


def sinks() -> list[str]:
    """Names of the places that curves can be shown in."""
    return keys_of_table("kbdenoise.training.sinks", "SINKS")


OF_SETTINGS: dict[str, Callable[[], list[str]]] = {
    "log_to": sinks,
    "loss": losses,
    "model": models,
}
"""What is offered for the value of a setting, by its name."""


def keys_of_table(module: str, table: str) -> list[str]:
    """The keys of a module's dictionary, read from its source.

    Importing the catalogue of contests takes half a second, as contests know their metrics; a
    completion must answer at once. Returns nothing where there is no source to read.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return []
    try:
        body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, UnicodeDecodeError):
        return []
    for node in body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict(keys=keys)) if (
                name == table
            ):
                return [str(key.value) for key in keys if isinstance(key, ast.Constant)]
    return []


def _glob(folder: Path, pattern: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.glob(pattern))
    return []
