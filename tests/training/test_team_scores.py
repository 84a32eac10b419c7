"""Processes divide pictures to score: whole lists, and one end for all."""

import json
from collections.abc import Callable
from typing import Any

SCORED = """
import json
import numpy as np
from kbdenoise.errors import DataError, NotFiniteError
from kbdenoise.imaging.metrics import METRICS
from kbdenoise.team import joined
from kbdenoise.training.interrupt import Stopped, StopRequest
from kbdenoise.training.team_scores import score_together

class Pictures:
    stems = list("abcde")

    def noisy(self, index):
        return np.full((4, 5, 1), 10 * index, np.uint8)

    def clean(self, index):
        return np.zeros((4, 5, 1), np.uint8)

def scored(team, *, error=None, stopped_in=-1):
    request = StopRequest()

    def restore(pictures):
        for picture in pictures:
            if error is not None and team.rank == 1:
                raise error
            yield picture

    def tell(event):
        request.asked = event.done == 1 and team.rank == stopped_in

    rows = score_together(
        restore, Pictures(), [4, 1, 0, 3, 2], metric=METRICS["mae-mean-luma"], team=team,
        request=request, task="score", progress=tell,
    )
    return [[row.stem, round(row.score, 4)] for row in rows]

with joined() as team:
    answers = [scored(team)]
    errors = [{"error": NotFiniteError("picture b")}, {"error": DataError("e.png is damaged")}]
    for problem in (*errors, {"stopped_in": 1}, {"stopped_in": 0}):
        try:
            answers.append(scored(team, **problem))
        except (DataError, Stopped) as error:
            answers.append([type(error).__name__, str(error)])
print(json.dumps(answers))
"""


def test_processes_that_divide_pictures_have_all_scores_in_order_and_end_alike(
    team: Callable[..., list[Any]],
) -> None:
    members = team(code=SCORED)

    for member in members:
        assert member.returncode == 0, member.stderr
        whole, *problems = json.loads(member.stdout)
        assert whole == [["e", 40.0], ["b", 10.0], ["a", 0.0], ["d", 30.0], ["c", 20.0]]
        failed = [["NotFiniteError", "picture b"], ["DataError", "e.png is damaged"]]
        assert problems == [*failed, ["Stopped", ""], ["Stopped", ""]]
