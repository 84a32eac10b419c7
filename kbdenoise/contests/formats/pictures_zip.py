"""The format `zip`: the restored pictures themselves, in one archive.

By default they are 8-bit PNG files that lie flat and are called like the test pictures; options
give other names, folders, a suffix, 16 bits, or a readme.txt; a sample archive gives its own names.
Pictures are gray or RGB as the contest is. Equal pictures give equal archives: entries are sorted
and carry no time.
"""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kbdenoise.atomic import atomic_write
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.findings import CheckReport, Findings, Statistics
from kbdenoise.contests.formats.pages import (
    Page,
    Restored,
    Source,
    Written,
    both_forms,
    in_order,
    matched,
    natural_order,
    page_id,
    pages_by_stem,
    require_pixels,
    sample_mismatch,
    sample_path,
    written_page,
)
from kbdenoise.contests.formats.picture_bytes import decoded_picture
from kbdenoise.contests.options import LOSSLESS, Options
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import (
    FloatImage,
    Pixels,
    encode,
    to_float,
    to_pixels,
    with_channels,
)

README = "readme.txt"

_NO_TIME = (1980, 1, 1, 0, 0, 0)
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)
# A PNG of a page is not larger than its pixels at 16 bits and four channels, and some overhead.
_BYTES_PER_PIXEL, _OVERHEAD = 8, 1 << 20


def order(*, contest: LocalContest, pages: Sequence[Page]) -> list[Page]:
    """Pages in the order of their files: the sample's, else by name."""
    return list(expected_names(contest=contest, pages=pages).values())


def answer(
    image: FloatImage | Pixels, *, contest: LocalContest, source: Source = "pixels"
) -> FloatImage:
    """The picture [H, W, C] in 0..1, rounded as its file holds it.

    Stored pixels are taken as they are.
    """
    require_pixels(source, name="zip")
    rules = contest.contest
    _, pixels = both_forms(image, bit_depth=rules.options.bit_depth)
    return to_float(with_channels(pixels, rules.channels))


def write(
    path: Path,
    restored: Iterable[Restored],
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    source: Source = "pixels",
) -> Written:
    """Write an archive of pictures; it appears whole or not at all."""
    require_pixels(source, name="zip")
    names = expected_names(contest=contest, pages=pages)
    name_of = {page: name for name, page in names.items()}
    rules, summary = contest.contest, []

    def encoded() -> Iterator[tuple[Page, bytes]]:
        for page, image, rounded in matched(restored, pages):
            fine = rules.options.bit_depth == 16
            pixels = with_channels(
                to_pixels(image, bit_depth=16) if fine else rounded, rules.channels
            )
            summary.append(written_page(page, image=image, pixels=rounded, answer=to_float(pixels)))
            yield page, encode(pixels, suffix=PurePosixPath(name_of[page]).suffix)

    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for page, content in in_order(encoded(), list(names.values())):
            _add(archive, name_of[page], content)
        if rules.options.readme:
            _add(archive, README, readme_text(rules.options).encode())
    return Written(rows=len(names) + bool(rules.options.readme), pages=tuple(summary))


def read(
    path: Path, *, contest: LocalContest, pages: Sequence[Page]
) -> Iterator[tuple[str, FloatImage]]:
    """Stem and image [H, W, 1 or 3] of every page, one at a time. Raises DataError if not valid."""
    look = _look(contest, pages)
    for page, image in look.pictures(path):
        look.findings.require_none(path)
        yield page.stem, image
    look.findings.require_none(path)


def check(path: Path, *, contest: LocalContest, pages: Sequence[Page]) -> CheckReport:
    """Everything that is wrong with an archive. Raises DataError if it cannot be opened."""
    look = _look(contest, pages)
    for _, image in look.pictures(path):
        look.statistics.add(image)
    return look.findings.report(path, look.statistics)


def readme_text(options: Options) -> str:
    """The content of readme.txt: a key and its value a line."""
    return "".join(f"{key} : {value}\n" for key, value in options.readme.items())


def expected_names(*, contest: LocalContest, pages: Sequence[Page]) -> dict[str, Page]:
    """The name of every page's file inside the archive, in order."""
    by_identity = {page.identity: page for page in pages_by_stem(pages).values()}
    sample = sample_path(contest)
    if sample is None:
        return _names_of_options(pages, contest.contest.options)
    try:
        with zipfile.ZipFile(sample) as archive:
            names = [
                name for name in archive.namelist() if not name.endswith("/") and name != README
            ]
    except _DAMAGED as error:
        raise DataError(
            f"the sample submission {sample} is not a zip archive: {error}",
            hint="fetch it again, or correct `format` or `sample` in the contest's contest.toml",
        ) from error
    return _names_of_sample(sample, names, by_identity)


