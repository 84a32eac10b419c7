"""Test pages and restored pages: what a submission must answer for, and with what.

A writer takes restored pictures in any order and never trusts them: each one is matched to its page
by stem, and its size, its values and its value domain are checked before a byte is written.
"""

import re
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import (
    FloatImage,
    Pixels,
    list_images,
    read_header,
    to_float,
    to_pixels,
)
from kbdenoise.imaging.luma import mean_luma, mean_luma_of_pixels

Source = Literal["pixels", "float"]
"""What a value is computed from: the picture rounded to 8 bits, or the float image before it."""

Answer = float | FloatImage
"""What a submission says of one page: a number, or an image [H, W, 1 or 3] in [0, 1]."""

VALUE_STEPS = 100_000
"""Answers that are images are compared in steps of 1e-5: the five decimals of a CSV value."""

# A model may overshoot a little. More than 1 % of values beyond this margin is another value
# domain ([-1, 1] or 0..255), and clipping it would score as if it were a picture.
_OVERSHOOT = 0.1
_OVERSHOOT_SHARE = 0.01

Key = TypeVar("Key", bound=Hashable)
Payload = TypeVar("Payload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One test picture that a submission must answer for."""

    stem: str
    """Name without suffix and without the contest's `test_ending`: what pictures match by."""
    name: str
    """File name, as in the contest's folder of test pictures."""
    path: Path
    height: int
    """Pixels."""
    width: int

    @property
    def identity(self) -> str:
        """The page's name in a submission: the file name minus its last suffix only."""
        return Path(self.name).stem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Restored:
    """A restored test picture, on its way into a submission."""

    stem: str
    name: str
    image: FloatImage
    """float32 [H, W, 1 or 3] in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPage:
    """What a writer saw of one page; the two mean lumas tell what rounding to 8 bits costs."""

    stem: str
    luma_of_pixels: float
    """Mean luma of the picture rounded to 8 bits, in grey levels 0..255."""
    luma_of_float: float
    """Mean luma before rounding, in grey levels 0..255."""
    checksum: int
    """`checksum` of the answer that was written, for comparison with what is read back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a writer has put into a file."""

    rows: int
    """Data rows of a CSV, files of an archive."""
    pages: tuple[WrittenPage, ...]


def expected_pages(contest: LocalContest) -> list[Page]:
    """The test pages of a contest, sorted by file name.

    Raises DataError when there are none, when one is no picture, or when two share a stem.
    """
    folder, ending = contest.test, contest.contest.test_ending
    paths = [path for path in list_images(folder) if path.stem.endswith(ending)]
    if not paths:
        named = f" whose names end in '{ending}'" if ending else ""
        raise DataError(
            f"there are no test pictures{named} in {folder}",
            hint="fetch the contest again, or correct `test` in its contest.toml",
        )
    pages = []
    for path in paths:
        header = read_header(path)
        pages.append(
            Page(
                stem=path.stem.removesuffix(ending),
                name=path.name,
                path=path,
                height=header.height,
                width=header.width,
            )
        )
    pages_by_stem(pages)
    return pages


def pages_by_stem(pages: Sequence[Page]) -> dict[str, Page]:
    """Look-up of pages by stem; raises DataError when there are none or two share a stem."""
    if not pages:
        raise DataError(
            "there are no test pages to answer for",
            hint="check the contest's folder of test pictures",
        )
    by_stem: dict[str, Page] = {}
    for page in pages:
        if page.stem in by_stem:
            raise DataError(
                f"two test pictures share the name {page.stem}: {by_stem[page.stem].path} and "
                f"{page.path}",
                hint="a submission can hold one of them only; remove the other",
            )
        by_stem[page.stem] = page
    return by_stem


def natural_order(pages: Iterable[Page]) -> list[Page]:
    """Pages sorted with numbers in their names by value: 1, 4, 7, 10, not 1, 10, 4, 7."""
    return sorted(pages, key=lambda page: (_natural(page.identity), page.identity))


def matched(
    restored: Iterable[Restored], pages: Sequence[Page]
) -> Iterator[tuple[Page, FloatImage, Pixels]]:
    """Each restored picture with its page: the image clipped to [0, 1], and its 8-bit pixels.

    Pictures come in any order, one at a time. Raises DataError for a picture that is unknown,
    given twice, of another size than its page, not finite or in another value domain than [0, 1],
    and, at the end, for pages that were not restored.
    """
    missing = pages_by_stem(pages)
    for item in restored:
        page = missing.pop(item.stem, None)
        if page is None:
            raise _unexpected(item, pages)
        image = _checked(item, page)
        yield page, image, to_pixels(image)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(pages)} test pages were not restored: {_some(missing)}",
            hint="restore every test picture; a contest refuses a submission with rows missing",
        )


def in_order(
    payloads: Iterable[tuple[Key, Payload]], order: Iterable[Key]
) -> Iterator[tuple[Key, Payload]]:
    """The same payloads in the given order of their keys; early ones are held until their turn.

    Memory stays flat when they already come in that order.
    """
    waiting: dict[Key, Payload] = {}
    turn = iter(order)
    due = next(turn, None)
    for key, payload in payloads:
        waiting[key] = payload
        while due is not None and due in waiting:
            yield due, waiting.pop(due)
            due = next(turn, None)


def both_forms(image: FloatImage | Pixels, *, bit_depth: int = 8) -> tuple[FloatImage, Pixels]:
    """A picture as floats and as pixels; one that is stored already keeps its own bit depth."""
    values: Any = image
    if values.dtype.kind == "f":
        return values, to_pixels(values, bit_depth=bit_depth)
    return to_float(values), values


def page_id(page: Page, *, kind: str, index: int) -> str:
    """What a submission calls a page: `kind` is stem, name, index or a template."""
    template = f"{{{kind}}}" if kind in ("stem", "name", "index") else kind
    return template.format(stem=page.identity, name=page.name, index=index)


def require_pixels(source: Source, *, name: str) -> None:
    """Refuse values of the float image where a format is made of pictures."""
    if source != "pixels":
        raise SettingsError(
            f"the format {name} is made of rounded pictures, usually of 8 bits, so its values "
            "cannot come from the float image",
            hint='use source="pixels"',
        )


def check_name(page: Page) -> None:
    """Refuse a file name that cannot stand in one line of UTF-8 text."""
    if "\n" in page.name or "\r" in page.name:
        raise DataError(f"the file name {page.name!r} holds a line break", hint="rename the file")
    try:
        page.name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the file name {page.name!r} is not valid UTF-8", hint="rename the file"
        ) from None


def written_page(page: Page, *, image: FloatImage, pixels: Pixels, answer: Answer) -> WrittenPage:
    """Both mean lumas of a page and the checksum of its answer."""
    return WrittenPage(
        stem=page.stem,
        luma_of_pixels=mean_luma_of_pixels(pixels),
        luma_of_float=mean_luma(image),
        checksum=checksum(answer),
    )


def checksum(answer: Answer) -> int:
    """A number that differs when an answer does; images are compared in steps of 1e-5."""
    if isinstance(answer, float):
        return zlib.crc32(repr(answer).encode())
    steps = np.rint(answer * np.float32(VALUE_STEPS)).astype("<i4")
    return zlib.crc32(steps.tobytes())


def sample_path(contest: LocalContest) -> Path | None:
    """The contest's own sample submission, or None; raises DataError if it is not there."""
    if not contest.contest.sample:
        return None
    path = contest.root / contest.contest.sample
    if not path.is_file():
        raise DataError(
            f"the contest's sample submission {path} is not there",
            hint='fetch the contest again, or write sample = "" into its contest.toml',
        )
    return path


def sample_mismatch(
    path: Path, *, unknown: Sequence[str], unlisted: Sequence[str]
) -> DataError | None:
    """The error for a sample that lists other pictures than the test folder has, or None."""
    if not unknown and not unlisted:
        return None
    parts = []
    if unknown:
        parts.append(f"lists {_some(unknown)}, which the folder of test pictures has not")
    if unlisted:
        parts.append(f"does not list {_some(unlisted)}, which the folder of test pictures has")
    return DataError(
        f"the sample submission {path} " + " and ".join(parts),
        hint="fetch the contest again, or correct `test` or `sample` in its contest.toml",
    )


def _natural(text: str) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", text)  # text, number, text, number, ..., text
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]


