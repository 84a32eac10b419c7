"""What a contest's pictures are like, before anything is trained on them.

Nothing is raised for a bad picture: it is listed with its error, and the rest is measured. Levels
are grey levels 0..255; 16-bit values are brought to that scale.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.data.index import pixel_checksum
from kbdenoise.data.pairs import Pair, pair_folders
from kbdenoise.data.splits import group_names
from kbdenoise.data.store import in_parallel
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import (
    FloatImage,
    Pixels,
    list_images,
    read_opaque,
    read_picture,
    to_float,
    with_channels,
)
from kbdenoise.imaging.luma import luma, mean_luma
from kbdenoise.imaging.metrics import metric

_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_RIPPLE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A picture or pair that cannot be used, and why."""

    file: str
    error: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a quantity is distributed over pictures."""

    mean: float
    deviation: float
    """Standard deviation."""
    low: float
    lower_quartile: float
    median: float
    upper_quartile: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The noisy or the clean pictures of all sound pairs."""

    sizes: dict[str, int]
    """'width x height' -> pictures, the most frequent first."""
    channels: dict[str, int]
    """Channels in the file -> pictures."""
    bit_depths: dict[str, int]
    darkest: tuple[float, ...]
    """Lowest value of each channel in any picture, in grey levels; gray pictures count as RGB
    where there are both."""
    brightest: tuple[float, ...]
    luma: Spread
    """Mean luma of a picture, in grey levels."""
    equal: tuple[tuple[str, ...], ...]
    """Stems whose pictures are equal, value by value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All that `kbdenoise inspect` tells; `dataclasses.asdict` of it goes into JSON."""

    slug: str
    folder: str
    noisy_folder: str
    clean_folder: str
    test_folder: str
    pairs: int
    """Pairs found by name; of these, `broken` names the ones that cannot be used."""
    test_pictures: int
    groups: int
    """Groups that a split keeps together; 0 if they cannot be told (see `broken`)."""
    noisy_orphans: tuple[str, ...]
    clean_orphans: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    skipped: tuple[str, ...]
    ignored: tuple[str, ...]
    broken: tuple[Broken, ...]
    noisy: Side | None
    """None if no pair is sound; so are the figures below."""
    clean: Side | None
    gap: Spread | None
    """Mean luma of noisy less that of clean, in grey levels."""
    metric: str
    unit: str
    doing_nothing: float | None
    """The contest's metric with the noisy pictures handed in as they are; None if infinite."""
    residual_noise: Spread | None
    """Robust deviation of noisy less clean, in grey levels of luma: noise, print and stains."""
    grain: Spread | None
    """Deviation of white noise in the noisy picture alone, in grey levels of luma."""
    identical: tuple[str, ...]
    """Stems whose noisy and clean pictures are equal."""


def summarise(
    local: LocalContest,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
) -> Summary:
    """Read every picture of a contest once and describe them; `workers` 0 means one thread a core.

    Raises DataError only for a training folder that is missing or unreadable, and SettingsError for
    an impossible layout.
    """
    contest = local.contest
    pairing = pair_folders(local)
    tests, no_tests = _test_pictures(local)

    def look(item: Pair | Path) -> "_Look | Broken | None":
        return _look(item, contest) if isinstance(item, Pair) else _check_test(item)

    items: list[Pair | Path] = [*pairing.pairs, *tests]
    seen = in_parallel(look, items, workers=workers, progress=progress)
    looks = [look for look in seen if isinstance(look, _Look)]
    groups, no_groups = _count_groups(looks, contest)
    broken = (*(item for item in seen if isinstance(item, Broken)), *no_tests, *no_groups)
    return Summary(
        slug=contest.slug,
        folder=str(local.folder),
        noisy_folder=str(local.noisy),
        clean_folder=str(local.clean),
        test_folder=str(local.test) if contest.test else "",
        pairs=len(pairing.pairs),
        test_pictures=len(tests),
        groups=groups,
        noisy_orphans=_names(pairing.noisy_orphans),
        clean_orphans=_names(pairing.clean_orphans),
        duplicates=tuple(_names(paths) for paths in pairing.duplicates),
        skipped=_names(pairing.skipped),
        ignored=_names(pairing.ignored),
        broken=broken,
        noisy=_side([(look.pair.stem, look.noisy) for look in looks]),
        clean=_side([(look.pair.stem, look.clean) for look in looks]),
        gap=_spread(look.noisy.luma - look.clean.luma for look in looks),
        metric=contest.metric,
        unit=metric(contest.metric).unit,
        doing_nothing=_pooled(looks, contest),
        residual_noise=_spread(look.residual_noise for look in looks),
        grain=_spread(look.grain for look in looks),
        identical=tuple(k.pair.stem for k in looks if k.noisy.checksum == k.clean.checksum),
    )


def residual_noise(noisy: FloatImage, clean: FloatImage) -> float:
    """Robust standard deviation of noisy - clean, in grey levels of luma.

    1.4826 times the median absolute deviation from the median: a shift of tone does not count, and
    a few stains hardly do.
    """
    residual = luma(noisy) - luma(clean)
    return 255.0 * _NORMAL * float(np.median(np.abs(residual - np.median(residual))))


