"""Small helpers with which a model's file reads hyper-parameters off the names of tensors."""

from collections.abc import Collection
from fractions import Fraction
from itertools import count
from math import ceil, isqrt
from typing import TYPE_CHECKING

from kbdenoise.models.spec import State

if TYPE_CHECKING:
    from torch import Tensor


def has_all(state: State, *names: str) -> bool:
    """Whether every one of `names` is among the tensors."""
    return all(name in state for name in names)


def numbered(state: State, pattern: str) -> "list[Tensor]":
    """The tensors `pattern.format(0)`, `pattern.format(1)`, ... up to the first that is missing."""
    return [state[pattern.format(i)] for i in range(length(state, pattern))]


def length(state: State, pattern: str) -> int:
    """How many tensors `pattern.format(0)`, `pattern.format(1)`, ... there are without a gap."""
    return next(i for i in count() if pattern.format(i) not in state)


def shortest_scale(widenings: Collection[tuple[int, int]]) -> float:
    """The shortest decimal s with `int(s * c) == hidden` for every pair (c, hidden).

    A ratio would not do: int() loses digits, so that 127 / 48 is not the 2.66 that gave the 127.
    Raises ValueError when there is no such number.
    """
    least = max(Fraction(hidden, c) for c, hidden in widenings)
    for digits in range(17):
        first = ceil(least * 10**digits)
        for numerator in (first, first + 1):  # the first may fall short as a binary number
            scale = float(Fraction(numerator, 10**digits))
            if all(int(scale * c) == hidden for c, hidden in widenings):
                return scale
    raise ValueError("its blocks do not share one ffn_scale")


def basis_shape(bases: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Channels a group and side of the kernel, from the channels and values of kernel bases.

    A pair is (c, c * gc * k * k) with gc a divisor of c and k odd. Where several splits fit, which
    takes a c with the square of an odd number as a factor, the widest kernel is taken.
    Raises ValueError when none fits all pairs.
    """
    values = {Fraction(total, c) for c, total in bases}
    if len(values) != 1:
        raise ValueError("the kernel bases of its blocks differ in more than their channels")
    value = values.pop()
    fitting = [
        k
        for k in range(1, isqrt(value.numerator) + 1, 2)
        if value % k**2 == 0 and not any(c % (value / k**2) for c, _ in bases)
    ]
    if not fitting:
        raise ValueError(f"{value} weights a channel are no kernel basis")
    kernel = max(fitting)
    return int(value / kernel**2), kernel
