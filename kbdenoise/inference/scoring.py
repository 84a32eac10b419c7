"""Score restored pictures against their truths with a contest's metric, PSNR and SSIM."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kbdenoise.imaging.files import FloatImage, Pixels, to_float, to_pixels
from kbdenoise.imaging.metrics import Metric, psnr, ssim

RestoreImages = Callable[[Iterable[FloatImage]], Iterator[FloatImage]]
"""Restores float32 [H, W, C] in [0, 1] of any sizes, one after the other, as `map` does."""


class Pictures(Protocol):
    """Pairs of stored pictures; the data room's Store is one."""

    @property
    def stems(self) -> Sequence[str]:
        """Names, in order."""

    def noisy(self, index: int) -> Pixels:
        """uint8 or uint16 [H, W, C]."""

    def clean(self, index: int) -> Pixels:
        """uint8 or uint16 [H, W, C]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageScore:
    """One picture's scores; `untouched` is the metric of the noisy picture itself."""

    stem: str
    score: float
    untouched: float
    psnr_db: float
    ssim: float
    bias: float
    """Mean of restored - clean, in grey levels 0..255."""
    size: int
    """Number of values, H*W*C."""


def score_pictures(
    restore: RestoreImages,
    pictures: Pictures,
    indices: Sequence[int],
    *,
    metric: Metric,
    with_ssim: bool = True,
    after_each: Callable[[], None] = lambda: None,
) -> list[ImageScore]:
    """Restore the given pictures and score each one as it would be handed in: rounded to 8 bits."""
    rows = []
    answers = restore(to_float(pictures.noisy(index)) for index in indices)
    for index, answer in zip(indices, answers, strict=True):
        noisy, clean = to_float(pictures.noisy(index)), to_float(pictures.clean(index))
        restored = rounded(answer)
        rows.append(
            ImageScore(
                stem=pictures.stems[index],
                score=metric.score(restored, clean),
                untouched=metric.score(noisy, clean),
                psnr_db=psnr(restored, clean),
                ssim=ssim(restored, clean) if with_ssim else float("nan"),
                bias=255.0
                * float(np.mean(restored, dtype=np.float64) - np.mean(clean, dtype=np.float64)),
                size=clean.size,
            )
        )
        after_each()
    return rows


def pooled(rows: Sequence[ImageScore], metric: Metric) -> float:
    """The contest's score over all pictures."""
    return metric.pool([row.score for row in rows], [row.size for row in rows])


def pooled_untouched(rows: Sequence[ImageScore], metric: Metric) -> float:
    """What doing nothing scores over the same pictures."""
    return metric.pool([row.untouched for row in rows], [row.size for row in rows])


def rounded(image: FloatImage) -> FloatImage:
    """The image after a trip through 8-bit pixels."""
    return to_float(to_pixels(image))
