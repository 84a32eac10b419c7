"""What `--loss` can hold: names of losses, weighted and added up, as in 'l1 + 0.5*mean-luma'.

Nothing here imports torch. How a loss is computed stands in `kbdenoise/training`; a new one is a
function and a line of LOSSES in its `losses.py`, and a line of LOSS_TERMS here.
"""

import re
from dataclasses import dataclass

from kbdenoise.errors import SettingsError, nearest

ADVERSARIAL, PERCEPTUAL = "adversarial", "perceptual"

LOSS_TERMS: dict[str, str] = {
    "charbonnier": "A smooth `l1`.",
    "fft": "Mean absolute error of the Fourier transforms: texture and periodic patterns.",
    "gradient": "A smooth `l1` of the differences between neighbouring pixels: edges.",
    "huber": "Squared below 2.5 grey levels, absolute above.",
    "l1": "Mean absolute error.",
    "mean-luma": "Absolute difference of mean luma, in 0..1: the score of `mae-mean-luma`.",
    "ms-ssim": "1 - MS-SSIM: `ssim` at up to five scales, as many as the patch has room for.",
    "mse": "Mean squared error.",
    "psnr": "Logarithm of the mean squared error of each clipped patch.",
    "ssim": "1 - SSIM, the structural similarity.",
    PERCEPTUAL: "`l1` of VGG features; needs `--perceptual-weights`.",
    ADVERSARIAL: "How well a discriminator tells restored from clean; beside another loss only.",
}

_LEAST_WEIGHT, _MOST_WEIGHT = 1e-9, 1e9  # well inside float32, in which terms are added up
_HINT = "write a name, or a sum such as 'l1 + 0.5*mean-luma + 1e-2*fft'"
_PLUS = re.compile(r"(?<![0-9.][eE])\+")  # not the one of 1e+2
_NAME = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True, slots=True)
class Term:
    """A loss by name, and what it is multiplied by in the sum."""

    weight: float
    name: str


def parse_loss(text: str) -> tuple[Term, ...]:
    """The terms of a training loss such as `l1 + 0.5*mean-luma`, in the order written.

    A weight stands before or behind its name and is 1 where there is none. Raises SettingsError
    where the text cannot be read, and for unknown or repeated names, weights that are not positive
    numbers, and a sum in which only the discriminator speaks.
    """
    if not text.strip():
        raise SettingsError("--loss is empty, so nothing would be learned", hint=_HINT)
    terms = tuple(_term(part.strip(), text=text) for part in _PLUS.split(text))
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"--loss {text!r} names {name} twice", hint="name it once, with the sum of weights"
            )
    if names == [ADVERSARIAL]:
        raise SettingsError(
            f"--loss {text!r} does not compare with the clean picture at all",
            hint=f"add a loss that does, as in '{ADVERSARIAL} + 100*l1'",
        )
    return terms


def _term(part: str, *, text: str) -> Term:
    """One summand: `name`, `weight*name` or `name*weight`."""
    factors = [factor.strip() for factor in part.split("*")]
    numbers = [value for value in map(_number, factors) if value is not None]
    words = [factor for factor in factors if _number(factor) is None]
    if len(words) != 1 or len(numbers) > 1 or not _NAME.fullmatch(words[0]):
        raise SettingsError(f"--loss {text!r} cannot be read at {part!r}", hint=_HINT)
    (name,) = words
    if name not in LOSS_TERMS:
        hint = nearest(name.lower(), LOSS_TERMS)
        raise SettingsError(f"--loss {text!r}: no loss is called '{name}'", hint=hint)
    weight = numbers[0] if numbers else 1.0
    if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise SettingsError(
            f"--loss {text!r}: the weight {weight:g} of {name} is not a number from "
            f"{_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g}",
            hint="weights are positive; leave a loss out to have nothing of it",
        )
    return Term(weight, name)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
