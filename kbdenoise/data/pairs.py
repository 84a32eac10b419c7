"""Which noisy picture belongs to which clean one: by the stem of its name, never by position.

A stem is the file name without its last suffix (inner dots are kept) and without the ending that
the contest declares (`page7_noisy.png` with `page7_clean.png`). Nothing is guessed: what has no
partner, or could have two, is reported.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kbdenoise.contests.contest import CONTEST_FILE, LocalContest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import SUFFIXES, list_images

SKIP_FILE = "skip.txt"
_NAMED = 3  # how many names an error lists before it only counts


@dataclass(frozen=True, slots=True)
class Pair:
    """A degraded picture and its truth."""

    stem: str
    """The name that both share, without endings and suffix."""
    noisy: Path
    clean: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Everything that lies in a contest's two training folders, sorted naturally."""

    pairs: tuple[Pair, ...]
    noisy_orphans: tuple[Path, ...]
    """Noisy pictures without a clean partner."""
    clean_orphans: tuple[Path, ...]
    duplicates: tuple[tuple[Path, ...], ...]
    """Files of one folder whose stems are equal, or differ in case only; they are not paired."""
    skipped: tuple[Path, ...]
    """Files that skip.txt leaves out."""
    ignored: tuple[Path, ...]
    """Files of a folder shared by both sides whose names have neither ending."""


def find_pairs(local: LocalContest) -> list[Pair]:
    """The training pairs of a contest, sorted naturally by stem.

    Raises DataError for a folder that is missing, unreadable or empty, for files without a partner
    and for stems that occur twice.
    """
    pairing = pair_folders(local)
    cure = f"or list them in {local.folder / SKIP_FILE}, one name a line"
    _check_not_empty(pairing, local)
    if pairing.duplicates:
        first = " and ".join(path.name for path in pairing.duplicates[0])
        folder = pairing.duplicates[0][0].parent
        count = len(pairing.duplicates)
        raise DataError(
            f"{first} in {folder} have the same stem"
            + (f", and so have {count - 1} more groups of files" if count > 1 else ""),
            hint=f"keep one of each, {cure}",
        )
    if pairing.noisy_orphans or pairing.clean_orphans:
        told = _orphans_in_words(pairing.noisy_orphans, local.clean)
        told += _orphans_in_words(pairing.clean_orphans, local.noisy)
        raise DataError("; ".join(told), hint=_orphan_hint(pairing, local, cure))
    if not pairing.pairs:
        raise DataError(
            f"{local.folder / SKIP_FILE} leaves out all {len(pairing.skipped)} pictures",
            hint="remove some of its lines",
        )
    return list(pairing.pairs)


def pair_folders(local: LocalContest) -> Pairing:
    """Match the two training folders of a contest and report what does not match.

    Raises DataError only for a folder that is missing or unreadable, and SettingsError when both
    sides would be the same files.
    """
    noisy_ending, clean_ending = local.contest.noisy_ending, local.contest.clean_ending
    shared = _same_folder(local.noisy, local.clean)
    if shared and noisy_ending == clean_ending:
        raise SettingsError(
            f"the noisy and the clean pictures are the same files: those in {local.noisy}",
            hint=f"set noisy and clean, or noisy_ending and clean_ending, in "
            f"{local.folder / CONTEST_FILE}",
        )
    if shared:
        noisy_files, clean_files, ignored = _divide(local.noisy, noisy_ending, clean_ending)
    else:
        noisy_files, clean_files, ignored = list_images(local.noisy), list_images(local.clean), []
    skips = read_skips(local.folder / SKIP_FILE)
    noisy, noisy_twice, noisy_out = _by_stem(noisy_files, noisy_ending, skips)
    clean, clean_twice, clean_out = _by_stem(clean_files, clean_ending, skips)
    contested = {key.casefold() for key in (*noisy_twice, *clean_twice)}
    return Pairing(
        pairs=tuple(
            Pair(stem, noisy[stem], clean[stem]) for stem in natural(noisy.keys() & clean.keys())
        ),
        noisy_orphans=_orphans(noisy, partners=clean, contested=contested),
        clean_orphans=_orphans(clean, partners=noisy, contested=contested),
        duplicates=(*noisy_twice.values(), *clean_twice.values()),
        skipped=(*noisy_out, *clean_out),
        ignored=tuple(ignored),
    )


