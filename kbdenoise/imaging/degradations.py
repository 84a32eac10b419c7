"""What press, paper and scanner do to a page: each degradation on its own.

All are pure functions of float32 RGB images [H, W, 3] in [0, 1], and of a NumPy generator where
chance is involved: the same generator state gives the same pixels. The input is never written to;
a strength of zero returns it as it is. Results may leave [0, 1] by a little, as light does before
the sensor clips it; `scanner.print_and_scan` clips at its end. Nothing moves content by more than
`MAX_SHIFT` pixels.

Source: the degradations named by Cha et al., 'Descanning', AAAI 2024 (arXiv:2402.05350).
"""

from functools import lru_cache
from math import ceil, isqrt

import cv2
import numpy as np
import numpy.typing as npt

from kbdenoise.errors import SettingsError
from kbdenoise.imaging.files import FloatImage

Colour = tuple[float, float, float]
Plane = npt.NDArray[np.float32]
"""One channel, [H, W]."""
Bytes = npt.NDArray[np.uint8]

MAX_SHIFT = 0.1
"""No content moves further than this, in pixels."""
SCREEN_OVERSAMPLING = 3
"""Halftone dots are set on a grid this many times finer than the page."""


def colour_transition(
    image: FloatImage, *, black: Colour, white: Colour, bend: Colour, impurity: float = 0.0
) -> FloatImage:
    """Ink, paper and scanner colours instead of the page's own.

    Each channel v becomes black + (white - black) * (v + bend * v * (1 - v)), after a share
    `impurity` (0 to 0.3) of every channel is replaced by the mean of the three. The map keeps the
    order of tones for |bend| <= 1. Values above 1 (paper brighter than the scanner's white) stay;
    `print_and_scan` clips once, at its end.
    """
    planes = _planes(image)  # [3, H, W]
    if impurity:
        leaked = (planes[0] + planes[1] + planes[2]) * np.float32(impurity / 3.0)
        planes *= 1.0 - impurity
        planes += leaked
    # black + (white - black) * ((1 + bend) v - bend v^2), by Horner's rule
    for plane, low, high, curve in zip(planes, black, white, bend, strict=True):
        squares = plane * np.float32((low - high) * curve)
        squares += np.float32((high - low) * (1.0 + curve))
        plane *= squares
        plane += np.float32(low)
    return _merged(list(planes))


def halftone(
    image: FloatImage,
    *,
    screen: tuple[int, int],
    rng: np.random.Generator,
    contrast: float = 0.25,
) -> FloatImage:
    """Print the page with four inks, each as dots on its own turned screen.

    `screen` (a, b) is cyan's cell vector on a grid SCREEN_OVERSAMPLING times finer than the page:
    dots lie sqrt(a*a + b*b) fine pixels apart, turned by atan(b / a); magenta mirrors it, black
    stands at 45 degrees, yellow upright. `contrast` is what the spread of light in the paper
    leaves of the dots, 0 to 1. Solid ink and bare paper have no dots, and local means stay. The
    chance lies in where each screen begins.
    """
    a, b = screen
    if (a, b) == (0, 0):
        return image
    pitch = isqrt(a * a + b * b)
    red, green, blue = _planes(image)
    brightest = np.maximum(np.maximum(red, green), blue)
    # Ink that takes the colour exactly: black to the brightest channel, the others by ratio.
    lightness = _print_ink(brightest, cell=(max(1, round(pitch * 0.7)),) * 2, rng=rng)
    reciprocal = 1.0 / np.maximum(brightest, np.float32(1e-3))
    printed = _merged(
        [
            _print_ink(channel * reciprocal, cell=cell, rng=rng) * lightness
            for channel, cell in ((red, (a, b)), (green, (b, a)), (blue, (pitch, 0)))
        ]
    )
    printed *= contrast
    printed += image * np.float32(1.0 - contrast)
    return printed


def bleed_through(
    image: FloatImage, *, back: FloatImage, weight: float, spread: float = 2.0
) -> FloatImage:
    """The back page, mirrored, shows through the paper.

    A black back darkens the front by the share `weight` (0.05 to 0.15 in the paper's own
    synthesis); a white one leaves it. `spread` is the paper's diffusion, sigma in pixels.
    """
    if weight == 0.0:
        return image
    seen = _blurred(back[:, ::-1], spread)
    seen *= weight
    seen += 1.0 - weight
    seen *= image
    return seen


def add_grain(
    image: FloatImage, *, strength: float, rng: np.random.Generator, size: float = 0.8
) -> FloatImage:
    """Paper fibres: the reflectance varies by `strength` (standard deviation), alike in R, G, B.

    `size` is the sigma, in pixels, of the smoothing that gives the grain its coarseness.
    """
    if strength == 0.0:
        return image
    field = _blurred(rng.standard_normal(image.shape[:2], dtype=np.float32), size)
    field *= strength / max(float(field.std()), 1e-6)
    field += 1.0
    return _shaded(image, field)


