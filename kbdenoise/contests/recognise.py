"""What a sample submission asks for: the format, told by its header and its first rows.

The signs are tried in a fixed order, the surest first; what none of them fits is said to be unknown
and never guessed.
"""

import binascii
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kbdenoise.contests.formats.csv_bytes import fields, plain_chunks
from kbdenoise.contests.options import OPTIONS, options_of, told_options
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import SUFFIXES, read_header

_ROWS_READ = 1000
_BYTES_READ = 1 << 24
_LONGEST_LINE = 1 << 28
_PNG = b"iVBOR"
_MASK_COLUMNS = re.compile(r"pixels|encoded_?pixels|rle|rle_mask|encodedmask", re.IGNORECASE)
_MASK = re.compile(r"([0-9]+ [0-9]+( [0-9]+ [0-9]+)*)?")
_CELL_TOLD = 40  # letters


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A submission format and how a sample differs from its defaults."""

    format: str
    metric: str
    submission: dict[str, Any] = field(default_factory=dict, hash=False)
    """The table `[submission]` of a contest.toml."""

    def __str__(self) -> str:
        options = ", ".join(f"{key} = {value!r}" for key, value in self.submission.items())
        told = f"the format {self.format}{' with ' + options if options else ''}"
        if options_of(self.format, self.submission).id == "index":
            told += "; its running ids go to the pictures in the natural order of their names"
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """The head of a sample CSV, and the test pictures that it should name."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tests: tuple[Path, ...]
    ids: dict[str, Any]
    """Options that name the first column and say what its ids are."""

    @property
    def cells(self) -> list[str]:
        """The last cell of every row."""
        return [row[-1] for row in self.rows]

    @property
    def size(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the first test picture."""
        if not self.tests:
            return None
        header = read_header(self.tests[0])
        return header.height, header.width, header.channels


def recognise(path: Path, *, tests: Sequence[Path]) -> Recognised | None:
    """The format that a sample submission shows, or None when it is none that is known.

    `tests` are the contest's test pictures. Raises DataError for one that cannot be read.
    """
    if path.suffix.lower() == ".zip" and (found := _archive(path, tests)):
        return found
    try:
        lines = _first_lines(path)
    except DataError:
        return None
    rows = [tuple(fields(line)) for line in lines]
    if len(rows) < 2 or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return None
    keys = [row[0] for row in rows[1:]]
    sample = _Sample(
        header=rows[0],
        rows=tuple(rows[1:]),
        tests=tuple(tests),
        ids={"key": rows[0][0], **_ids(keys, tests)},
    )
    for look in _SIGNS:
        found = look(sample)
        if found is not None:
            return found
    return None


def _long(sample: _Sample) -> Recognised | None:
    """Two columns, ids of a page, a row and a column."""
    keys = [row[0] for row in sample.rows]
    stems = {path.stem for path in sample.tests}
    if len(sample.header) != 2 or not all(re.fullmatch(r".+_[0-9]+_[0-9]+", key) for key in keys):
        return None
    values = _numbers(sample.cells)
    if values is None or stems.issuperset(keys):
        return None
    parts = [key.rsplit("_", 2) for key in keys]
    pages = {page for page, _, _ in parts}
    places = [(int(row), int(column)) for _, row, column in parts]
    first, second = [*places, places[0]][:2]
    return _found(
        "pixels-long",
        "rmse",
        key=sample.header[0],
        value=sample.header[1],
        **({"id": "name"} if pages <= {path.name for path in sample.tests} else {}),
        base=min(1, min(map(min, places))),
        order="row" if second == (first[0], first[1] + 1) else "col",
        **_scale(values, "pixels-long"),
    )


def _wide(sample: _Sample) -> Recognised | None:
    """Columns of numbered pixels."""
    names = [re.fullmatch(r"(\D*)([0-9]+)", name) for name in sample.header[1:]]
    if not names[0] or not re.search("pix", names[0][1], re.IGNORECASE):
        return None
    prefix, base = names[0][1], int(names[0][2])
    wanted = [f"{prefix}{base + i}" for i in range(len(names))]
    values = _numbers([cell for row in sample.rows[:20] for cell in row[1:]])
    stride = _stride(sample, len(names))
    if list(sample.header[1:]) != wanted or base > 1 or values is None or not stride:
        return None
    scale = _scale(values, "pixels-wide")
    return _found(
        "pixels-wide", "psnr", **sample.ids, value=prefix, base=base, stride=stride, **scale
    )


def _raw(sample: _Sample) -> Recognised | None:
    """A column called BLOCK, whose cells are as long as a block is."""
    if sample.header[-1].lower() != "block":
        return None
    options: dict[str, Any] = {"bytes_text": sample.cells[0].startswith("b'")}
    size = sample.size
    letters = len(sample.cells[0].removeprefix("b'").removesuffix("'"))
    side = round((letters * 3 / 4 / (size[2] if size else 3)) ** 0.5)
    whole = size is None or side * side >= size[0] * size[1]
    if size and not whole and side > 1 and size[0] % side == 0 == size[1] % side:
        options["block"] = side
    return _pictures("raw-b64", sample, options)


def _rle(sample: _Sample) -> Recognised | None:
    """A column of run lengths packed by zlib, as Python bytes or plain."""
    begins = [cell.startswith(("b'", "eJ", "eN", "eA")) for cell in sample.cells]
    if "rle" not in sample.header[-1].lower() or not all(begins):
        return None
    return _pictures("rle-zlib-b64", sample, {"bytes_text": sample.cells[0].startswith("b'")})


def _png(sample: _Sample) -> Recognised | None:
    """Cells that begin as the base64 of a PNG does."""
    text = sample.cells[0].removeprefix("b'").encode(errors="replace")
    if not text.startswith(_PNG):
        return None
    try:
        binascii.a2b_base64(text[: len(text) // 4 * 4])
    except binascii.Error:
        return None
    return _pictures("png-b64", sample, {"bytes_text": sample.cells[0].startswith("b'")})


def _mask(sample: _Sample) -> Recognised | None:
    """Two columns, the second pairs of start and length."""
    if len(sample.header) != 2 or not _MASK_COLUMNS.fullmatch(sample.header[1]):
        return None
    if not all(_MASK.fullmatch(cell) for cell in sample.cells):
        return None
    return _found("mask-rle", "psnr", **sample.ids, value=sample.header[1])


def _scalar(sample: _Sample) -> Recognised | None:
    """Two columns, a number for every test picture."""
    values = _numbers(sample.cells)
    if len(sample.header) != 2 or values is None or not sample.tests or "id" not in sample.ids:
        return None
    inside = (values > 0) & (values < 1)
    scale = {"scale": 1} if inside.any() and values.max() <= 1 else {}
    return _found("mean-luma", "mae-mean-luma", **sample.ids, value=sample.header[1], **scale)


_SIGNS: tuple[Callable[[_Sample], Recognised | None], ...] = (
    _long,
    _wide,
    _raw,
    _rle,
    _png,
    _mask,
    _scalar,
)


def _archive(path: Path, tests: Sequence[Path]) -> Recognised | None:
    """An archive of pictures that are called like the test pictures."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name) for name in archive.namelist() if name[-1] != "/"]
    except (OSError, zipfile.BadZipFile):
        return None
    pictures = [name for name in names if name.suffix.lower() in SUFFIXES]
    stems = {path.stem for path in tests}
    if not pictures or not stems.intersection(name.stem for name in pictures):
        return None
    return _found("zip", "psnr")


def _pictures(name: str, sample: _Sample, options: dict[str, Any]) -> Recognised | None:
    """A format of one row a picture, with a column of file names or without."""
    if len(sample.header) > 3:
        return None
    between = sample.header[1] if len(sample.header) == 3 else ""
    return _found(name, "psnr", **sample.ids, name=between, value=sample.header[-1], **options)


def _found(name: str, metric: str, /, **options: Any) -> Recognised | None:
    """What was found, without what is the format's default anyway."""
    known = {key: value for key, value in options.items() if key in OPTIONS[name].keys}
    try:
        told = told_options(name, options_of(name, known))
    except ValueError:
        return None
    return Recognised(format=name, metric=metric, submission=told)


def _ids(keys: Sequence[str], tests: Sequence[Path]) -> dict[str, Any]:
    """What the ids of a sample are, as far as they tell."""
    if {path.stem for path in tests}.issuperset(keys):
        return {"id": "stem"}
    if {path.name for path in tests}.issuperset(keys):
        return {"id": "name"}
    if all(re.fullmatch("[0-9]{1,9}", key) for key in keys) and int(keys[0]) <= 1:
        return {"id": "index", "base": int(keys[0])}
    return {}


def _stride(sample: _Sample, columns: int) -> int:
    """How many pixels there are for each column; 0 where the numbers do not tell."""
    size = sample.size
    if size is None:
        return 1
    pixels = size[0] * size[1]
    if columns < 2:
        return 1 if pixels == columns else 0
    least, most = -(-pixels // columns), -(-pixels // (columns - 1)) - 1
    # With few columns several strides give as many of them; one that divides is meant then.
    fitting = range(max(1, least), most + 1)
    return least if len(fitting) == 1 or (fitting and pixels % least == 0) else 0


def _scale(values: "np.ndarray[Any, np.dtype[np.float64]]", name: str) -> dict[str, Any]:
    """Where white lies, and whether values are whole, as far as a sample tells."""
    defaults = OPTIONS[name].defaults
    whole = bool((values == np.rint(values)).all())
    scale = defaults.scale
    if values.max() > 1:
        scale = 255
    elif not whole:
        scale = 1
    if scale == defaults.scale and (whole or defaults.decimals):
        return {}
    return {"scale": scale, "decimals": 0 if scale == 255 and whole else 5 if scale == 1 else 3}


def _numbers(cells: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.float64]] | None":
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _first_lines(path: Path) -> list[str]:
    """The first lines of a CSV: enough to tell a format, and no more than fits the memory."""
    lines: list[str] = []
    size = 0
    for chunk in plain_chunks(path, longest=_LONGEST_LINE):
        size += len(chunk)
        text = chunk.decode("utf-8-sig" if not lines else "utf-8", errors="replace")
        lines += [line for line in text.split("\n") if line]
        if len(lines) > _ROWS_READ or size > _BYTES_READ:
            break
    return lines[: 1 + _ROWS_READ]
