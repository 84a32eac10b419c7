"""Score a run on its held-out pairs, against doing nothing and against classical filters."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kbdenoise.atomic import write_text
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.store import Store, open_store
from kbdenoise.errors import DataError
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.imaging.files import FloatImage, to_float, write_image
from kbdenoise.imaging.metrics import Metric, metric
from kbdenoise.imaging.panel import (
    DIFFERENCE_SCALE,
    SHEET_ROWS,
    SHEET_SIDE,
    difference,
    stack,
    strip,
)
from kbdenoise.inference.filters import BASELINES, choose_on, parameters_in_words
from kbdenoise.inference.loading import load_run
from kbdenoise.inference.scoring import (
    ImageScore,
    RestoreImages,
    pooled,
    pooled_untouched,
    score_pictures,
)
from kbdenoise.inference.whose import contest_of
from kbdenoise.progress import Advance, Progress, counting, silent
from kbdenoise.runs.folder import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """One line of the comparison: a method's scores over all held-out pictures."""

    method: str
    score: float
    psnr_db: float
    ssim: float
    share_of_untouched: float
    """This score divided by doing nothing's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of a run, in the unit of the contest's metric."""

    run: Path
    metric: str
    unit: str
    lower_is_better: bool
    score: float
    untouched: float
    low: float
    """Lower end of the bootstrap's 95 % interval of the score."""
    high: float
    median: float
    p90: float
    bias: float
    """Mean of restored - clean, in grey levels 0..255."""
    worst_tenth_share: float
    """Share of the summed errors carried by the worst tenth of pictures; NaN for a quality."""
    rows: tuple[ImageScore, ...]
    """One a picture, worst first."""
    table: tuple[MethodScore, ...]
    scores_file: Path
    sheet_file: Path
    """The worst pictures: noisy, restored, clean, error, removed."""


