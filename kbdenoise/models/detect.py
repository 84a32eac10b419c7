"""Recognise a model, and every number it was built with, from the shapes of its tensors.

The way in for weights that say nothing about themselves, such as the authors' own checkpoints.
Every model's file knows its own tensors; here they are only asked in turn, with the prefixes that
training codes leave before all names taken off one by one.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache

from kbdenoise.errors import DataError, KbdenoiseError
from kbdenoise.models.build import build_model
from kbdenoise.models.spec import Recognised, State
from kbdenoise.models.zoo import MODELS, find_model

_STAGED = "restorer."  # names of a restorer's tensors behind a tone stage begin so
_PREFIXES = ("_orig_mod.", "module.", "netG.", "generator.", "model.", "net.", "network.")
_NETWORKS = ("netG.", "generator.", "model.", "net.", "network.")  # beside losses and critics
_MOST_PREFIXES = 5  # before one another
_LEAST_LIKENESS = 0.3  # share of names in common from which a model is worth naming


def detect(state: State) -> tuple[str, Recognised]:
    """Which model named tensors belong to, and how it was built.

    Names are taken as they are first, then without the prefixes that all of them share, so that
    a model whose own names begin like a prefix is found too. Raises DataError when the tensors
    belong to no known model, or contradict each other.
    """
    contradiction = None
    for candidate in _peelings(state):
        try:
            found = _recognised(candidate)
        except DataError as error:
            contradiction = contradiction or error
            continue
        if found is not None:
            return found
    raise contradiction or _unknown(state)


def few(names: Collection[str], *, most: int = 3) -> str:
    """The first of some names, and how many more there are: 'a, b, c and 4 more'."""
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def _recognised(state: State) -> tuple[str, Recognised] | None:
    for name in _candidates(state):
        try:
            recognised = find_model(name).architecture().recognise(state)
        except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"the tensors look like {name}, but do not fit together ({reason})",
                hint="the file may be cut short or come from a changed network",
            ) from error
        if recognised is not None:
            return name, recognised
    return None


def _candidates(state: State) -> list[str]:
    staged = any(name.startswith(_STAGED) for name in state)
    return [f"tone+{name}" for name in MODELS if name != "tone"] if staged else list(MODELS)


def _peelings(state: State) -> Iterator[State]:
    """The tensors as named, then with one shared prefix less at a time, then single networks."""
    yield state
    yield from _without_shared_prefixes(state)
    for prefix in _NETWORKS:
        part = _below(state, prefix)
        if 0 < len(part) < len(state):
            yield part
            yield from _without_shared_prefixes(part)


def _without_shared_prefixes(state: State) -> Iterator[State]:
    for _ in range(_MOST_PREFIXES):
        peeled = next(
            (p for p in (_below(state, x) for x in _PREFIXES) if len(p) == len(state)), {}
        )
        if not peeled:
            return
        state = peeled
        yield state


def _below(state: State, prefix: str) -> State:
    return {
        name[len(prefix) :]: tensor
        for name, tensor in state.items()
        if name.startswith(prefix) and name != prefix
    }


def _unknown(state: State) -> DataError:
    """Name the model whose tensors are called most alike, and what it has more or less."""
    best = max(_peelings(state), key=lambda candidate: _likeness(candidate)[0])
    likeness, name, theirs = _likeness(best)
    if likeness < _LEAST_LIKENESS:
        return DataError(
            f"cannot tell which model these weights belong to; their first tensors are: "
            f"{few(list(state), most=4)}",
            hint="known are " + ", ".join(MODELS),
        )
    mine = _patterns(best)
    missing = [tensor for pattern, tensor in theirs.items() if pattern not in mine]
    extra = [tensor for pattern, tensor in mine.items() if pattern not in theirs]
    differences = [f"missing: {few(missing)}"] if missing else []
    differences += [f"unknown: {few(extra)}"] if extra else []
    if not differences:  # names alike, numbers not
        differences = ["some tensors are missing, too many, or of another shape"]
    return DataError(
        f"these weights are of no known model; the nearest is {name}"
        + "".join(f"; {difference}" for difference in differences),
        hint=f"the file may be cut short or come from a changed {name}",
    )


def _likeness(state: State) -> tuple[float, str, dict[str, str]]:
    """Share of names in common with the nearest model, its name, and its patterns of names."""
    mine = _patterns(state)
    nearest: tuple[float, str, dict[str, str]] = (0.0, "", {})
    for name in _candidates(state):
        for theirs in _variants(name):
            likeness = len(mine.keys() & theirs) / len(mine.keys() | theirs)
            nearest = max(nearest, (likeness, name, theirs), key=lambda found: found[0])
    return nearest


@cache
def _variants(name: str) -> tuple[dict[str, str], ...]:
    """The patterns of names of a model, once for each of its sizes that differs in kind."""
    from kbdenoise.models.blank import on_meta

    kinds: list[dict[str, str | bool]] = []
    for size in find_model(name).sizes.values():
        kind = {key: value for key, value in size.items() if isinstance(value, str | bool)}
        kinds += [kind] if kind not in kinds else []
    variants = []
    for kind in kinds:
        with on_meta(), suppress(KbdenoiseError):  # a kind may not suit default counts
            names = build_model(name, channels=3, **kind).state_dict()
            variants.append(_patterns(names))
    return tuple(variants)


def _patterns(names: Iterable[str]) -> dict[str, str]:
    """Names without their numbers, as 'encoders.#.#.w', and the first name of each pattern."""
    patterns: dict[str, str] = {}
    for name in names:
        patterns.setdefault(re.sub(r"\d+", "#", name), name)
    return patterns
