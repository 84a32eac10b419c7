"""From a run to a checked package: what `kbdenoise export` does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbdenoise.config import ExportConfig
from kbdenoise.errors import SettingsError
from kbdenoise.export.coreml.report import Report, look_at
from kbdenoise.export.formats import FORMATS, Check, writer_of
from kbdenoise.export.source import Source, load_source
from kbdenoise.notation import parse_hyper
from kbdenoise.progress import Fact, Progress, silent
from kbdenoise.resolving import resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What `export_model` wrote."""

    path: Path
    format: str
    model: str
    precision: str
    tile: int
    overlap: int
    size_bytes: int
    run: Path | None
    """None for weights that were named by themselves."""
    checks: tuple[Check, ...]
    lines: tuple[str, ...]
    report: Report | None
    """Where Core ML's operations would run, if it was asked for."""


def export_model(
    run: str = "last",
    *,
    out: Path | None = None,
    runs: Path = Path("runs"),
    force: bool = False,
    report: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> Package:
    """Write a network for another engine; the package is read back and checked before it appears.

    `run` is a run or a weights file. `out` defaults to runs/RUN/export/RUN with the format's
    suffix, or beside a weights file. With `report` the package is one for Core ML and is looked
    at, too: see `coreml.report`. Further keyword arguments are settings of ExportConfig.

    Raises SettingsError where something is there already (unless `force`) or a package is not
    installed, and DataError for a package that computes something else than torch.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if report:
        given.setdefault("format", "coreml")
    config = resolve(ExportConfig(), ("settings", given))
    chosen = config.export
    if report and chosen.format != "coreml":
        raise SettingsError(
            f"--report tells where Core ML computes, and this is --format {chosen.format}",
            hint="leave out --format, or leave out --report",
        )
    writer = writer_of(chosen.format)
    source = load_source(run, runs=runs, settings=chosen, hyper=parse_hyper(config.model.hyper))
    if chosen.precision == "auto":
        source = source.saying(precision=FORMATS[chosen.format].precision)
    place = out or default_place(source, chosen.format, beside=Path(run))
    _check_place(place, suffix=FORMATS[chosen.format].suffix, force=force)
    text = f"{source.info.name}: {source.info.parameters:,} parameters, {source.card.precision}"
    progress(Fact(label="model", text=text))
    written = writer(source, place, chosen, progress=progress)
    return Package(
        path=written.path,
        format=chosen.format,
        model=source.info.name,
        precision=source.card.precision,
        tile=source.card.tile,
        overlap=source.card.overlap,
        size_bytes=_size(written.path),
        run=source.run.path if source.run else None,
        checks=written.checks,
        lines=written.lines,
        report=look_at(written.path) if report else None,
    )


def default_place(source: Source, format: str, *, beside: Path) -> Path:
    """Where a package lies when nothing else is said: in its run, or beside its weights file."""
    folder = source.run.export_folder if source.run else beside.parent
    return folder / f"{source.name}{FORMATS[format].suffix}"


def _check_place(place: Path, *, suffix: str, force: bool) -> None:
    if place.suffix != suffix:
        raise SettingsError(
            f"{place} does not end in {suffix}, as packages of this format do",
            hint=f"write --out {place.with_suffix(suffix)}",
        )
    if place.exists() and not force:
        raise SettingsError(
            f"{place} is there already", hint="add --force to replace it, or choose another --out"
        )


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
