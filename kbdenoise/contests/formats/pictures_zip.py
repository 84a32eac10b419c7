"""The format `zip`: the restored pictures themselves, as 8-bit PNG files in one archive.

Files lie flat and are called like the test pictures, with the suffix .png, and are gray or RGB as
the contest is; a sample archive gives other names or folders. Equal pictures give equal archives:
entries are sorted and carry no time.
"""

import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from kbdenoise.atomic import atomic_write
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.findings import CheckReport, Findings, Statistics
from kbdenoise.contests.formats.pages import (
    Page,
    Restored,
    Source,
    Written,
    in_order,
    matched,
    pages_by_stem,
    sample_mismatch,
    sample_path,
    written_page,
)
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import (
    FloatImage,
    encode,
    read_opaque,
    to_float,
    to_pixels,
    with_channels,
)

_NO_TIME = (1980, 1, 1, 0, 0, 0)
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)
# A PNG of a page is not larger than its pixels at 16 bits and four channels, and some overhead.
_BYTES_PER_PIXEL, _OVERHEAD = 8, 1 << 20
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp")


def order(*, contest: LocalContest, pages: Sequence[Page]) -> list[Page]:
    """Pages in the order of their files: the sample's, else by name."""
    return list(expected_names(contest=contest, pages=pages).values())


def answer(image: FloatImage, *, source: Source = "pixels") -> FloatImage:
    """The picture [H, W, 1 or 3] in 0..1, rounded to 8 bits as its file holds it."""
    _check_source(source)
    return to_float(to_pixels(image))


def write(
    path: Path,
    restored: Iterable[Restored],
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    source: Source = "pixels",
) -> Written:
    """Write an archive of pictures; it appears whole or not at all."""
    _check_source(source)
    names = expected_names(contest=contest, pages=pages)
    name_of = {page.stem: name for name, page in names.items()}
    summary = []

    def encoded() -> Iterator[tuple[Page, bytes]]:
        for page, image, matched_pixels in matched(restored, pages):
            pixels = with_channels(matched_pixels, contest.contest.channels)
            summary.append(written_page(page, image=image, pixels=pixels, answer=to_float(pixels)))
            yield page, encode(pixels, suffix=PurePosixPath(name_of[page.stem]).suffix)

    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for page, content in in_order(encoded(), list(names.values())):
            entry = zipfile.ZipInfo(name_of[page.stem], date_time=_NO_TIME)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
            archive.writestr(entry, content)  # stored: a PNG is compressed already
    return Written(rows=len(names), pages=tuple(summary))


def read(
    path: Path, *, contest: LocalContest, pages: Sequence[Page]
) -> Iterator[tuple[str, FloatImage]]:
    """Stem and image [H, W, 1 or 3] of every page, one at a time. Raises DataError if not valid."""
    findings = Findings()
    names = expected_names(contest=contest, pages=pages)
    for page, image in _pictures(path, names, findings=findings, statistics=Statistics()):
        findings.require_none(path)
        yield page.stem, image
    findings.require_none(path)


def check(path: Path, *, contest: LocalContest, pages: Sequence[Page]) -> CheckReport:
    """Everything that is wrong with an archive. Raises DataError if it cannot be opened."""
    findings, statistics = Findings(), Statistics()
    names = expected_names(contest=contest, pages=pages)
    for page, image in _pictures(path, names, findings=findings, statistics=statistics):
        statistics.add(image)
        if image.shape[2] != contest.contest.channels:
            findings.problem(
                "channels",
                f"the file of {page.identity} has {image.shape[2]} colour channels, the contest "
                f"{contest.contest.channels}; write the archive again",
            )
    return findings.report(path, statistics)