def shade_spine(
    image: FloatImage,
    *,
    strength: float,
    reach: float = 0.12,
    place: tuple[int, int] | None = None,
) -> FloatImage:
    """The page bends away from the glass near the spine and gets less light.

    At the spine a share |strength| of the light is lost, fading over `reach` of the width. The
    spine is on the left, or on the right for a negative strength. Where the image is a window of a
    page, `place` is the window's left edge and the page's width, in pixels.
    """
    if strength == 0.0:
        return image
    left, width = place or (0, image.shape[1])
    columns = np.arange(left, left + image.shape[1], dtype=np.float32)
    distance = (columns if strength > 0 else width - 1 - columns) / (reach * width)
    light = (1.0 - abs(strength) * np.exp(-distance)).astype(np.float32)  # [W]
    return _shaded(image, np.broadcast_to(light, image.shape[:2]))


def warp(image: FloatImage, *, reach: float, rng: np.random.Generator) -> FloatImage:
    """Uneven paper: content moves smoothly, by at most `reach` pixels in each direction.

    Raises SettingsError if `reach` exceeds MAX_SHIFT. First order in the displacement, because
    OpenCV's remap knows only steps of 1/32 px.
    """
    if not 0.0 <= reach <= MAX_SHIFT:
        raise SettingsError(f"a warp of {reach} px is not within 0 to {MAX_SHIFT} px")
    if reach == 0.0:
        return image
    moved = image.copy()
    reach_each_way = reach / 2**0.5
    for along_x in (True, False):
        field = _smooth_field(image.shape[:2], rng) * np.float32(reach_each_way)
        slope = cv2.Sobel(image, cv2.CV_32F, int(along_x), int(not along_x), ksize=1, scale=0.5)
        moved += slope * _merged([field] * 3)
    return np.clip(moved, 0.0, 1.0, out=moved)


def add_stains(image: FloatImage, *, count: int, rng: np.random.Generator) -> FloatImage:
    """Soft, yellowish blots of a twentieth to a seventh of the page, which only darken."""
    if count == 0:
        return image
    height, width = image.shape[:2]
    small = np.zeros((ceil(height / 4), ceil(width / 4)), dtype=np.float32)
    for _ in range(count):
        centre = (int(rng.integers(small.shape[1])), int(rng.integers(small.shape[0])))
        axes = rng.uniform(0.05, 0.15, 2) * max(small.shape)
        blot = np.zeros_like(small)
        angle = float(rng.uniform(0.0, 180.0))
        cv2.ellipse(blot, centre, (int(axes[0]) + 1, int(axes[1]) + 1), angle, 0, 360, 1.0, -1)
        small = cv2.max(small, blot * np.float32(rng.uniform(0.4, 1.0)))
    mask = cv2.resize(cv2.GaussianBlur(small, (0, 0), 2.5), (width, height))  # [H, W]
    return image * cv2.merge([1.0 - mask * absorbed for absorbed in (0.03, 0.05, 0.12)])


def add_dust(
    image: FloatImage, *, count: int, rng: np.random.Generator, largest: float = 1.8
) -> FloatImage:
    """Dark specks: discs of radius 0.4 to `largest` pixels at random places; none brightens."""
    marks = image.copy()
    height, width = image.shape[:2]
    for _ in range(count):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        radius = 0.4 + (largest - 0.4) * rng.random() ** 2
        left, top, side = int(x) - ceil(largest) - 1, int(y) - ceil(largest) - 1, ceil(largest)
        box = (slice(max(top, 0), top + 2 * side + 4), slice(max(left, 0), left + 2 * side + 4))
        ys, xs = np.ogrid[box[0].start : box[0].stop, box[1].start : box[1].stop]
        inside = np.clip(radius + 0.5 - np.hypot(ys - y, xs - x), 0.0, 1.0)[..., None]
        patch = marks[box]
        patch *= 1.0 - np.float32(rng.uniform(0.3, 0.8)) * inside[: len(patch), : patch.shape[1]]
    return marks


def add_hairs(image: FloatImage, *, count: int, rng: np.random.Generator) -> FloatImage:
    """Hairs and fibres on the glass: thin curved lines of 15 to 60 pixels, which only darken."""
    if count == 0:
        return image
    height, width = image.shape[:2]
    mask = np.zeros((height, width), dtype=np.uint8)
    t = np.linspace(0.0, 1.0, 16)[:, None]
    for _ in range(count):
        start = rng.uniform((0, 0), (width, height))
        bow, end = start + rng.uniform(-40, 40, (2, 2))
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bow + t**2 * end  # [16, 2], Bezier
        points = np.rint(curve * 16).astype(np.int32)  # fixed point with 4 fractional bits
        depth = int(rng.integers(70, 170))
        cv2.polylines(mask, [points], False, (depth,), 1, cv2.LINE_AA, 4)
    return _shaded(image, 1.0 - mask * np.float32(1 / 255))


def blur_optics(image: FloatImage, *, sigma: float) -> FloatImage:
    """The scanner's lens and aperture: a Gaussian blur of `sigma` pixels."""
    return image if sigma == 0.0 else _blurred(image, sigma)


