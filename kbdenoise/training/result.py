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
    """'steps', 'time limit', 'interrupt' or 'dry run'."""
    resumable: bool = True
    """Whether `train(resume=...)` can go on with it; a filter is chosen anew instead."""
