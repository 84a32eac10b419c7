"""What a package says of itself, in the metadata of its own format: texts under texts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from kbdenoise.errors import DataError

PREFIX = "kbdenoise."
FORMAT_VERSION = 1
"""Raised when a package of before can no longer be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCard:
    """Which model a package holds, made of which weights, and how to run it."""

    model: str
    channels: int
    hyperparameters: Mapping[str, Any]
    parameters: int
    format: str
    """Its name in `FORMATS`."""
    precision: str
    """fp32 or fp16: what it computes with."""
    tile: int
    """Side, in px, of the tiles that it was checked with."""
    overlap: int
    """Px that neighbouring tiles of that side should share."""
    multiple: int
    """Sides must be multiples of this, in px."""
    radius: int | None
    """How far, in px, an output pixel sees; None: over the whole tile."""
    sees_page: bool
    """Whether it takes the thumbnail of the whole page as a second input."""
    bytes_per_pixel: float
    """Estimated working memory of one pixel of input, in fp32."""
    weights_sha256: str
    """Of the file that the weights came from."""
    versions: Mapping[str, str]
    """Of what wrote it: kbdenoise, torch, and the format's own packages."""
    details: Mapping[str, str] = field(default_factory=dict)
    """What else its format has to say, such as ONNX's opset."""
    domain: str = "RGB or luma in [0, 1]"
    format_version: int = FORMAT_VERSION

    def to_strings(self) -> dict[str, str]:
        """Names that begin with `kbdenoise.`, and values: JSON but for texts."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            f"{PREFIX}{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in content.items()
        }

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], *, where: object) -> "ExportCard":
        """The way back; other names are passed over.

        Raises DataError, naming `where` they were, for a package that is not kbdenoise's.
        """
        kinds = get_type_hints(cls)
        try:
            version = int(strings[f"{PREFIX}format_version"])
            content: dict[str, Any] = {
                name: strings[f"{PREFIX}{name}"]
                if kind is str
                else json.loads(strings[f"{PREFIX}{name}"])
                for name, kind in kinds.items()
            }
        except (KeyError, ValueError, RecursionError) as error:
            raise DataError(
                f"{where} is no package that kbdenoise wrote: its metadata lack or damage {error}",
                hint="write one: kbdenoise export RUN",
            ) from error
        card = cls(**content)
        if version != FORMAT_VERSION or not card.is_sound:
            fault = "of another version" if version != FORMAT_VERSION else "that are damaged"
            raise DataError(
                f"{where} has metadata {fault}",
                hint="write it anew: kbdenoise export RUN --force",
            )
        return card

    @property
    def is_sound(self) -> bool:
        """Whether the values are of their kinds, so that pictures can be cut by them."""
        whole = (self.channels, self.multiple, self.tile)
        return (
            all(isinstance(number, int) and number > 0 for number in whole)
            and self.channels in (1, 3)
            and isinstance(self.overlap, int)
            and (self.radius is None or isinstance(self.radius, int))
            and isinstance(self.sees_page, bool)
            and isinstance(self.bytes_per_pixel, int | float)
            and self.bytes_per_pixel > 0
        )
