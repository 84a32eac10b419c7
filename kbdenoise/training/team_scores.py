"""Scores of whole pictures that the processes of a team divide."""

from collections.abc import Sequence

from kbdenoise.errors import KbdenoiseError
from kbdenoise.imaging.metrics import Metric
from kbdenoise.inference.scoring import ImageScore, Pictures, RestoreImages, score_pictures
from kbdenoise.progress import Advance, Progress
from kbdenoise.team import Team
from kbdenoise.training.interrupt import Stopped, StopRequest


def score_together(
    restore: RestoreImages,
    pictures: Pictures,
    indices: Sequence[int],
    *,
    metric: Metric,
    team: Team,
    request: StopRequest,
    task: str,
    progress: Progress,
) -> list[ImageScore]:
    """Scores of all given pictures, in their order, of which this process restores its share.

    Raises on every process what any of them fails with, as NotFiniteError, and Stopped where any
    is asked to stop before all are scored.
    """
    mine = indices[team.rank :: team.size]
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(Advance(task=task, done=done, total=len(mine)))
        request.heed()

    rows: list[ImageScore] = []
    problem: KbdenoiseError | None = None
    try:
        rows = score_pictures(
            restore, pictures, mine, metric=metric, with_ssim=False, after_each=count
        )
    except KbdenoiseError as error:
        if error.of_one_process:
            raise
        problem = error.with_traceback(None)  # whose frames would hold the network's values
    except Stopped:
        pass
    request.heed(team)
    shares = team.gather((rows, problem))
    for _, found in shares:
        if found is not None:
            raise found
    return [shares[i % team.size][0][i // team.size] for i in range(len(indices))]
