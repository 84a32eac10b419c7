"""Photographs for synthetic pages: random parts of scikit-image's sample pictures.

Only files that lie in scikit-image's wheel are used, so nothing is downloaded.
"""

from functools import lru_cache
from importlib import resources
from pathlib import Path

import cv2
import numpy as np

from kbdenoise.imaging.files import FloatImage, read_image
from kbdenoise.imaging.luma import luma
from kbdenoise.imaging.magazine.house import ACCENTS

PHOTOGRAPHS = {
    "astronaut.png": "Eileen Collins, NASA; no known copyright restrictions, public domain",
    "chelsea.png": "Chelsea the cat, Stefan van der Walt; CC0",
    "coffee.png": "a cup of coffee, Rachel Michetti, Pikolo Espresso Bar; CC0",
    "rocket.jpg": "launch of DSCOVR, SpaceX; public domain",
    "hubble_deep_field.jpg": "Hubble eXtreme Deep Field, NASA; public domain",
    "retina.jpg": "fundus of an eye, Mikael Häggström; CC0 1.0",
    "camera.png": "a photographer, Lav Varshney; CC0",
    "brick.png": "a brick wall, CC0Textures; CC0",
    "grass.png": "grass, linolafett on DeviantArt; CC0",
    "gravel.png": "gravel, CC0Textures; CC0",
    "coins.png": "Greek coins from Pompeii, Brooklyn Museum; no known copyright restrictions",
    "clock_motion.png": "a wall clock, Stefan van der Walt; public domain",
}
"""Files of scikit-image's wheel and the notes that scikit-image gives on them."""


def photograph(name: str, *, width: int, height: int, rng: np.random.Generator) -> FloatImage:
    """A random part of a photograph, float32 RGB [height, width, 3] in [0, 1].

    `name` is a key of PHOTOGRAPHS; where scikit-image comes without that file, a smooth gradient
    stands in.
    """
    path = _photograph_folder() / name
    if not path.is_file():
        corners = rng.uniform(0.05, 0.95, (2, 2, 3)).astype(np.float32)
        return _resized(corners, width, height, method=cv2.INTER_LINEAR)
    source = _read_photograph(path)
    fit = min(source.shape[0] / height, source.shape[1] / width)
    scale = fit if fit < 1 else rng.uniform(max(1.0, 0.5 * fit), fit)
    part_height, part_width = int(height * scale), int(width * scale)
    y = int(rng.integers(source.shape[0] - part_height + 1))
    x = int(rng.integers(source.shape[1] - part_width + 1))
    part = source[y : y + part_height, x : x + part_width]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return _graded(_resized(part, width, height, method=method), rng)


def _graded(image: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Colour grading: gamma, saturation, and for gray pictures at times a duotone."""
    gamma = rng.uniform(0.75, 1.3)
    bright = np.asarray(cv2.pow(np.clip(image, 0.0, 1.0), gamma), dtype=np.float32)
    gray = luma(bright)[..., None]  # [h, w, 3] -> [h, w, 1]
    is_gray = float(np.abs(bright - gray).max()) < 0.01
    if is_gray and rng.random() < 0.6:
        dark = np.array(ACCENTS[int(rng.integers(len(ACCENTS)))], dtype=np.float32) * 0.35
        return dark + (1.0 - dark) * gray
    saturation = np.float32(rng.uniform(0.8, 1.25))
    return np.clip(gray + (bright - gray) * saturation, 0.0, 1.0)


@lru_cache(maxsize=16)
def _read_photograph(path: Path) -> FloatImage:
    return read_image(path, channels=3)


def _resized(image: FloatImage, width: int, height: int, *, method: int) -> FloatImage:
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.float32)


@lru_cache(maxsize=1)
def _photograph_folder() -> Path:
    return Path(str(resources.files("skimage") / "data"))