def grain(noisy: FloatImage) -> float:
    """Standard deviation of white noise, estimated from one picture, in grey levels of luma.

    The response to a filter that is blind to edges and slopes, in the median, so that texture
    counts little. Returns 0 for pictures less than 3 pixels wide or high.

    Source: Immerkaer, 'Fast Noise Variance Estimation', 1996; with the median instead of the mean.
    """
    if min(noisy.shape[:2]) < 3:
        return 0.0
    response = cv2.filter2D(np.ascontiguousarray(luma(noisy)), cv2.CV_32F, _RIPPLE)[1:-1, 1:-1]
    norm = float(np.sqrt(np.square(_RIPPLE).sum()))
    return 255.0 * _NORMAL * float(np.median(np.abs(response))) / norm


class _Figures(NamedTuple):
    """One picture."""

    size: str
    channels: int
    bit_depth: int
    darkest: npt.NDArray[np.float64]
    brightest: npt.NDArray[np.float64]
    luma: float
    checksum: str


class _Look(NamedTuple):
    """One sound pair."""

    pair: Pair
    noisy: _Figures
    clean: _Figures
    score: float
    values: int
    residual_noise: float
    grain: float
    group_checksum: str


def _look(pair: Pair, contest: Contest) -> _Look | Broken:
    try:
        noisy_pixels, clean_pixels = read_opaque(pair.noisy), read_opaque(pair.clean)
    except DataError as error:
        return Broken(file=pair.stem, error=error.message, hint=error.hint)
    if noisy_pixels.shape[:2] != clean_pixels.shape[:2]:
        return Broken(
            file=pair.stem,
            error=f"{pair.noisy} is {_size(noisy_pixels)} px but its clean partner {pair.clean} is "
            f"{_size(clean_pixels)} px",
            hint="remove the pair, or list it in skip.txt",
        )
    noisy = to_float(with_channels(noisy_pixels, contest.channels))
    clean = to_float(with_channels(clean_pixels, contest.channels))
    return _Look(
        pair=pair,
        noisy=_figures(noisy_pixels),
        clean=_figures(clean_pixels),
        score=metric(contest.metric).score(noisy, clean),
        values=noisy.size,
        residual_noise=residual_noise(noisy, clean),
        grain=grain(noisy),
        group_checksum=pixel_checksum(with_channels(clean_pixels, contest.channels)),
    )


def _check_test(path: Path) -> Broken | None:
    try:
        read_picture(path)
    except DataError as error:
        return Broken(file=path.name, error=error.message, hint=error.hint)
    return None


def _figures(pixels: Pixels) -> _Figures:
    scale = 255.0 / np.iinfo(pixels.dtype).max
    return _Figures(
        size=_size(pixels),
        channels=pixels.shape[2],
        bit_depth=pixels.itemsize * 8,
        darkest=pixels.min(axis=(0, 1)) * scale,  # [H, W, C] -> [C]
        brightest=pixels.max(axis=(0, 1)) * scale,
        luma=mean_luma(to_float(pixels)),
        checksum=pixel_checksum(pixels),
    )


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _side(pictures: Sequence[tuple[str, _Figures]]) -> Side | None:
    spread = _spread(figures.luma for _, figures in pictures)
    if spread is None:
        return None
    return Side(
        sizes=_histogram(figures.size for _, figures in pictures),
        channels=_histogram(str(figures.channels) for _, figures in pictures),
        bit_depths=_histogram(str(figures.bit_depth) for _, figures in pictures),
        darkest=_extreme(np.min, [figures.darkest for _, figures in pictures]),
        brightest=_extreme(np.max, [figures.brightest for _, figures in pictures]),
        luma=spread,
        equal=_equal(pictures),
    )


def _extreme(
    choose: Callable[..., npt.NDArray[np.float64]], values: Sequence[npt.NDArray[np.float64]]
) -> tuple[float, ...]:
    channels = max(value.size for value in values)
    return tuple(choose([np.broadcast_to(value, channels) for value in values], axis=0).tolist())


def _histogram(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _equal(pictures: Sequence[tuple[str, _Figures]]) -> tuple[tuple[str, ...], ...]:
    same: dict[str, list[str]] = {}
    for stem, figures in pictures:
        same.setdefault(figures.checksum, []).append(stem)
    return tuple(tuple(stems) for stems in same.values() if len(stems) > 1)


def _spread(values: Iterable[float]) -> Spread | None:
    all_values = np.array(list(values), dtype=np.float64)
    if not all_values.size:
        return None
    low, lower, median, upper, high = np.percentile(all_values, [0, 25, 50, 75, 100]).tolist()
    return Spread(
        mean=float(all_values.mean()),
        deviation=float(all_values.std()),
        low=low,
        lower_quartile=lower,
        median=median,
        upper_quartile=upper,
        high=high,
    )


def _pooled(looks: Sequence[_Look], contest: Contest) -> float | None:
    if not looks:
        return None
    pool = metric(contest.metric).pool
    score = pool([look.score for look in looks], [look.values for look in looks])
    return score if np.isfinite(score) else None  # JSON knows no infinity


def _test_pictures(local: LocalContest) -> tuple[list[Path], tuple[Broken, ...]]:
    if not local.contest.test:
        return [], ()
    try:
        return list_images(local.test), ()
    except DataError as error:
        return [], (Broken(file=local.contest.test, error=error.message, hint=error.hint),)


def _count_groups(looks: Sequence[_Look], contest: Contest) -> tuple[int, tuple[Broken, ...]]:
    try:
        names = group_names(
            [look.pair for look in looks],
            contest=contest,
            clean_checksums=[look.group_checksum for look in looks],
        )
    except DataError as error:
        return 0, (Broken(file="contest.toml", error=error.message, hint=error.hint),)
    return len(set(names)), ()


def _names(paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(path.name for path in paths)