def add_banding(image: FloatImage, *, strength: float, rng: np.random.Generator) -> FloatImage:
    """Sensor columns of unequal gain, and a lamp that flickers slowly from row to row.

    `strength` is the standard deviation of the columns' gain; rows vary by a third of it.
    """
    if strength == 0.0:
        return image
    height, width = image.shape[:2]
    columns = 1.0 + strength * rng.standard_normal(width)  # [W]
    knots = rng.standard_normal(ceil(height / 24) + 2)
    rows = 1.0 + strength / 3 * np.interp(np.arange(height) / 24, np.arange(knots.size), knots)
    return _shaded(image, np.outer(rows, columns).astype(np.float32))


def add_lines(
    image: FloatImage, *, count: int, rng: np.random.Generator, strength: float = 0.05
) -> FloatImage:
    """`count` faint lines of one pixel, across the whole width, and as many down the height.

    Each is lighter or darker than what it crosses by at most `strength`.
    """
    marked = image.copy()
    height, width = image.shape[:2]
    for _ in range(count):
        marked[int(rng.integers(height))] += np.float32(rng.uniform(-strength, strength))
        marked[:, int(rng.integers(width))] += np.float32(rng.uniform(-strength, strength))
    return marked


def add_sensor_noise(image: FloatImage, *, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Gaussian noise of standard deviation `sigma`, different in every pixel and channel.

    Green and blue get red's noise from far away on the page, for drawing it is what takes long.
    """
    if sigma == 0.0:
        return image
    noise = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(sigma)
    height, width = noise.shape
    far = [np.roll(noise, (height * k // 3, width * k // 3), axis=(0, 1)) for k in range(3)]
    return _merged(far) + image


def _print_ink(lightness: Plane, *, cell: tuple[int, int], rng: np.random.Generator) -> Plane:
    """One ink as dots: the share of bare paper per page pixel, [H, W] in [0, 1]."""
    height, width = lightness.shape
    fine = (width * SCREEN_OVERSAMPLING, height * SCREEN_OVERSAMPLING)
    ink = cv2.convertScaleAbs(lightness, alpha=-255.0, beta=255.0)
    dots = ink.repeat(SCREEN_OVERSAMPLING, axis=1).repeat(SCREEN_OVERSAMPLING, axis=0)
    tile = _screen_tile(*cell)
    tile = np.roll(tile, rng.integers(0, tile.shape[0], 2), axis=(0, 1))
    repeats = (-(-fine[1] // tile.shape[0]), -(-fine[0] // tile.shape[1]))
    thresholds = np.tile(tile, repeats)[: fine[1], : fine[0]]
    cv2.compare(dots, thresholds, cv2.CMP_LE, dst=dots)  # 255 where paper stays bare
    # The mean of each block, at twice the speed of INTER_AREA: a box filter read at block centres.
    bare = cv2.blur(dots, (SCREEN_OVERSAMPLING, SCREEN_OVERSAMPLING))
    middle = slice(SCREEN_OVERSAMPLING // 2, None, SCREEN_OVERSAMPLING)
    return bare[middle, middle] * np.float32(1 / 255)


@lru_cache(maxsize=64)
def _screen_tile(a: int, b: int) -> Bytes:
    """Thresholds 0..254 of a screen whose cells repeat along (a, b) and (-b, a).

    A rational cell repeats on a square of a*a + b*b pixels, so a small tile holds the whole turned
    screen. Thresholds are ranks, hence a flat tone keeps its mean whatever the dot's shape; equal
    dots are ranked by chance, which gives more tones than one cell has pixels.
    """
    period = a * a + b * b
    side = period * ceil(48 / period)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    angle = 2.0 * np.pi / period
    spot = np.cos(angle * (a * x + b * y)) + np.cos(angle * (a * y - b * x))
    spot += np.random.default_rng(period).uniform(0.0, 0.05, spot.shape)
    ranks = np.empty(spot.size)
    ranks[np.argsort(spot, axis=None)] = np.arange(spot.size)
    return np.asarray(ranks * 255.0 / spot.size, dtype=np.uint8).reshape(side, side)


def _planes(image: FloatImage) -> npt.NDArray[np.float32]:
    """[H, W, 3] -> [3, H, W], contiguous (cv2.split takes twenty times as long)."""
    return np.ascontiguousarray(np.moveaxis(image, 2, 0))


def _merged(planes: list[Plane]) -> FloatImage:
    """Planes [H, W] to one image [H, W, 3]."""
    return np.asarray(cv2.merge(planes), dtype=np.float32)


def _blurred(image: FloatImage, sigma: float) -> FloatImage:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float32)


def _shaded(image: FloatImage, field: Plane) -> FloatImage:
    """The image times a field [H, W]; merged first, as broadcasting over 3 channels is slow."""
    return image * _merged([field] * 3)


def _smooth_field(shape: tuple[int, ...], rng: np.random.Generator) -> Plane:
    """A smooth random field [H, W] in [-1, 1] that changes over about a third of the page."""
    knots = rng.uniform(-1.0, 1.0, (4, 4)).astype(np.float32)
    field = cv2.resize(knots, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(field, dtype=np.float32)
