"""Check a submission file before it costs a submission, and score it where the truth is known."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats import (
    Answer,
    CheckReport,
    Page,
    Source,
    checksum,
    submission_format,
)
from kbdenoise.contests.formats.pages import pages_by_stem
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import list_images, read_opaque
from kbdenoise.imaging.metrics import Metric, metric

_SHOWN = 5

# Rounding colours to 8 bits, and then their luma, moves a value by one grey level at most.
_ONE_LEVEL = 1.0
_EXACT = 1e-6  # of white; two ways through float32 may differ by so much


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A submission's score on this machine, by the contest's own metric."""

    metric: str
    value: float
    """Pooled over all pages as the contest pools it."""
    per_image: tuple[tuple[str, float], ...]
    """Stem and score of every page, in the order of the file."""


def check_submission(
    path: Path, *, contest: LocalContest, pages: Sequence[Page], require_valid: bool = False
) -> CheckReport:
    """Check header, ids, order, number of rows, and values of a submission file.

    Memory stays flat. Raises DataError if the file cannot be opened and, with `require_valid`, if
    anything is wrong with it.
    """
    report = submission_format(contest.contest.format).check(path, contest=contest, pages=pages)
    if require_valid:
        report.require_valid()
    return report


def compare_with_pictures(
    path: Path,
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    pictures: Path,
    source: Source = "pixels",
) -> tuple[str, ...]:
    """Compare a submission with the folder of restored pictures that it was made from.

    Returns a sentence for every page whose values differ by more than rounding; `source` says what
    the submission's values were computed from. Raises DataError if the file is not valid or a
    picture is missing.
    """
    chosen = submission_format(contest.contest.format)
    found = match_pictures(pages, pictures, contest=contest)
    problems = []
    for stem, answer in chosen.read(path, contest=contest, pages=pages):
        expected = chosen.answer(read_opaque(found[stem]), contest=contest)
        gap = _gap(answer, expected)
        if not gap <= _allowed(contest, expected, source=source):
            problems.append(
                f"{stem}: the submission differs from {found[stem]} by {gap:.3g}; write it again "
                "from these pictures"
            )
    return tuple(problems)


def score_submission(
    path: Path, *, contest: LocalContest, pages: Sequence[Page], truth: Path
) -> Score:
    """Score a submission file against the folder `truth`, by the contest's own metric.

    Raises DataError if the file is not valid or a truth is missing or of another size, and
    SettingsError if the format does not tell enough for the metric.
    """
    truths = match_pictures(pages, truth, contest=contest)
    answers = submission_format(contest.contest.format).read(path, contest=contest, pages=pages)
    return score_answers(answers, contest=contest, pages=pages, truths=truths)


def score_answers(
    answers: Iterable[tuple[str, Answer]],
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    truths: dict[str, Path],
) -> Score:
    """Score answers by stem against their truths, one page at a time."""
    chosen = require_scorable(contest)
    by_stem = pages_by_stem(pages)
    scores, sizes = [], []
    for stem, answer in answers:
        page = by_stem[stem]
        score = _score(answer, truths[stem], page=page, contest=contest, chosen=chosen)
        scores.append((stem, score))
        sizes.append(page.height * page.width)
    return Score(
        metric=chosen.name,
        value=chosen.pool([score for _, score in scores], sizes),
        per_image=tuple(scores),
    )


def require_scorable(contest: LocalContest) -> Metric:
    """The contest's metric; raises SettingsError if its format does not tell enough for it."""
    chosen = metric(contest.contest.metric)
    if contest.contest.format == "mean-luma" and chosen.name != "mae-mean-luma":
        raise SettingsError(
            f"a submission of the format mean-luma cannot be scored by {chosen.name}: it holds one "
            "number a page",
            hint='write metric = "mae-mean-luma" into the contest\'s contest.toml',
        )
    if contest.contest.options.stride > 1 and chosen.name == "ssim":
        raise SettingsError(
            "a submission of pixels-wide that leaves pixels out cannot be scored by ssim, which "
            "compares neighbours",
            hint='write metric = "psnr" or "rmse" into the contest\'s contest.toml',
        )
    return chosen


def match_pictures(
    pages: Sequence[Page], folder: Path, *, contest: LocalContest
) -> dict[str, Path]:
    """The picture of every page in another folder (truths, restored pictures), by stem.

    A picture may carry the contest's clean or test ending. Raises DataError for pages without a
    picture or with two.
    """
    found: dict[str, Path] = {}
    wanted = pages_by_stem(pages)
    for path in list_images(folder):
        for stem in _stems(path, contest) & wanted.keys():
            if stem in found:
                raise DataError(
                    f"both {found[stem]} and {path} belong to the test page {stem}",
                    hint="remove one of them",
                )
            found[stem] = path
    missing = [stem for stem in wanted if stem not in found]
    if missing:
        rest = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"{folder} has no picture for {', '.join(missing[:_SHOWN])}{rest}",
            hint="pictures are matched by name without suffix; add the missing ones",
        )
    return found


def verified(
    answers: Iterable[tuple[str, Answer]], checksums: dict[str, int], *, path: Path
) -> Iterator[tuple[str, Answer]]:
    """The same answers; raises DataError at one that is not what was written."""
    for stem, answer in answers:
        if checksum(answer) != checksums[stem]:
            raise DataError(
                f"{path} does not give back what was written for the page {stem}",
                hint="the disk or the file system may be failing; write it to another one",
            )
        yield stem, answer


def _stems(path: Path, contest: LocalContest) -> set[str]:
    rules = contest.contest
    return {path.stem.removesuffix(end) for end in ("", rules.clean_ending, rules.test_ending)}


def _score(
    answer: Answer, truth: Path, *, page: Page, contest: LocalContest, chosen: Metric
) -> float:
    """Compare an answer with what the same format would say of the truth."""
    pixels = read_opaque(truth)
    _check_size(pixels.shape, truth, page)
    right = submission_format(contest.contest.format).answer(pixels, contest=contest)
    if isinstance(answer, float) or isinstance(right, float):
        return _gap(answer, right)
    return chosen.score(answer, right)


def _check_size(shape: tuple[int, ...], truth: Path, page: Page) -> None:
    if shape[:2] != (page.height, page.width):
        raise DataError(
            f"the truth {truth} is {shape[1]}x{shape[0]} px but the test picture {page.name} is "
            f"{page.width}x{page.height} px",
            hint="give the truth of this very picture",
        )


def _gap(answer: Answer, expected: Answer) -> float:
    """Greatest difference of two answers; infinite if they are not of one shape."""
    if np.shape(answer) != np.shape(expected):
        return float("inf")
    return float(np.abs(np.subtract(answer, expected, dtype=np.float64)).max())


def _allowed(contest: LocalContest, expected: Answer, *, source: Source) -> float:
    """How far a value may lie from that of the stored picture, in the answer's own unit."""
    white = 255.0 if isinstance(expected, float) else 1.0
    if source == "pixels":
        return _EXACT * white
    return (_ONE_LEVEL / 255.0 + contest.contest.options.step / 2 + _EXACT) * white
