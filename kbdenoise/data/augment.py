"""Change patches on the host so that a network sees more than the pictures that there are.

All are pure functions of float32 images in [0, 1], and of a NumPy generator where chance is
involved. Where a model sees the whole page, its thumbnail is changed as the patch is, so that the
two still belong together.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import cv2
import numpy as np

from kbdenoise.imaging.degradations import bleed_through, colour_transition, shade_spine
from kbdenoise.imaging.files import FloatImage, Pixels
from kbdenoise.imaging.luma import luma
from kbdenoise.imaging.scanner import Scanner, print_and_scan
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.models.spec import PAGE_SIDE

_READ_SHARE = 0.3
"""Largest share of camera noise at white that is there in the dark already (its deviation)."""
_BOUNDS = [0.0, *(NormalDist().pdf(NormalDist().inv_cdf(i / 8)) for i in range(1, 8)), 0.0]
_OCTILES = [np.float32(8 * (low - high)) for low, high in pairwise(_BOUNDS)]
"""The mean of standard Gaussian noise in each eighth of its values, lowest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How often, and how strongly at most, patches are changed; zeros leave them as stored."""

    mixup: float = 0.0
    """Share of the patches that are mixed with another one."""
    noise: float = 0.0
    """Largest standard deviation of Gaussian noise, in image units."""
    camera_noise: float = 0.0
    """Largest standard deviation of a camera's noise at white, in image units."""
    print_scan: float = 0.0
    """Share of the patches whose noisy side is printed and scanned anew from the clean one."""

    @property
    def on(self) -> bool:
        """Whether anything is changed at all."""
        return bool(self.mixup or self.noise or self.camera_noise or self.print_scan)


class Sample(NamedTuple):
    """A window of a pair: float32 [H, W, C] in [0, 1]."""

    noisy: FloatImage
    clean: FloatImage
    page: FloatImage | None
    """The thumbnail of the whole noisy picture, [T, T, C], or None."""


class Noise(NamedTuple):
    """Noise whose variance is gain * x + floor at the value x, both in image units."""

    gain: float
    floor: float


class Tones(NamedTuple):
    """What a clean page's cells are like: float32 [T, T, C] each, in image units."""

    mean: FloatImage
    variance: FloatImage


def mixed(sample: Sample, other: Sample, *, weight: float) -> Sample:
    """`weight` of one sample and the rest of another of its size, both sides alike.

    Source: Zhang et al., 'mixup: Beyond Empirical Risk Minimization', 2017 (arXiv:1710.09412), as
    Restormer and KBNet train with it: weights from Beta(1.2, 1.2).
    """

    def blended(image: FloatImage, with_image: FloatImage) -> FloatImage:
        result = cv2.addWeighted(image, weight, with_image, 1.0 - weight, 0.0)
        # OpenCV drops a single channel.
        return np.asarray(result, dtype=np.float32).reshape(image.shape)

    pages = None
    if sample.page is not None and other.page is not None:
        pages = blended(sample.page, other.page)
    return Sample(
        noisy=blended(sample.noisy, other.noisy),
        clean=blended(sample.clean, other.clean),
        page=pages,
    )


def draw_noise(rng: np.random.Generator, *, noise: float, camera_noise: float) -> Noise:
    """Noise of a strength drawn uniformly below both limits, which are standard deviations.

    That of a camera is told at white, x = 1; its floor, read noise, has up to `_READ_SHARE` of it.
    """
    sigma, at_white, read = rng.random(3) * (noise, camera_noise, _READ_SHARE)
    read *= at_white
    return Noise(gain=float(at_white**2 - read**2), floor=float(sigma**2 + read**2))


def noised(sample: Sample, noise: Noise, rng: np.random.Generator) -> Sample:
    """Noise on the noisy side, clipped as a stored picture's is.

    Source: Foi et al., 'Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image
    Raw-Data', 2008: shot noise grows with the light, read noise does not. Both as Gaussians, and on
    values as stored rather than on linear light.
    """
    drawn = rng.standard_normal(sample.noisy.shape, dtype=np.float32)
    drawn *= _deviation(sample.noisy, noise)
    drawn += sample.noisy
    noisy = np.clip(drawn, 0.0, 1.0, out=drawn)
    if sample.page is None:
        return sample._replace(noisy=noisy)
    # A mean over many pixels has no noise left, but it has what clipping took from them.
    spread = _deviation(sample.page, noise)
    clipped = [np.clip(sample.page + octile * spread, 0.0, 1.0) for octile in _OCTILES]
    page: FloatImage = np.mean(clipped, axis=0, dtype=np.float32)
    return sample._replace(noisy=noisy, page=page)


