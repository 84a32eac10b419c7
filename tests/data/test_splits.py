import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import data, integers, lists, permutations, sampled_from

from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.contests.contest import Contest
from kbdenoise.data.pairs import Pair
from kbdenoise.data.splits import group_names, split_groups
from kbdenoise.errors import DataError, SettingsError

GROUPS = lists(sampled_from("abcdefgh"), min_size=1, max_size=40)


def pairs_of(*stems: str) -> list[Pair]:
    return [Pair(stem, Path(f"noisy/{stem}.png"), Path(f"clean/{stem}.png")) for stem in stems]


def names(contest: Contest, *stems: str, checksums: tuple[str, ...] = ()) -> list[str]:
    return group_names(pairs_of(*stems), contest=contest, clean_checksums=checksums or stems)


@given(groups=GROUPS, seed=integers(0, 2**40), data=data())
def test_folds_hold_every_picture_once_and_tear_no_group(groups, seed, data):
    if len(set(groups)) < 2:
        return
    folds = data.draw(integers(2, len(set(groups))))

    splits = [split_groups(groups, folds=folds, fold=k, seed=seed) for k in range(folds)]

    assert sorted(i for s in splits for i in s.held_out) == list(range(len(groups)))
    for split in splits:
        assert sorted(split.train + split.held_out) == list(range(len(groups)))
        assert not {groups[i] for i in split.train} & {groups[i] for i in split.held_out}
        assert split.train and split.held_out


@given(groups=GROUPS, seed=integers(0, 99), data=data())
def test_folds_differ_by_no_more_than_the_largest_group(groups, seed, data):
    if len(set(groups)) < 2:
        return
    folds = data.draw(integers(2, len(set(groups))))

    sizes = [
        len(split_groups(groups, folds=folds, fold=k, seed=seed).held_out) for k in range(folds)
    ]

    assert max(sizes) - min(sizes) <= max(Counter(groups).values())


@pytest.mark.parametrize("seed", range(5))
def test_large_groups_are_balanced_by_many_small_ones(seed):
    groups = ["large"] * 6 + list("abcdef")

    split = split_groups(groups, folds=2, fold=0, seed=seed)

    assert len(split.held_out) == len(split.train) == 6


@given(order=permutations(list("aabbccddeeff")), seed=integers(0, 99))
def test_a_split_does_not_depend_on_the_order_of_pictures(order, seed):
    usual = split_groups(list("aabbccddeeff"), folds=3, fold=1, seed=seed)

    split = split_groups(order, folds=3, fold=1, seed=seed)

    assert {order[i] for i in split.held_out} == {"aabbccddeeff"[i] for i in usual.held_out}


def test_a_split_repeats_by_seed_and_changes_with_it():
    groups = [str(i) for i in range(50)]

    def held_out(seed: int) -> tuple[int, ...]:
        return split_groups(groups, folds=5, fold=0, seed=seed).held_out

    assert held_out(3) == held_out(3)
    assert len({held_out(seed) for seed in range(5)}) == 5


def test_a_split_is_the_same_on_every_machine():
    # Golden: runs name their fold and seed, and must mean the same pictures for ever.
    groups = [f"page{i}" for i in range(12)]

    split = split_groups(groups, folds=4, fold=0, seed=0)

    assert split.held_out == (1, 3, 11)


@pytest.mark.parametrize("folds", [1, 2, 3, 9])
def test_a_contests_own_holdout_is_fold_zero(folds):
    groups = ["TR", "VA", "TR", "VA", "TE"]

    split = split_groups(groups, folds=folds, fold=0, seed=0, holdout=("VA",))

    assert split.held_out == (1, 3)


@given(groups=GROUPS, seed=integers(0, 99), data=data())
def test_folds_beside_a_holdout_divide_the_other_groups(groups, seed, data):
    if len(set(groups)) < 2:
        return
    holdout = (groups[0],)
    folds = data.draw(integers(2, len(set(groups))))

    splits = [
        split_groups(groups, folds=folds, fold=k, seed=seed, holdout=holdout) for k in range(folds)
    ]

    assert {groups[i] for i in splits[0].held_out} == set(holdout)
    assert sorted(i for s in splits for i in s.held_out) == list(range(len(groups)))


