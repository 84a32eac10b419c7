"""A contest's pairs as training takes them: decoded, and split by whole groups."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.splits import Split, evenly, group_names, split_groups
from kbdenoise.data.store import Store, open_store
from kbdenoise.imaging.files import to_float
from kbdenoise.imaging.metrics import Metric, metric
from kbdenoise.progress import Fact, Progress, counting
from kbdenoise.runs.folder import Run, write_json

_USUAL_PARTS = 10  # without --folds, one of so many parts is held out; fewer for fewer groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A contest's pairs, decoded and split."""

    local: LocalContest
    store: Store
    split: Split
    groups: tuple[str, ...]
    metric: Metric


def open_pairs(local: LocalContest, config: TrainConfig, progress: Progress) -> Pairs:
    """Find and decode the contest's pairs and draw the split. Raises DataError, SettingsError."""
    contest = local.contest
    pairs = find_pairs(local)
    store = open_store(
        local, pairs, channels=contest.channels, progress=counting(progress, "read pictures")
    )
    groups = group_names(pairs, contest=contest, clean_checksums=store.clean_checksums)
    return Pairs(
        local=local,
        store=store,
        split=_split(groups, config, local),
        groups=tuple(groups),
        metric=metric(contest.metric),
    )


def split_anew(pairs: Pairs, config: TrainConfig) -> Pairs:
    """The same pairs, split as other settings ask for."""
    return replace(pairs, split=_split(pairs.groups, config, pairs.local))


def _split(groups: Sequence[str], config: TrainConfig, local: LocalContest) -> Split:
    return split_groups(
        groups,
        folds=parts_of(groups, config),
        fold=max(0, config.data.fold),
        seed=config.data.seed,
        holdout=local.contest.holdout,
    )


def parts_of(groups: Sequence[str], config: TrainConfig) -> int:
    """How many parts the pictures are divided into, of which one is held out."""
    return config.data.folds or max(2, min(_USUAL_PARTS, len(set(groups))))


def data_fact(pairs: Pairs, config: TrainConfig) -> Fact:
    """How many pairs there are, and which are held out."""
    split = pairs.split
    fold = f"fold {max(0, config.data.fold)} of {parts_of(pairs.groups, config)}"
    if pairs.local.contest.holdout and config.data.fold <= 0:
        fold = "groups " + ", ".join(pairs.local.contest.holdout)
    held_out_groups = len({pairs.groups[i] for i in split.held_out})
    return Fact(
        label="data",
        text=f"{pairs.local.contest.slug}: {len(split.train):,} pairs for training, "
        f"{len(split.held_out):,} held out ({fold}, {held_out_groups:,} whole groups)",
    )


def write_split(run: Run, pairs: Pairs) -> None:
    """Write which pictures are trained on, which are held out, and their groups."""
    split, stems = pairs.split, pairs.store.stems
    write_json(
        run.split_file,
        {
            "train": [stems[i] for i in split.train],
            "held_out": [stems[i] for i in split.held_out],
            "groups": dict(zip(stems, pairs.groups, strict=True)),
        },
    )


def untouched_score(pairs: Pairs, *, count: int = 0) -> float:
    """What the held-out pictures score as they are; `count` as in `evenly`."""
    store, chosen = pairs.store, pairs.metric
    scores, sizes = [], []
    for i in evenly(pairs.split.held_out, count):
        noisy, clean = to_float(store.noisy(i)), to_float(store.clean(i))
        scores.append(chosen.score(noisy, clean))
        sizes.append(clean.size)
    return chosen.pool(scores, sizes)