def _names_of_options(pages: Sequence[Page], options: Options) -> dict[str, Page]:
    names: dict[str, Page] = {}
    for i, page in enumerate(natural_order(pages)):
        name = page_id(page, kind=options.files, index=options.base + i)
        if name in names:
            raise DataError(
                f"two pictures would be called {name}",
                hint="correct `files` under [submission] in the contest's contest.toml",
            )
        names[name] = page
    return {name: names[name] for name in sorted(names)}


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
    odd = [name for name in names if PurePosixPath(name).suffix.lower() not in LOSSLESS]
    if odd:
        raise DataError(
            f"the sample submission {sample} holds {odd[0]}; archives are written without loss",
            hint="use a sample with names ending in " + ", ".join(LOSSLESS),
        )
    return {name: by_identity[stem] for name, stem in zip(names, stems, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One pass over an archive: what must be in it, and what was found."""

    names: dict[str, Page]
    channels: int
    options: Options
    findings: Findings
    statistics: Statistics

    def pictures(self, path: Path) -> Iterator[tuple[Page, FloatImage]]:
        """The sound pictures of an archive; the rest is recorded as findings."""
        if not path.is_file():
            raise DataError(f"there is no file {path}", hint="write the submission first")
        seen: set[str] = set()
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    self.statistics.rows += 1
                    page = self._page_of(entry, seen)
                    image = None if page is None else self._picture(archive, entry, page)
                    if page is not None and image is not None:
                        yield page, image
        except _DAMAGED as error:
            self.findings.problem(
                "unreadable", f"the archive cannot be read: {error}; write it again"
            )
        readme = [README] if self.options.readme else []
        for name in (*self.names, *readme):
            if name not in seen:
                self.findings.problem(
                    "missing file", f"the file {name!r} is missing; write the archive again"
                )

    def _page_of(self, entry: zipfile.ZipInfo, seen: set[str]) -> Page | None:
        """The page of a file that is known, new, and not too large."""
        name, problem = entry.filename, self.findings.problem
        page = self.names.get(name)
        is_readme = name == README and bool(self.options.readme)
        if page is None and not is_readme:
            problem(
                "unknown file", f"no test picture belongs to the file {name[:60]!r}; leave it out"
            )
            return None
        if name in seen:
            problem("duplicate file", f"the file {name!r} is there twice; write it once")
            return None
        seen.add(name)
        if page and entry.file_size > page.height * page.width * _BYTES_PER_PIXEL + _OVERHEAD:
            problem(
                "size",
                f"the file {name!r} unpacks to {entry.file_size:,} bytes, too many for a picture "
                f"of {page.width}x{page.height} px; write the archive again",
            )
            return None
        return page

    def _picture(
        self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, page: Page
    ) -> FloatImage | None:
        name, suffix = entry.filename, PurePosixPath(entry.filename).suffix
        try:
            pixels = decoded_picture(
                archive.read(entry), suffix=suffix, height=page.height, width=page.width
            )
        except (DataError, *_DAMAGED) as error:
            self.findings.problem(
                "unreadable", f"the file {name!r} cannot be used: {error}; write it again"
            )
            return None
        if pixels.shape[2] != self.channels:
            self.findings.problem(
                "channels",
                f"the file {name!r} has {pixels.shape[2]} colour channels, the contest "
                f"{self.channels}; write the archive again",
            )
            return None
        if 8 * pixels.itemsize != self.options.bit_depth:
            self.findings.problem(
                "bit depth",
                f"the file {name!r} has {8 * pixels.itemsize} bits a value, the contest "
                f"{self.options.bit_depth}; write the archive again",
            )
            return None
        return to_float(pixels)


def _look(contest: LocalContest, pages: Sequence[Page]) -> _Look:
    return _Look(
        names=expected_names(contest=contest, pages=pages),
        channels=contest.contest.channels,
        options=contest.contest.options,
        findings=Findings(),
        statistics=Statistics(),
    )


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=_NO_TIME)
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
    archive.writestr(entry, content)  # stored: a PNG is compressed already