@pytest.mark.parametrize(
    ("groups", "arguments", "said", "cure"),
    [
        ("abc", {"folds": 2, "fold": 2}, "--fold 2 does not exist", ""),
        ("abc", {"folds": 2, "fold": -1}, "--fold -1 does not exist", ""),
        ("abca", {"folds": 4, "fold": 0}, "--folds 4 needs as many groups", "--folds 3 or fewer"),
        ("aaa", {"folds": 2, "fold": 0}, "all pictures are in one group", "group_pattern"),
        ("", {"folds": 2, "fold": 0}, "no pictures", ""),
        ("abc", {"folds": 1, "fold": 0}, "leave none to train on", "--folds 2"),
        ("ab", {"folds": 2, "fold": 0, "holdout": ["c"]}, "group 'c'", "choose one of: a, b"),
        ("ab", {"folds": 2, "fold": 0, "holdout": ["a", "b"]}, "every group", "holdout"),
        ("ab", {"folds": 3, "fold": 1, "holdout": ["a"]}, "too few", "--fold 0"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(groups, arguments, said, cure):
    with pytest.raises(SettingsError) as caught:
        split_groups(list(groups), seed=0, **arguments)

    assert said in caught.value.message
    assert cure in caught.value.hint


@pytest.mark.parametrize(
    ("stem", "group"),
    [
        ("MagPi017.00031.02", "MagPi017.00031"),
        ("MagPi017.00031.01", "MagPi017.00031"),
        ("scanner03_156", "scanner03_156"),
    ],
)
def test_crops_of_one_page_share_their_group(stem, group):
    assert names(CONTESTS["khu-descan"], stem) == [group]


def test_a_stem_that_does_not_fit_the_pattern_is_named():
    contest = Contest(slug="x", group_pattern=r"(scene\d+)_\d+")

    with pytest.raises(DataError, match="'page7' does not match") as caught:
        names(contest, "scene1_2", "page7")

    assert "group_pattern" in caught.value.hint


def test_an_optional_group_that_took_no_part_is_refused():
    with pytest.raises(DataError, match="'page7'"):
        names(Contest(slug="x", group_pattern=r"(?:(scene\d+)|.*)"), "page7")


def test_pictures_with_one_truth_are_grouped_by_it():
    contest = Contest(slug="x", group_by="clean-picture")

    grouped = names(contest, "p10", "p2", "p3", checksums=("same", "same", "other"))

    assert grouped == ["p2", "p2", "p3"]


def test_noisyoffice_pages_are_told_by_their_number():
    contest = CONTESTS["denoising-dirty-documents"]

    assert names(contest, "2", "3", "4", "216") == ["TR", "VA", "TE", "VA"]
    with pytest.raises(DataError, match="'page2' is not numbered"):
        names(contest, "page2")


def test_noisyoffice_numbers_agree_with_the_corpus_own_names(shared):
    table = shared / "dirty-documents" / "groups.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))

    grouped = names(CONTESTS["denoising-dirty-documents"], *(row["id"] for row in rows))

    assert len(rows) == 144
    assert grouped == [row["group"].rpartition("_")[2] for row in rows]
    assert np.unique(grouped).tolist() == ["TR", "VA"]


def test_the_default_split_of_dirty_documents_trains_on_one_text_and_scores_on_the_other():
    contest = CONTESTS["denoising-dirty-documents"]
    stems = [str(i) for i in range(2, 217) if i % 3 != 1]

    split = split_groups(names(contest, *stems), folds=10, fold=0, seed=0, holdout=contest.holdout)

    assert {int(stems[i]) % 3 for i in split.held_out} == {0}
    assert {int(stems[i]) % 3 for i in split.train} == {2}
