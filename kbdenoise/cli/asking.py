"""Questions to a person who is there to answer them."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kbdenoise.cli.console import Console
from kbdenoise.cli.words import figure, printable

if TYPE_CHECKING:
    from kbdenoise.submission.upload import Ask, Offer


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


def upload_or_not(*, yes: bool, console: Console) -> "bool | Ask":
    """Whether to upload: what `--yes` says, or a function that asks who is at the terminal.

    The very same file a second time is asked about even so.
    """
    if not console.can_ask:
        return yes

    def ask(offer: "Offer") -> bool:
        if yes and offer.repeated is None:
            return True
        console.close()
        if offer.repeated is not None:
            console.say(_repetition(offer))
        count = f"{offer.left} of {offer.daily}" if offer.daily else f"{offer.left}"
        words = f"  upload to {printable(offer.slug)}? {count} submissions left today"
        return typer.confirm(words, default=False, err=True)

    return ask


def _repetition(offer: "Offer") -> str:
    before = offer.repeated
    assert before is not None
    known = before.public_score
    scored = "" if known is None else f", public score {figure(known)}"
    return f"the very same file was sent before: submission {before.reference}{scored}"
