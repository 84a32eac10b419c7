"""Classical filters behind the same doors as networks: a file instead of weights, a restorer.

A filter's run holds `filter.toml` in place of weights: its name and the parameters chosen.
"""

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from kbdenoise.atomic import write_text
from kbdenoise.data.splits import evenly
from kbdenoise.data.store import Store
from kbdenoise.devices import DeviceChoice
from kbdenoise.errors import DataError, SettingsError, nearest
from kbdenoise.imaging.classical.choosing import Chosen, choose
from kbdenoise.imaging.classical.table import FILTERS, Filter, Parameters, find_filter
from kbdenoise.imaging.files import FloatImage, to_float
from kbdenoise.imaging.metrics import Metric
from kbdenoise.inference.engines import Pace

BASELINES = (
    "median",
    "gaussian",
    "bilateral",
    "background-division",
    "background-subtraction",
    "tone-fit",
)
"""The quick ones of `FILTERS`, which evaluate sets beside a run."""

_BYTES_PER_PIXEL = 300.0  # the wavelet filter's, which keeps all scales of three channels
_MOST_BYTES = 512.0 * 1024**2
_SECONDS = 15.0  # aimed at for each of the two rounds of choosing
_FEW, _MORE = (3, 6), (6, 24)  # fewest and most pictures in the first and in the second round
_FITTED = 300  # most pictures that a curve is fitted to
_SIDE = 1024  # px, most of a picture that filters are chosen on


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterCard:
    """What filter.toml says: the filter, and where its parameters come from."""

    name: str
    channels: int
    contest: str
    metric: str
    chosen_score: float
    """Of the parameters on the training pictures that they were chosen on."""
    pictures: int
    """How many those were."""
    parameters: Parameters

    @property
    def count(self) -> int:
        """How many numbers were chosen."""
        return sum(_count(value) for value in self.parameters.values())


class FilterRestorer:
    """A filter with its parameters, behind the Restorer protocol."""

    fixed_tile = None

    def __init__(self, card: FilterCard) -> None:
        chosen = find_filter(card.name)
        self.card = card
        self.channels = card.channels
        self.multiple = chosen.multiple
        self.radius = chosen.reach(card.parameters)
        self.bytes_per_pixel = _BYTES_PER_PIXEL
        self.sees_page = False
        self.pace = Pace(pixels=1, most_bytes=_MOST_BYTES)
        self._apply = chosen.apply

    def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
        """Restore float32 [B, H, W, C] in [0, 1]; the page beside a tile is of no use to it."""
        return np.stack([self._apply(image, **self.card.parameters) for image in noisy])


def filter_device() -> DeviceChoice:
    """Where filters run: on the CPU, in float32."""
    return DeviceChoice(
        kind="cpu", reason="classical filters run there", precision_reason="they need no other"
    )


