"""Which pictures are held out: whole groups only, drawn by seed, the same on every machine.

Crops of one page, copies of one clean text or frames of one scene belong to one group. A split
that tore a group apart would score a model on what it has seen.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from kbdenoise.contests.contest import CONTEST_FILE, Contest
from kbdenoise.data.pairs import Pair, natural
from kbdenoise.errors import DataError, SettingsError, nearest

# NoisyOffice numbers its pages so that the remainder by three tells the part: TR and VA carry two
# different texts, and the pages of TE are the test set of denoising-dirty-documents.
_NOISYOFFICE_PARTS = {0: "VA", 1: "TE", 2: "TR"}


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of pictures, ascending; together they are all pictures, and none is in both."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]


def group_names(
    pairs: Sequence[Pair], *, contest: Contest, clean_checksums: Sequence[str]
) -> list[str]:
    """The group of every pair, by the contest's `group_by`; `clean_checksums` run along `pairs`.

    Raises DataError naming a stem that the rule does not fit.
    """
    if contest.group_by == "clean-picture":
        return _by_clean_picture(pairs, clean_checksums)
    if contest.group_by == "noisyoffice-text":
        return [_noisyoffice_part(pair.stem) for pair in pairs]
    return [_by_pattern(pair.stem, contest.group_pattern) for pair in pairs]


def split_groups(
    groups: Sequence[str], *, folds: int, fold: int, seed: int, holdout: Sequence[str] = ()
) -> Split:
    """Hold out fold number `fold` of `folds`; `groups` names the group of every picture.

    The folds are as equal in pictures as whole groups allow, and depend on the names and the seed
    only, not on the order of `groups`. With `holdout`, fold 0 is exactly those groups, and the
    folds 1 to `folds - 1` divide the others among themselves; so the folds still hold every picture
    exactly once. Raises SettingsError for a fold that cannot exist.
    """
    if not 0 <= fold < folds:
        raise SettingsError(
            f"--fold {fold} does not exist: --folds {folds} are numbered 0 to {folds - 1}"
        )
    sizes = Counter(groups)
    if holdout and fold == 0:
        held_out = _checked_holdout(sizes, holdout)
    elif holdout:
        others = {g: n for g, n in sizes.items() if g not in _checked_holdout(sizes, holdout)}
        held_out = _drawn(others, folds=folds - 1, seed=seed, reserved=1)[fold - 1]
    else:
        held_out = _drawn(sizes, folds=folds, seed=seed, reserved=0)[fold]
    return Split(
        train=tuple(i for i, group in enumerate(groups) if group not in held_out),
        held_out=tuple(i for i, group in enumerate(groups) if group in held_out),
    )


def evenly(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """`count` of the items, evenly spread; all of them for 0 or more than there are."""
    if not count or count >= len(items):
        return tuple(items)
    return tuple(items[i * len(items) // count] for i in range(count))


def _by_pattern(stem: str, pattern: str) -> str:
    match = re.fullmatch(pattern, stem)
    if match is None or match[1] is None:
        raise DataError(
            f"the picture '{stem}' does not match the contest's group_pattern {pattern!r}",
            hint=f"mend group_pattern in {CONTEST_FILE}; '(.+)' makes every picture its own group",
        )
    return match[1]


def _by_clean_picture(pairs: Sequence[Pair], checksums: Sequence[str]) -> list[str]:
    members: dict[str, list[str]] = {}
    for pair, checksum in zip(pairs, checksums, strict=True):
        members.setdefault(checksum, []).append(pair.stem)
    names = {checksum: natural(stems)[0] for checksum, stems in members.items()}
    return [names[checksum] for checksum in checksums]


def _noisyoffice_part(stem: str) -> str:
    if not re.fullmatch(r"[0-9]+", stem):
        raise DataError(
            f"the picture '{stem}' is not numbered as NoisyOffice's pages are",
            hint=f'remove it, or set group_by = "clean-picture" in {CONTEST_FILE}',
        )
    return _NOISYOFFICE_PARTS[int(stem) % 3]


def _checked_holdout(sizes: Counter[str], holdout: Sequence[str]) -> set[str]:
    for name in holdout:
        if name not in sizes:
            raise SettingsError(
                f"the contest holds out the group '{name}', but no picture is in it",
                hint=nearest(name, sizes) if len(sizes) <= 20 else f"mend it in {CONTEST_FILE}",
            )
    if len(set(holdout)) == len(sizes):
        raise SettingsError(
            "the contest holds out every group, so that nothing is left to train on",
            hint=f"shorten holdout in {CONTEST_FILE}",
        )
    return set(holdout)


def _drawn(sizes: dict[str, int], *, folds: int, seed: int, reserved: int) -> list[set[str]]:
    """Divide groups into folds: the largest first, each into the emptiest fold.

    Ties are broken by a checksum of seed and name rather than by a random generator, whose stream
    may change between releases of numpy.
    """
    _check_enough(len(sizes), folds=folds, reserved=reserved)

    def lot(name: str) -> bytes:
        return blake2b(f"{seed}/{name}".encode()).digest()

    labels = sorted(range(folds), key=lambda label: lot(f"fold {label}"))
    parts: list[set[str]] = [set() for _ in range(folds)]
    filled = [0] * folds
    for name in sorted(sizes, key=lambda name: (-sizes[name], lot(name), name)):
        label = min(labels, key=lambda label: filled[label])
        parts[label].add(name)
        filled[label] += sizes[name]
    return parts


def _check_enough(groups: int, *, folds: int, reserved: int) -> None:
    if reserved and groups < folds:
        raise SettingsError(
            f"besides the contest's own hold-out there are {groups} groups, too few for the other "
            f"{folds} of --folds {folds + reserved}",
            hint=f"use --fold 0 (the contest's hold-out), or --folds {groups + reserved}",
        )
    if groups < 2 and not reserved:
        raise SettingsError(
            "all pictures are in one group, so that none can be held out for validation"
            if groups
            else "there are no pictures to hold out",
            hint=f'if they are independent of each other, set group_by = "pattern" and '
            f'group_pattern = "(.+)" in {CONTEST_FILE}; otherwise add pictures of another group',
        )
    if folds < 2 and not reserved:
        raise SettingsError(
            "--folds 1 would hold out every picture and leave none to train on",
            hint=f"use --folds 2 up to {groups}",
        )
    if groups < folds:
        raise SettingsError(
            f"--folds {folds} needs as many groups of pictures, but there are {groups}",
            hint=f"use --folds {groups} or fewer",
        )