def expected_names(*, contest: LocalContest, pages: Sequence[Page]) -> dict[str, Page]:
    """The name of every page's file inside the archive, in order."""
    by_identity = {page.identity: page for page in pages_by_stem(pages).values()}
    sample = sample_path(contest)
    if sample is None:
        return {f"{name}.png": by_identity[name] for name in sorted(by_identity)}
    try:
        with zipfile.ZipFile(sample) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except _DAMAGED as error:
        raise DataError(
            f"the sample submission {sample} is not a zip archive: {error}",
            hint="fetch it again, or correct `format` or `sample` in the contest's contest.toml",
        ) from error
    return _names_of_sample(sample, names, by_identity)


def _names_of_sample(
    sample: Path, names: Sequence[str], by_identity: dict[str, Page]
) -> dict[str, Page]:
    stems = [PurePosixPath(name).stem for name in names]
    mismatch = sample_mismatch(
        sample,
        unknown=[n for n, stem in zip(names, stems, strict=True) if stem not in by_identity],
        unlisted=[stem for stem in by_identity if stem not in set(stems)],
    )
    if mismatch:
        raise mismatch
    if len(set(stems)) < len(stems):
        raise DataError(f"the sample submission {sample} holds a page twice", hint="fetch it again")
    odd = [name for name in names if PurePosixPath(name).suffix.lower() not in _LOSSLESS]
    if odd:
        raise DataError(
            f"the sample submission {sample} holds {odd[0]}; archives are written without loss",
            hint="use a sample with names ending in " + ", ".join(_LOSSLESS),
        )
    return {name: by_identity[stem] for name, stem in zip(names, stems, strict=True)}


def _pictures(
    path: Path, names: dict[str, Page], *, findings: Findings, statistics: Statistics
) -> Iterator[tuple[Page, FloatImage]]:
    """The sound pictures of an archive; the rest is recorded as findings."""
    if not path.is_file():
        raise DataError(f"there is no file {path}", hint="write the submission first")
    seen: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            for entry in archive.infolist():
                statistics.rows += 1
                page = _page_of(entry, names, seen=seen, findings=findings)
                if page is None:
                    continue
                image = _picture(archive, entry, Path(folder), page=page, findings=findings)
                if image is not None:
                    yield page, image
    except _DAMAGED as error:
        findings.problem("unreadable", f"the archive cannot be read: {error}; write it again")
    for name in names:
        if name not in seen:
            findings.problem(
                "missing file", f"the file {name!r} is missing; write the archive again"
            )


def _page_of(
    entry: zipfile.ZipInfo, names: dict[str, Page], *, seen: set[str], findings: Findings
) -> Page | None:
    name = entry.filename
    page = names.get(name)
    if page is None:
        findings.problem(
            "unknown file", f"no test picture belongs to the file {name[:60]!r}; leave it out"
        )
        return None
    if name in seen:
        findings.problem("duplicate file", f"the file {name!r} is there twice; write it once")
        return None
    seen.add(name)
    if entry.file_size > page.height * page.width * _BYTES_PER_PIXEL + _OVERHEAD:
        findings.problem(
            "size",
            f"the file {name!r} unpacks to {entry.file_size:,} bytes, too many for a picture of "
            f"{page.width}x{page.height} px; write the archive again",
        )
        return None
    return page


def _picture(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    folder: Path,
    *,
    page: Page,
    findings: Findings,
) -> FloatImage | None:
    file = folder / ("picture" + PurePosixPath(entry.filename).suffix)
    try:
        file.write_bytes(archive.read(entry))
        image = to_float(read_opaque(file))
    except (DataError, *_DAMAGED) as error:
        reason = str(error).replace(str(file), "it")
        findings.problem(
            "unreadable", f"the file {entry.filename!r} cannot be read: {reason}; write it again"
        )
        return None
    if image.shape[:2] != (page.height, page.width):
        findings.problem(
            "size",
            f"the file {entry.filename!r} is {image.shape[1]}x{image.shape[0]} px, not "
            f"{page.width}x{page.height} px; restore the picture at its own size",
        )
        return None
    return image


def _check_source(source: Source) -> None:
    if source != "pixels":
        raise SettingsError(
            "an archive holds pictures of 8 bits, so its values cannot come from the float image",
            hint='use source="pixels"',
        )
