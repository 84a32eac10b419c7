"""Which folder holds the noisy pictures, which the clean ones: told by their names, never guessed.

Words in the names of folders (`train/scan`, `train_cleaned`) or at the ends of file names
(`wall_1_real.jpg`, `wall_1_mean.jpg`) decide the roles, and the stems must match. What these do not
decide is an error that shows what was found and asks for a contest.toml.
"""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from kbdenoise.contests.contest import CONTEST_FILE, FORMAT_NAMES
from kbdenoise.contests.recognise import recognise
from kbdenoise.contests.samples import SAMPLE_NAME, find_sample, sampled_channels
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import SUFFIXES, list_images


def _table(words: str) -> frozenset[str]:
    return frozenset(words.split())


# The words that decide, in lower case. A name is cut into words at '_', '-', '.', digits and
# capitals: trainCleaned and train_cleaned are both "train", "cleaned".
CLEAN_WORDS = _table(
    "clean cleaned gt groundtruth truth target targets label labels high hq hr mean "
    "reference ref sharp"
)
NOISY_WORDS = _table(
    "noisy noised noise scan scans scanned input inputs source lq lr low degraded degradation "
    "dirty blur blurred blurry hazy rainy corrupted damaged raw"
)
# Words that take whichever role their partner leaves: train beside train_cleaned, images beside
# images_noisy, wall_real beside wall_mean.
PLAIN_WORDS = _table(
    "image images img imgs picture pictures photo photos page pages data original originals real"
)
SPLIT_WORDS: dict[str, frozenset[str]] = {
    "train": _table("train training trn"),
    "test": _table("test testing tst"),
    "valid": _table("val valid validation dev"),
}

_DEPTH = 4  # folders below the root that are looked into
_SEPARATORS = "_. -"
_TAIL = re.compile(rf"(.+)([{_SEPARATORS}][A-Za-z]+[0-9]*)")
_SHOWN = 12  # folders named in an error