def _middle(height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a picture that filters are chosen on: at most _SIDE of each."""
    top, left = max(0, height - _SIDE) // 2, max(0, width - _SIDE) // 2
    return slice(top, top + _SIDE), slice(left, left + _SIDE)


class StorePairs(Sequence[tuple[FloatImage, FloatImage]]):
    """Some pairs of a store as float images, each loaded when it is asked for.

    Of pictures larger than _SIDE px the middle is taken: filters are alike everywhere, and hours
    would go into choosing on whole ones.
    """

    def __init__(self, store: Store, indices: Sequence[int]) -> None:
        self.store = store
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, i: int) -> tuple[FloatImage, FloatImage]: ...
    @overload
    def __getitem__(self, i: slice) -> "StorePairs": ...
    def __getitem__(self, i: int | slice) -> "tuple[FloatImage, FloatImage] | StorePairs":
        if isinstance(i, slice):
            return StorePairs(self.store, self.indices[i])
        index = self.indices[i]
        middle = _middle(*self.store.size(index))
        return to_float(self.store.noisy(index)[middle]), to_float(self.store.clean(index)[middle])


def choose_on(
    store: Store,
    train: Sequence[int],
    chosen: Filter,
    *,
    metric: Metric,
    fixed: Parameters | None = None,
    asked_to_stop: Callable[[], bool] = lambda: False,
    after_each: Callable[[int, int, float], None] = lambda done, total, score: None,
) -> tuple[Chosen, int]:
    """Choose on training pictures, evenly drawn, as many as take about half a minute.

    There are never fewer than three, then six, of them, at most 1024x1024 px of each. Returns the
    choice and the number of pictures that it was settled on, which follows from the pictures' size
    and the table's times, not from a clock, so that it is repeatable.
    """
    counts = _affordable(store, train, chosen)
    few, more = (StorePairs(store, evenly(train, count)) for count in counts)
    found = choose(
        chosen,
        few,
        more,
        metric=metric,
        fixed=fixed,
        asked_to_stop=asked_to_stop,
        after_each=after_each,
    )
    return found, len(more)


def _affordable(store: Store, train: Sequence[int], chosen: Filter) -> tuple[int, int]:
    """How many pictures each of the two rounds of choosing looks at, of those there are."""
    sides = np.minimum([store.size(i) for i in train], _SIDE)  # [pictures, 2]
    values = float(np.mean(np.prod(sides, axis=1))) * store.channels
    slowdown = chosen.slowdown_16_bit if store.dtype == np.uint16 else 1.0
    seconds = max(1e-9, values / 1e6 * chosen.seconds_per_megavalue * slowdown)
    tries = math.prod(len(grid.values) for grid in chosen.grid.values())
    finals = 3 + 2 * len(chosen.grid)
    most = (_FEW[1], _FITTED if chosen.fit else _MORE[1])
    few = max(_FEW[0], min(most[0], int(_SECONDS / (tries * seconds))))
    more = max(_MORE[0], min(most[1], int(_SECONDS / (finals * seconds))))
    return min(few, len(train)), min(more, len(train))


def write_filter(path: Path, card: FilterCard) -> None:
    """Write filter.toml, atomically, with a comment for each parameter."""
    words = FILTERS[card.name].parameters | {"curves": "coefficients a channel, constant first"}
    lines = ["# A classical filter, and the parameters that scored best on training pictures."]
    for f in fields(card):
        if f.name != "parameters" and not _is_nan(value := getattr(card, f.name)):
            lines.append(f"{f.name} = {json.dumps(value, ensure_ascii=False)}")
    lines += ["", "[parameters]"]
    for name, value in card.parameters.items():
        lines.append(f"{name} = {json.dumps(value)}  # {words[name]}")
    write_text(path, "\n".join(lines) + "\n")


def read_filter(path: Path) -> FilterCard:
    """Read filter.toml. Raises DataError if it is missing, damaged, or asks for the impossible."""
    from pydantic import TypeAdapter, ValidationError

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint="train it anew") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}", hint="train it anew") from error
    names = [f.name for f in fields(FilterCard)]
    if unknown := [name for name in content if name not in names]:
        hint = nearest(unknown[0], names)
        raise DataError(f"{path} does not describe a filter: unknown '{unknown[0]}'", hint=hint)
    try:
        card = TypeAdapter(FilterCard).validate_python({"chosen_score": math.nan} | content)
        return replace(card, parameters=_checked_parameters(card))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{path} does not describe a filter: {where}: {first['msg']}", hint="train it anew"
        ) from error
    except SettingsError as error:
        raise DataError(f"{path}: {error.message}", hint=error.hint) from error


def _checked_parameters(card: FilterCard) -> dict[str, Any]:
    """Raises SettingsError for what the filter cannot be."""
    chosen = find_filter(card.name)
    if card.channels not in (1, 3):
        raise SettingsError(f"channels are {card.channels}", hint="they are 1 or 3")
    names = ["curves"] if chosen.fit else list(chosen.grid)
    for name in {*names, *card.parameters}:
        if name not in card.parameters or name not in names:
            what = "is not a parameter of" if name in card.parameters else "is missing for"
            raise SettingsError(f"{name} {what} {card.name}", hint=nearest(name, names))
    if chosen.fit is None:
        return {n: chosen.grid[n].checked(value, where=n) for n, value in card.parameters.items()}
    if not _are_curves(card.parameters["curves"], card.channels):
        raise SettingsError(
            f"curves are not {card.channels} lists of numbers", hint="one list a channel"
        )
    return dict(card.parameters)


def _are_curves(value: Any, channels: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == channels
        and all(isinstance(curve, list) and curve for curve in value)
        and all(
            isinstance(v, int | float) and not isinstance(v, bool) and -1e6 <= v <= 1e6
            for curve in value
            for v in curve
        )
    )


def _count(value: Any) -> int:
    return sum(_count(v) for v in value) if isinstance(value, list | tuple) else 1


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def parameters_in_words(parameters: Parameters) -> str:
    """Such as `side 5` or `curves of degree 3`, for a line of a table."""
    words = []
    for name, value in parameters.items():
        many = isinstance(value, list)
        words.append(f"{name} of degree {len(value[0]) - 1}" if many else f"{name} {value:g}")
    return ", ".join(words)