def rescanned(
    clean: FloatImage,
    *,
    back: FloatImage,
    scanner: Scanner,
    page: tuple[int, int],
    left: int,
    rng: np.random.Generator,
) -> FloatImage:
    """The noisy side made anew: a window of a clean page, printed and scanned.

    `back` has the window's shape. `page` is the whole page's height and width and `left` the
    window's edge on it, in pixels. Gray pictures are printed in gray and scanned as luma.
    """
    pixels = clean.shape[0] * clean.shape[1]
    part, area = pixels / (page[0] * page[1]), min(1.0, pixels / 512**2)
    scanner = replace(  # what is counted by the page is rarer in a window of it
        scanner,
        dust=round(rng.poisson(scanner.dust * area) / area),  # or a small window never had any
        stains=int(rng.binomial(scanner.stains, part)),
        hairs=int(rng.binomial(scanner.hairs, part)),
        lines=int(rng.binomial(scanner.lines, part**0.5)),
    )
    scan = print_and_scan(
        _coloured(clean), back=_coloured(back), scanner=scanner, rng=rng, place=(left, page[1])
    )
    return _like(scan, clean)


def rescanned_page(tones: Tones, *, back: Tones, scanner: Scanner) -> FloatImage:
    """The thumbnail of a whole page as `scanner` would show it: float32 [T, T, C].

    Without scanning the page: grain, dots and noise are zero on average, and the colour curve is
    a parabola, whose mean over a cell depends on mean and variance there and on nothing else.
    """
    light = shade_spine(np.ones((PAGE_SIDE, PAGE_SIDE, 3), np.float32), strength=scanner.spine)
    # The paper's diffusion, some pixels, is a fraction of a cell.
    light = bleed_through(light, back=_coloured(back.mean), weight=scanner.bleed, spread=0.3)
    page = colour_transition(
        _coloured(tones.mean) * light,
        black=scanner.black,
        white=scanner.white,
        bend=scanner.bend,
        impurity=scanner.impurity,
    )
    black, white, bend = np.array([scanner.black, scanner.white, scanner.bend], np.float32)  # [3]
    page -= (white - black) * bend * _coloured(tones.variance) * light**2
    return _like(np.clip(page, 0.0, 1.0, out=page), tones.mean)


def tones_of(clean: Pixels) -> Tones:
    """Mean and variance of each cell of a clean picture [H, W, C]."""
    top = np.iinfo(clean.dtype).max
    mean = thumbnail(clean, side=PAGE_SIDE)
    squares = (clean.astype(np.float32) / np.float32(top)) ** 2
    variance = thumbnail(squares, side=PAGE_SIDE) - mean**2
    return Tones(mean=mean, variance=np.maximum(variance, 0.0, out=variance))


def to_sixteen_bits(image: FloatImage) -> Pixels:
    """A float image as uint16, clipped and rounded to the nearest value."""
    scaled = np.clip(image, 0.0, 1.0) * np.float32(65535.0)
    pixels: Pixels = np.rint(scaled, out=scaled).astype(np.uint16)
    return pixels


def _deviation(image: FloatImage, noise: Noise) -> FloatImage | np.float32:
    if not noise.gain:
        return np.float32(noise.floor**0.5)
    variance = image * np.float32(noise.gain)
    variance += np.float32(noise.floor)
    deviation: FloatImage = np.sqrt(variance, out=variance)
    return deviation


def _coloured(image: FloatImage) -> FloatImage:
    return image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)


def _like(scan: FloatImage, image: FloatImage) -> FloatImage:
    """A colour scan with the channels of `image`."""
    return scan if image.shape[2] == 3 else luma(scan)[..., None]