def evaluate(
    run: str = "last",
    *,
    name: str | Path | None = None,
    data: Path = Path("data"),
    runs: Path = Path("runs"),
    baselines: bool = False,
    out: Path | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Evaluation:
    """Restore the pictures that the run held out, and score them as they would be handed in.

    `baselines` adds classical filters, each with its parameter chosen on training pairs by the
    contest's metric. Writes evaluation.csv and worst.png into `out`, by default the run's folder.
    Further keyword arguments are settings of PredictConfig.
    """
    loaded = load_run(run, runs=runs, progress=progress, **settings)
    local = contest_of(loaded.run, name, data=data)
    chosen = metric(local.contest.metric)
    store = open_store(
        local,
        find_pairs(local),
        channels=local.contest.channels,
        progress=counting(progress, "read pictures"),
    )
    split = read_json(loaded.run.split_file)
    if store.checksum != loaded.run.read_record().data_checksum:
        raise DataError(
            f"the pictures of {local.contest.slug} are not those that {loaded.run.name} held out",
            hint=f"put them back as they were; {loaded.run.split_file} lists them",
        )
    where = {stem: index for index, stem in enumerate(store.stems)}
    try:
        train, held_out = ([where[stem] for stem in split[side]] for side in ("train", "held_out"))
    except KeyError as error:
        raise DataError(
            f"{loaded.run.split_file} does not fit the contest: {error} is missing",
            hint="restore the file, or train anew",
        ) from error
    rows = _scored(loaded.restoration.images, store, held_out, chosen, progress, "evaluate")
    untouched = score_pictures(iter, store, held_out, metric=chosen)
    table = [_method("doing nothing", untouched, chosen)]
    model = loaded.run.read_record().model
    if baselines:
        names = [name for name in BASELINES if name != model]
        table += _baselines(names, store, train, held_out, chosen, progress)
    table.append(_method(model, rows, chosen))
    worst_first = sorted(rows, key=lambda row: row.score, reverse=chosen.lower_is_better)
    folder = out or loaded.run.path
    scores_file, sheet_file = folder / "evaluation.csv", folder / "worst.png"
    write_text(scores_file, _csv(worst_first))
    write_image(sheet_file, _sheet(loaded.restoration.images, store, worst_first[:SHEET_ROWS]))
    low, high = _interval(rows, split["groups"], chosen)
    scores = np.array([row.score for row in rows])
    return Evaluation(
        run=loaded.run.path,
        metric=chosen.name,
        unit=chosen.unit,
        lower_is_better=chosen.lower_is_better,
        score=pooled(rows, chosen),
        untouched=pooled_untouched(rows, chosen),
        low=low,
        high=high,
        median=float(np.median(scores)),
        p90=float(np.quantile(scores, 0.9 if chosen.lower_is_better else 0.1)),
        bias=float(np.mean([row.bias for row in rows])),
        worst_tenth_share=_worst_tenth_share(scores) if chosen.lower_is_better else math.nan,
        rows=tuple(worst_first),
        table=tuple(table),
        scores_file=scores_file,
        sheet_file=sheet_file,
    )


def _scored(
    restore: RestoreImages,
    store: Store,
    indices: Sequence[int],
    chosen: Metric,
    progress: Progress,
    task: str,
) -> list[ImageScore]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(Advance(task=task, done=done, total=len(indices)))

    return score_pictures(restore, store, indices, metric=chosen, after_each=count)


def _baselines(
    names: Sequence[str],
    store: Store,
    train: Sequence[int],
    held_out: Sequence[int],
    chosen: Metric,
    progress: Progress,
) -> list[MethodScore]:
    """Filters with the parameters that suit the training pictures best."""
    lines = []
    for name in names:
        found, _pictures = choose_on(store, train, FILTERS[name], metric=chosen)
        restore = partial(map, partial(FILTERS[name].apply, **found.parameters))
        rows = _scored(restore, store, held_out, chosen, progress, name)
        lines.append(_method(f"{name} ({parameters_in_words(found.parameters)})", rows, chosen))
    return lines


def _method(name: str, rows: Sequence[ImageScore], chosen: Metric) -> MethodScore:
    score, untouched = pooled(rows, chosen), pooled_untouched(rows, chosen)
    return MethodScore(
        method=name,
        score=score,
        psnr_db=float(np.mean([row.psnr_db for row in rows])),
        ssim=float(np.mean([row.ssim for row in rows])),
        share_of_untouched=score / untouched if untouched else float("nan"),
    )


def _interval(
    rows: Sequence[ImageScore], groups: dict[str, str], chosen: Metric
) -> tuple[float, float]:
    """The 95 % interval of the pooled score under resampling of whole groups, by a fixed seed.

    Where all pictures are of one group, they are drawn one by one.
    """
    parts: dict[str, list[ImageScore]] = {}
    for row in rows:
        parts.setdefault(groups[row.stem], []).append(row)
    units = list(parts.values()) if len(parts) > 1 else [[row] for row in rows]
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(1000):
        drawn = [row for i in rng.integers(0, len(units), len(units)) for row in units[i]]
        scores.append(pooled(drawn, chosen))
    return float(np.quantile(scores, 0.025)), float(np.quantile(scores, 0.975))


def _worst_tenth_share(scores: np.ndarray) -> float:
    ordered = np.sort(scores)[::-1]
    total = float(ordered.sum())
    return float(ordered[: max(1, len(ordered) // 10)].sum()) / total if total else 0.0


def _csv(rows: Sequence[ImageScore]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stem", "score", "untouched", "psnr_db", "ssim", "bias"])
    for row in rows:
        figures = (row.score, row.untouched, row.psnr_db, row.ssim, row.bias)
        writer.writerow([row.stem, *(f"{figure:.6g}" for figure in figures)])
    return text.getvalue()


def _sheet(restore: RestoreImages, store: Store, rows: Sequence[ImageScore]) -> FloatImage:
    """A contact sheet, worst picture first."""
    where = {stem: index for index, stem in enumerate(store.stems)}
    strips = []
    answers = restore(to_float(store.noisy(where[row.stem])) for row in rows)
    for row, restored in zip(rows, answers, strict=True):
        noisy = to_float(store.noisy(where[row.stem]))
        clean = to_float(store.clean(where[row.stem]))
        error = difference(restored, clean, scale=DIFFERENCE_SCALE)
        removed = difference(noisy, restored, scale=DIFFERENCE_SCALE)
        labels = [row.stem, f"restored: {row.score:.4g}", "clean", "error", "removed"]
        strips.append(strip([noisy, restored, clean, error, removed], labels, side=SHEET_SIDE))
    return stack(strips)
