"""`--format coreml`: a package for Core ML, written, read back and checked on any system."""

from pathlib import Path

from kbdenoise.atomic import atomic_path
from kbdenoise.config import ExportSettings
from kbdenoise.errors import DataError
from kbdenoise.export.coreml.check import Checked, check_package
from kbdenoise.export.coreml.convert import COMPUTE_UNITS, TARGET, convert, record, save
from kbdenoise.export.coreml.forms import exportable
from kbdenoise.export.formats import Exported, require
from kbdenoise.export.source import Source, versions
from kbdenoise.progress import Fact, Progress

_MOST_KINDS = 4  # with the largest results, that are told
UNVERIFIED = (
    "checked by kbdenoise's own interpreter; it has not been loaded, compiled or run by Core ML"
)


def write(source: Source, out: Path, settings: ExportSettings, *, progress: Progress) -> Exported:
    """Write a package folder for tiles of the card's side, whole or not at all."""
    source = source.saying(
        versions=versions("kbdenoise", "torch", "coremltools", "numpy"),
        details={
            "target": TARGET,
            "compute_units": COMPUTE_UNITS,
            "kba_form": settings.kba_form,
            "frontend": settings.frontend,
        },
    )
    name, precision, images = source.info.name, source.card.precision, source.example()
    form = exportable(source.model, kba_form=settings.kba_form)
    progress(Fact(label="export", text=f"{settings.frontend} front end, then coremltools"))
    recorded = record(form, images, name=name, frontend=settings.frontend)
    made = convert(recorded, images, name=name, precision=precision, frontend=settings.frontend)
    with atomic_path(out) as part:
        save(made, part, metadata=source.card.to_strings())
        progress(Fact(label="check", text="every operation is computed and compared with torch"))
        checked = check_package(part, source)
        _require(checked, source, out)
    return Exported(path=out, checks=checked.checks, lines=_lines(source, checked))


def _require(checked: Checked, source: Source, out: Path) -> None:
    """Raises DataError for a failed check, with the cure of half precision that overflows."""
    try:
        require(checked.checks, package=out)
    except DataError as error:
        if source.card.precision == "fp16":
            error.hint = f"try --precision fp32, which does not overflow; else {error.hint}"
        raise


def _lines(source: Source, checked: Checked) -> tuple[str, ...]:
    operations = len(checked.program.operations)
    tile = source.card.tile
    lines = [
        f"{operations:,} operations, tiles of {tile}x{tile} px, for macOS 14, iOS 17 or newer",
        UNVERIFIED,
    ]
    if source.card.precision == "fp16":
        lines.append(f"largest numbers: {_largest(checked)}; half precision ends at 65,504")
    return tuple(lines)


def _largest(checked: Checked) -> str:
    """The kinds of operation with the largest results: `mul 22, conv 14, add 3.1`."""
    kinds = sorted(checked.largest.items(), key=lambda item: -item[1])[:_MOST_KINDS]
    return ", ".join(f"{kind} {magnitude:,.3g}" for kind, magnitude in kinds)