Role = Literal["noisy", "clean", "", "unclear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the pictures of a contest lie; the fields are those of `Contest`."""

    noisy: str
    clean: str
    test: str = ""
    truth: str = ""
    noisy_ending: str = ""
    clean_ending: str = ""
    test_ending: str = ""
    channels: Literal[1, 3] = 3
    sample: str = ""
    format: str = "zip"
    submission: dict[str, Any] = field(default_factory=dict, hash=False)
    metric: str = "psnr"
    notes: tuple[str, ...] = ()
    """Sentences for the person: what was left out, what was assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFolder:
    """A folder that holds pictures."""

    path: str
    """Relative to the root, with '/'; '.' for the root itself."""
    stems: tuple[str, ...]
    role: Role = ""
    split: str = ""
    """'train', 'test', 'valid', or empty."""
    rest: tuple[str, ...] = ()
    """The words of the path that tell neither role nor split."""


def detect_layout(root: Path) -> Layout:
    """Recognise noisy and clean pictures, test pictures and a sample submission below `root`.

    Raises DataError, with an example of a contest.toml, when names do not decide the roles.
    """
    folders = picture_folders(root)
    found = _folder_pair(folders) or _pair_in_one_folder(folders)
    if found is None:
        raise _undecided(root, folders, "no folder names or file endings tell noisy from clean")
    if isinstance(found, str):
        raise _undecided(root, folders, found)
    layout = _with_test(found, folders)
    layout = replace(layout, channels=sampled_channels(root, (layout.noisy, layout.clean)))
    return _with_sample(root, layout)


def picture_folders(root: Path) -> list[PictureFolder]:
    """The folders below `root` (and itself) that hold pictures, with what their names tell."""
    found = [(path, tuple(p.stem for p in images)) for path, images in _walk(root) if images]
    if not found:
        return []
    base = PurePosixPath(os.path.commonpath([path.as_posix() for path, _ in found]))
    return [_named(path, stems, words_from=base) for path, stems in found]


def describe(folders: Sequence[PictureFolder]) -> str:
    """Picture folders in words: `train (144 pictures), test (36 pictures)`."""
    told = [f"{f.path} ({len(f.stems)} pictures)" for f in folders[:_SHOWN]]
    if len(folders) > _SHOWN:
        told.append(f"and {len(folders) - _SHOWN} more folders")
    return ", ".join(told) or "no pictures (known suffixes: " + " ".join(SUFFIXES) + ")"


def tells_something(name: str) -> bool:
    """Whether the name of a file or folder has a word for a role, a split, or a sample."""
    known = CLEAN_WORDS.union(NOISY_WORDS, *SPLIT_WORDS.values())
    return not known.isdisjoint(_words(name)) or bool(SAMPLE_NAME.search(name))


def _walk(root: Path, *, depth: int = _DEPTH) -> Iterator[tuple[PurePosixPath, list[Path]]]:
    """Every folder, the root first, with the pictures directly inside it."""
    queue = [(root, 0)]
    for folder, level in queue:
        yield PurePosixPath(folder.relative_to(root).as_posix()), list_images(folder)
        if level < depth:
            inner = [p for p in sorted(folder.iterdir()) if p.is_dir()]
            queue += [(p, level + 1) for p in inner if not p.name.startswith((".", "__"))]


def _words(name: str) -> list[str]:
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def _role(words: Collection[str]) -> Role:
    clean, noisy = not CLEAN_WORDS.isdisjoint(words), not NOISY_WORDS.isdisjoint(words)
    if clean and noisy:
        return "unclear"
    return "clean" if clean else "noisy" if noisy else ""


def _named(
    path: PurePosixPath, stems: tuple[str, ...], *, words_from: PurePosixPath
) -> PictureFolder:
    """Read role and split off a path; the deepest part that tells something counts."""
    role: Role = ""
    split, rest = "", []
    for part in path.relative_to(words_from).parts:
        words = _words(part)
        role = _role(words) or role
        split = next((s for s, w in SPLIT_WORDS.items() if not w.isdisjoint(words)), split)
        known = CLEAN_WORDS.union(NOISY_WORDS, *SPLIT_WORDS.values())
        rest += [w for w in words if w not in known]
    return PictureFolder(path=str(path), stems=stems, role=role, split=split, rest=tuple(rest))


def _decides(noisy: PictureFolder, clean: PictureFolder) -> int:
    """2 if both names tell their role, 1 if one does and the other is plain, else 0."""
    if (noisy.role, clean.role) == ("noisy", "clean"):
        return 2
    if (noisy.role, clean.role) == ("", "clean"):
        plain, named = noisy, clean
    elif (noisy.role, clean.role) == ("noisy", ""):
        plain, named = clean, noisy
    else:
        return 0
    return int(plain.rest == named.rest or PLAIN_WORDS.issuperset(plain.rest))


def _folder_pair(folders: list[PictureFolder]) -> Layout | str | None:
    """The two training folders; a sentence if several pairs fit equally; None if none does."""
    ranked: list[tuple[tuple[bool, int, bool], Layout]] = []
    for noisy in folders:
        for clean in folders:
            if noisy is clean or noisy.split != clean.split or noisy.split in ("test", "valid"):
                continue
            certainty = _decides(noisy, clean)
            endings = _endings(noisy.stems, clean.stems) if certainty else None
            if endings is not None:
                rank = (noisy.split == "train", certainty, noisy.rest == clean.rest)
                layout = Layout(
                    noisy=noisy.path,
                    clean=clean.path,
                    noisy_ending=endings[0],
                    clean_ending=endings[1],
                )
                ranked.append((rank, layout))
    top = max((rank for rank, _ in ranked), default=None)
    best = [layout for rank, layout in ranked if rank == top]
    # A second pair elsewhere makes it a folder of several data sets, none of which was named.
    return _the_only_one(best + [one for _, one in ranked if best and _apart(one, best[0])])


def _apart(one: Layout, other: Layout) -> bool:
    return {one.noisy, one.clean}.isdisjoint({other.noisy, other.clean})


def _the_only_one(layouts: list[Layout]) -> Layout | str | None:
    layouts = list(dict.fromkeys(layouts))
    if len(layouts) > 1:
        told = [
            f"{one.noisy}/*{one.noisy_ending} with {one.clean}/*{one.clean_ending}"
            for one in layouts[:3]
        ]
        return "several pairs could be meant: " + "; ".join(told)
    return layouts[0] if layouts else None


def _endings(noisy: Collection[str], clean: Collection[str]) -> tuple[str, str] | None:
    """The endings that make most stems match, shortest first; None if half of them do not."""
    best, most = None, (min(len(noisy), len(clean)) + 1) // 2 - 1
    for first in _common_endings(noisy):
        for second in _common_endings(clean):
            matches = len(_without(first, noisy) & _without(second, clean))
            if matches > most:
                best, most = (first, second), matches
    return best


def _common_endings(stems: Collection[str]) -> list[str]:
    """'' and the endings, from a separator on, that all stems share; short ones first."""
    first, *others = stems
    cuts = [i for i, letter in enumerate(first) if i and letter in _SEPARATORS]
    endings = [first[i:] for i in reversed(cuts)]
    return ["", *(e for e in endings if all(s != e and s.endswith(e) for s in others))]


def _without(ending: str, stems: Collection[str]) -> set[str]:
    return {stem.removesuffix(ending) for stem in stems if stem.endswith(ending)}


def _pair_in_one_folder(folders: list[PictureFolder]) -> Layout | str | None:
    """Noisy and clean pictures side by side, told by the endings of their stems."""
    found: list[tuple[int, Layout]] = []
    for folder in folders:
        if folder.split in ("test", "valid"):
            continue
        tails = {match[2] for stem in folder.stems if (match := _TAIL.fullmatch(stem))}
        sides = [_side(tail, folder.stems) for tail in sorted(tails)]
        named = [side for side in sides if side.role in ("noisy", "clean")]
        for side in named:
            bare = tuple(stem for stem in folder.stems if not stem.endswith(side.path))
            for other in (*sides, PictureFolder(path="", stems=bare)):
                found += _side_by_side(folder.path, side, other)
    best = max((certainty for certainty, _ in found), default=None)
    layouts = {layout for certainty, layout in found if certainty == best}
    return _the_only_one(sorted(layouts, key=str))


def _side(tail: str, stems: Collection[str]) -> PictureFolder:
    """The pictures of one ending, as if they lay in a folder of that name without it."""
    bare = tuple(sorted(_without(tail, stems)))
    return _named(PurePosixPath(tail), bare, words_from=PurePosixPath())


def _side_by_side(
    folder: str, side: PictureFolder, other: PictureFolder
) -> Iterator[tuple[int, Layout]]:
    """The layout of two endings that decide their roles and match, with its certainty."""
    noisy, clean = (side, other) if side.role == "noisy" else (other, side)
    certainty = _decides(noisy, clean)
    matches = len(set(noisy.stems).intersection(clean.stems)) if certainty else 0
    if matches and 2 * matches >= min(len(noisy.stems), len(clean.stems)):
        yield (
            certainty,
            Layout(noisy=folder, clean=folder, noisy_ending=noisy.path, clean_ending=clean.path),
        )


def _with_test(layout: Layout, folders: list[PictureFolder]) -> Layout:
    """Add the folder of test pictures, and that of their truths where there is one."""
    tests = [f for f in folders if f.split == "test" and f.role in ("noisy", "")]
    for wish in (lambda f: f.role == "noisy", lambda f: not f.rest):
        if len(tests) > 1:
            tests = [f for f in tests if wish(f)] or tests
    notes = [
        f"{f.path} was left out: folds are drawn from the training pairs"
        for f in folders
        if f.split == "valid"
    ]
    if len(tests) != 1:
        what = "several folders could be" if tests else "found no folder of"
        names = ", ".join(f.path for f in tests)
        notes.append(f"{what} test pictures{': ' + names if names else ''}")
        return replace(layout, notes=tuple(notes))
    test, ending = tests[0], layout.noisy_ending
    marked = ending and any(stem.endswith(ending) for stem in test.stems)
    test_stems = _without(ending if marked else "", test.stems)
    truths = [
        f.path
        for f in folders
        if f.split in ("test", "")
        and ((f.role == "clean" and f.path != layout.clean) or (f is test and marked))
        and test_stems == _without(layout.clean_ending, f.stems)
    ]
    return replace(
        layout,
        test=test.path,
        test_ending=ending if marked else "",
        truth=truths[0] if len(truths) == 1 else "",
        notes=tuple(notes),
    )


def _with_sample(root: Path, layout: Layout) -> Layout:
    """Add the sample submission and the format that it shows."""
    sample = find_sample(root)
    if not sample:
        return layout
    ending = layout.test_ending
    tests = list_images(root / layout.test) if layout.test else []
    found = recognise(root / sample, tests=[p for p in tests if p.stem.endswith(ending)])
    if found is None:
        note = (
            f'the format of {sample} is not known; format = "{layout.format}" is assumed: see '
            f"{CONTEST_FILE}, where format may be " + ", ".join(FORMAT_NAMES)
        )
        return replace(layout, sample=sample, notes=(*layout.notes, note))
    return replace(
        layout,
        sample=sample,
        format=found.format,
        submission=found.submission,
        metric=found.metric,
        notes=(*layout.notes, f"{sample} looks like {found}: see {CONTEST_FILE}"),
    )


def _undecided(root: Path, folders: list[PictureFolder], why: str) -> DataError:
    example = [
        'slug = "my-contest"',
        f"root = '{root.absolute()}'",
        'noisy = "FOLDER-OF-NOISY-PICTURES"',
        'clean = "FOLDER-OF-CLEAN-PICTURES"',
        'test = "FOLDER-OF-TEST-PICTURES"',
    ]
    return DataError(
        f"cannot tell noisy from clean pictures in {root}: {why}; found {describe(folders)}",
        hint=f"write a {CONTEST_FILE}, for example\n\n    "
        + "\n    ".join(example)
        + f"\n\nand run: kbdenoise fetch my-contest --from {CONTEST_FILE}",
    )
