"""What training hands back, whatever was trained."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What `train` made. Scores are in the contest metric's unit, over the held-out pictures."""

    run: Path
    metric: str
    unit: str
    best_score: float
    best_step: int
    untouched_score: float
    """What the held-out pictures score as they are."""
    steps: int
    """Optimiser steps; for a filter, how many parameters were tried."""
    seconds: float
    stopped_by: str
    """'steps', 'time limit', 'patience', 'interrupt' or 'dry run'."""
    skipped_steps: int = 0
    """Steps that were left out, as their loss or gradient was not finite."""
    went_back: int = 0
    """How often training diverged and went back to a good state."""
    resumable: bool = True
    """Whether `train(resume=...)` can go on with it; a filter is chosen anew instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One fold of a cross-validation. Scores are NaN until its model is trained and scored."""

    fold: int
    run: Path
    pictures: int
    """How many it holds out."""
    score: float
    """Of its best weights on the pictures that it holds out."""
    untouched_score: float
    steps: int
    best_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldsResult:
    """What `train` with folds made. Scores are in the contest metric's unit, NaN until known."""

    run: Path
    """The folder of the whole; every fold has a run folder beside it."""
    metric: str
    unit: str
    out_of_fold_score: float
    """Pooled over all pictures, each scored by the one model that was not trained on it."""
    untouched_score: float
    """What all pictures score as they are."""
    mean_score: float
    """Mean of the folds' scores, whatever their sizes."""
    spread: float
    """Standard deviation of the folds' scores."""
    pictures: int
    folds: tuple[FoldResult, ...]
    seconds: float
    """Training and scoring, in all sittings."""
    scores_file: Path
    """A row a picture, as CSV."""
    stopped_by: str
    """What ended the folds, all of it where they differ; 'interrupt' or 'dry run'."""
