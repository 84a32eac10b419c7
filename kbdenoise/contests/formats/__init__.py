"""Submission formats: how restored pages become the file that a contest wants, and back.

A new format is a line in `FORMATS`: of a codec, where a row stands for a picture, or of a module
with the functions of `SubmissionFormat`; what a contest.toml may say of it stands in
`contests.options`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.contests.formats import (
    mask_rle,
    mean_luma,
    pictures_zip,
    pixels_long,
    pixels_wide,
    png_b64,
    raw_b64,
    rle_b64,
)
from kbdenoise.contests.formats.coded_rows import Codec, CodedRows
from kbdenoise.contests.formats.findings import CheckReport
from kbdenoise.contests.formats.pages import (
    Answer,
    Page,
    Restored,
    Source,
    Written,
    WrittenPage,
    checksum,
    expected_pages,
)
from kbdenoise.errors import SettingsError, nearest
from kbdenoise.imaging.files import FloatImage, Pixels

__all__ = [
    "FORMATS",
    "Answer",
    "CheckReport",
    "Page",
    "Restored",
    "Source",
    "SubmissionFormat",
    "Written",
    "WrittenPage",
    "checksum",
    "expected_pages",
    "submission_format",
]


class Order(Protocol):
    """The order in which a writer wants the pages, so that it need not hold any."""

    def __call__(self, *, contest: LocalContest, pages: Sequence[Page]) -> list[Page]: ...


class Write(Protocol):
    """Writes a whole submission, in flat memory, atomically; raises DataError on bad input."""

    def __call__(
        self,
        path: Path,
        restored: Iterable[Restored],
        *,
        contest: LocalContest,
        pages: Sequence[Page],
        source: Source = "pixels",
    ) -> Written: ...


class Read(Protocol):
    """Stem and answer of every page; raises DataError when the file is not valid."""

    def __call__(
        self, path: Path, *, contest: LocalContest, pages: Sequence[Page]
    ) -> Iterator[tuple[str, Answer]]: ...


class Check(Protocol):
    """Everything that is wrong with a file; raises DataError only if it cannot be opened."""

    def __call__(
        self, path: Path, *, contest: LocalContest, pages: Sequence[Page]
    ) -> CheckReport: ...


class MakeAnswer(Protocol):
    """What the file says of a page whose picture is `image`.

    That is a float image [H, W, 1 or 3] in [0, 1], or stored pixels, which are taken as they are.
    """

    def __call__(
        self, image: FloatImage | Pixels, *, contest: LocalContest, source: Source = "pixels"
    ) -> Answer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionFormat:
    """One kind of submission file."""

    suffixes: tuple[str, ...]
    """Endings that a file may have; the first is the usual one."""
    order: Order
    write: Write
    read: Read
    check: Check
    answer: MakeAnswer

    @property
    def suffix(self) -> str:
        """The usual ending of a file."""
        return self.suffixes[0]


def _of_codec(codec: Callable[[Contest], Codec]) -> SubmissionFormat:
    """A CSV whose rows are pictures, or blocks of them."""
    rows = CodedRows(codec)
    return SubmissionFormat(
        suffixes=(".csv", ".csv.gz"),
        order=rows.order,
        write=rows.write,
        read=rows.read,
        check=rows.check,
        answer=rows.answer,
    )


FORMATS: dict[str, SubmissionFormat] = {
    "mean-luma": SubmissionFormat(
        suffixes=(".csv",),
        order=mean_luma.order,
        write=mean_luma.write,
        read=mean_luma.read,
        check=mean_luma.check,
        answer=mean_luma.answer,
    ),
    "pixels-long": SubmissionFormat(
        suffixes=(".csv", ".csv.gz"),
        order=pixels_long.order,
        write=pixels_long.write,
        read=pixels_long.read,
        check=pixels_long.check,
        answer=pixels_long.answer,
    ),
    "pixels-wide": _of_codec(pixels_wide.codec),
    "raw-b64": _of_codec(raw_b64.codec),
    "png-b64": _of_codec(png_b64.codec),
    "rle-zlib-b64": _of_codec(rle_b64.codec),
    "mask-rle": _of_codec(mask_rle.codec),
    "zip": SubmissionFormat(
        suffixes=(".zip",),
        order=pictures_zip.order,
        write=pictures_zip.write,
        read=pictures_zip.read,
        check=pictures_zip.check,
        answer=pictures_zip.answer,
    ),
}


def submission_format(name: str) -> SubmissionFormat:
    """Look a format up by name; raises SettingsError with the nearest name."""
    if name not in FORMATS:
        raise SettingsError(f"no submission format is called '{name}'", hint=nearest(name, FORMATS))
    return FORMATS[name]