def read_skips(path: Path) -> frozenset[str]:
    """The names or stems listed in a skip.txt, one a line, `#` beginning a comment.

    A missing file lists nothing. Raises DataError if it cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path} as text: {error}", hint="save it as UTF-8, one name a line"
        ) from error
    names = (re.split(r"(?:^|\s)#", line)[0].strip() for line in lines)
    return frozenset(_composed(name) for name in names if name)


def natural(names: Iterable[str]) -> list[str]:
    """Names sorted as a person would: page2 before page10; the same on every system."""

    def key(name: str) -> tuple[list[str | int], str]:
        parts = re.split(r"([0-9]+)", name)  # text and numbers take turns, text first
        return [int(part) if i % 2 else part for i, part in enumerate(parts)], name

    return sorted(names, key=key)


def _same_folder(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()


def _divide(
    folder: Path, noisy_ending: str, clean_ending: str
) -> tuple[list[Path], list[Path], list[Path]]:
    """Divide one folder's files by their ending; where both fit, the longer one counts."""
    sides: dict[str, list[Path]] = {noisy_ending: [], clean_ending: []}
    ignored = []
    for path in list_images(folder):
        for ending in sorted(sides, key=len, reverse=True):
            if path.stem.endswith(ending):
                sides[ending].append(path)
                break
        else:
            ignored.append(path)
    return sides[noisy_ending], sides[clean_ending], ignored


def _by_stem(
    files: Iterable[Path], ending: str, skips: frozenset[str]
) -> tuple[dict[str, Path], dict[str, tuple[Path, ...]], list[Path]]:
    """Files by stem, those whose stems collide, and those left out."""
    skipped, same = [], defaultdict(list)
    for path in files:
        stem = _composed(path.stem).removesuffix(_composed(ending))
        if skips & {stem, _composed(path.stem), _composed(path.name)}:
            skipped.append(path)
        else:
            same[stem.casefold()].append((stem, path))
    single = {found[0][0]: found[0][1] for found in same.values() if len(found) == 1}
    twice = {key: tuple(path for _, path in f) for key, f in same.items() if len(f) > 1}
    return single, {key: twice[key] for key in natural(twice)}, skipped


def _composed(name: str) -> str:
    """One spelling for accented letters: macOS may store them in two characters."""
    return unicodedata.normalize("NFC", name)


def _orphans(
    files: Mapping[str, Path], *, partners: Mapping[str, Path], contested: set[str]
) -> tuple[Path, ...]:
    alone = [stem for stem in files if stem not in partners and stem.casefold() not in contested]
    return tuple(files[stem] for stem in natural(alone))


def _check_not_empty(pairing: Pairing, local: LocalContest) -> None:
    found = (*pairing.pairs, *pairing.noisy_orphans, *pairing.clean_orphans)
    if found or pairing.duplicates or pairing.skipped:
        return
    where = f"{local.noisy}" + ("" if local.noisy == local.clean else f" and {local.clean}")
    if pairing.ignored:
        raise DataError(
            f"none of the {len(pairing.ignored)} pictures in {where} has the ending "
            f"'{local.contest.noisy_ending}' or '{local.contest.clean_ending}'",
            hint=f"mend noisy_ending and clean_ending in {local.folder / CONTEST_FILE}",
        )
    raise DataError(
        f"there are no pictures in {where}",
        hint=f"run `kbdenoise fetch` again, or mend noisy and clean in "
        f"{local.folder / CONTEST_FILE}; known suffixes: {' '.join(SUFFIXES)}",
    )


def _orphans_in_words(orphans: Sequence[Path], other: Path) -> list[str]:
    if not orphans:
        return []
    names = ", ".join(path.name for path in orphans[:_NAMED])
    more = f" and {len(orphans) - _NAMED} more" if len(orphans) > _NAMED else ""
    verb = "has no partner" if len(orphans) == 1 else "have no partners"
    return [f"{names}{more} in {orphans[0].parent} {verb} in {other}"]


def _orphan_hint(pairing: Pairing, local: LocalContest, cure: str) -> str:
    if pairing.noisy_orphans and pairing.clean_orphans and not pairing.pairs:
        return (
            "no name matches at all; if partners differ by an ending (page7_noisy, page7_clean), "
            f"set noisy_ending and clean_ending in {local.folder / CONTEST_FILE}"
        )
    return f"add the missing files, remove the lone ones, {cure}"
