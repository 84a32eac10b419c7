"""How a submission is written: what the table `[submission]` of a contest.toml may say.

Each format understands some keys; what a contest.toml leaves out has the value that the format's
own contest asks for. Keys, meanings and defaults stand here and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from kbdenoise.errors import nearest
from kbdenoise.imaging.files import SUFFIXES
from kbdenoise.imaging.luma import Space

LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
"""Suffixes of pictures that give back what was written into them."""

_IDS = ("stem", "name", "index")
_MOST_DECIMALS = 17


def _check_template(key: str, template: str) -> None:
    try:
        template.format(stem="a", name="a.png", index=1)
    except (KeyError, IndexError, ValueError, AttributeError):
        raise ValueError(f"{key}: '{template}' may hold {{stem}}, {{name}} and {{index}}") from None


def _check_file_names(template: str, bit_depth: int) -> None:
    path = PurePosixPath(template)
    if path.is_absolute() or ".." in path.parts or "\\" in template:
        raise ValueError(f"files: '{template}' must lie inside the archive, with '/' and no '..'")
    if path.suffix.lower() not in LOSSLESS:
        raise ValueError(
            f"files: '{template}' has no suffix of pictures kept without loss; "
            + ", ".join(LOSSLESS)
        )
    if bit_depth not in SUFFIXES[path.suffix.lower()][0]:
        raise ValueError(f"bit_depth: {path.suffix} files cannot hold {bit_depth} bits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of every format together; a format reads those that it knows."""

    key: str = "id"
    """Name of the column of ids."""
    value: str = "value"
    """Name of the column of values; with `pixels-wide` what precedes the number of each."""
    name: str = ""
    """Name of a column of file names, behind the ids; empty: there is none."""
    id: str = "stem"
    """stem, name (with suffix), index (a running number), or a template: {stem}, {name}, {index}"""
    base: Literal[0, 1] = 0
    """Whether rows, columns, places and indices are counted from 0 or from 1."""
    order: Literal["row", "col"] = "row"
    """row: a picture's rows follow each other (row-major); col: its columns do."""
    statistic: Literal["mean", "median"] = "mean"
    """Of all pixels of a picture."""
    space: Space = "y601"
    """What is gray: y601 (luma), y601-limited (16..235), gray709, or the channel r, g or b."""
    scale: Literal[1, 255] = 255
    """The value of white."""
    decimals: int = 0
    """Decimals of a value, rounded; -1: all."""
    stride: int = 1
    """Only every n-th pixel is handed in."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    bytes_text: bool = False
    """Whether a cell is written as Python bytes, b'...', for scorers that evaluate it."""
    block: int = 0
    """Side in pixels of the squares that a picture is cut into, a row each; 0: one row a picture"""
    threshold: float = 0.5
    """Gray in 0..1 from which on a pixel belongs to the mask."""
    files: str = "{stem}.png"
    """Name of a picture in the archive: {stem}, {name}, {index}, and folders with '/'."""
    bit_depth: Literal[8, 16] = 8
    readme: dict[str, str] = field(default_factory=dict, hash=False)
    """Keys and values of a readme.txt in the archive, as NTIRE asks for; empty: none."""

    def __post_init__(self) -> None:
        if not -1 <= self.decimals <= _MOST_DECIMALS:
            raise ValueError(f"decimals: from 0 to {_MOST_DECIMALS}, or -1 for all")
        for name, least in (("stride", 1), ("block", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: at least {least}, not {getattr(self, name)}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold: above 0 and at most 1, not {self.threshold:g}")
        if self.id not in _IDS and "{" not in self.id:
            raise ValueError(f"id: '{self.id}' is unknown; stem, name, index or a template '{{}}'")
        _check_template("id", self.id)
        _check_template("files", self.files)
        _check_file_names(self.files, self.bit_depth)

    @property
    def step(self) -> float:
        """The last decimal of a value, as a share of white; 0 where all decimals are kept."""
        return 0.0 if self.decimals < 0 else 10.0**-self.decimals / self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What one format understands."""

    keys: tuple[str, ...]
    defaults: Options


def _known(keys: str, **defaults: Any) -> Known:
    return Known(keys=tuple(keys.split()), defaults=Options(**defaults))


OPTIONS: dict[str, Known] = {
    "mean-luma": _known(
        "key value id base statistic space scale decimals",
        key="Image File",
        value="Y Channel Value",
        decimals=-1,
    ),
    "pixels-long": _known(
        "key value id base order space scale decimals", base=1, order="col", scale=1, decimals=5
    ),
    "pixels-wide": _known(
        "key value id base order space scale decimals stride", key="ID", value="pixel_"
    ),
    "raw-b64": _known(
        "key value name id base channel_order bytes_text block", key="ID", value="BLOCK", id="index"
    ),
    "png-b64": _known("key value name id base bytes_text", value="Encoded_Image", id="name"),
    "rle-zlib-b64": _known(
        "key value name id base channel_order bytes_text",
        value="rle",
        name="filename",
        id="index",
        channel_order="bgr",
        bytes_text=True,
    ),
    "mask-rle": _known(
        "key value id base order space threshold", key="img", value="pixels", base=1, order="col"
    ),
    "zip": _known("files base bit_depth readme"),
}
"""Every submission format, the options it understands, and what they are if nobody says."""


_VALIDATOR = TypeAdapter(Options)


def options_of(name: str, table: Mapping[str, Any]) -> Options:
    """The options of a format with what a contest.toml says of them.

    Raises ValueError naming the key that the format does not know, or the wrong value.
    """
    known = OPTIONS[name]
    for key in table:
        if key not in known.keys:
            raise ValueError(
                f"[submission] has no key '{key}' for the format {name}; {nearest(key, known.keys)}"
            )
    defaults = {f.name: getattr(known.defaults, f.name) for f in fields(Options)}
    try:
        options = _VALIDATOR.validate_python(defaults | dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"][:1])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"[submission] {where}{message}") from None
    if name in ("pixels-long", "pixels-wide"):
        most = 5 if options.scale == 1 else 3  # each value has its text in a table
        if not 0 <= options.decimals <= most:
            raise ValueError(
                f"[submission] decimals: from 0 to {most} where scale = {options.scale}"
            )
    return options


def told_options(name: str, options: Options) -> dict[str, Any]:
    """The options that differ from the defaults of their format: a `[submission]` table."""
    defaults = OPTIONS[name].defaults
    names = [f.name for f in fields(Options) if f.name in OPTIONS[name].keys]
    return {n: getattr(options, n) for n in names if getattr(options, n) != getattr(defaults, n)}
