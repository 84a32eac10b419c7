"""Questions to a person who is there to answer them."""

from pathlib import Path

import typer

from kbdenoise.cli.console import Console


def contest_or_question(name: str | None, *, data: Path, console: Console) -> str | None:
    """The contest's name; asks where several could be meant and somebody is at the terminal.

    Elsewhere the name stays None, and the library takes the only contest or says what there is.
    """
    if name is not None or not console.can_ask:
        return name
    from kbdenoise.contests.contest import list_contests

    found = [folder.name for folder in list_contests(data)]
    if len(found) < 2:
        return None
    for number, contest in enumerate(found, 1):
        console.say(f"{number}  {contest}")
    answer = 0
    while not 1 <= answer <= len(found):
        answer = typer.prompt(f"  which contest? [1-{len(found)}]", type=int, err=True)
    return found[answer - 1]