def _unexpected(item: Restored, pages: Sequence[Page]) -> DataError:
    if any(page.stem == item.stem for page in pages):
        return DataError(
            f"the page {item.stem} was restored twice (second time from {item.name})",
            hint="give every test picture once",
        )
    return DataError(
        f"{item.name} is not one of the contest's {len(pages)} test pictures",
        hint="leave it out: a contest refuses rows that it does not know",
    )


def _checked(item: Restored, page: Page) -> FloatImage:
    image = item.image
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype.kind != "f":
        raise DataError(
            f"{item.name}: restored image is {image.dtype} {list(image.shape)}, not float "
            "[H, W, 1 or 3]",
            hint="convert it with kbdenoise.imaging.files.to_float",
        )
    height, width = image.shape[:2]
    if (height, width) != (page.height, page.width):
        raise DataError(
            f"{item.name} was restored to {width}x{height} px but the test picture is "
            f"{page.width}x{page.height} px",
            hint="restore at the picture's own size",
        )
    if not np.isfinite(image).all():
        raise DataError(
            f"{item.name}: the restored image holds values that are not finite (NaN or infinity)",
            hint="the model's weights are damaged or overflowed; use another checkpoint or fp32",
        )
    outside = np.abs(image - np.float32(0.5)) > 0.5 + _OVERSHOOT
    if np.count_nonzero(outside) > _OVERSHOOT_SHARE * image.size:
        raise DataError(
            f"{item.name}: restored values run from {image.min():.3g} to {image.max():.3g}, "
            "not from 0 to 1",
            hint="undo the model's normalisation before writing its output",
        )
    return np.clip(image, 0.0, 1.0).astype(np.float32, copy=False)


def _some(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    rest = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + rest
