"""Kaggle through its official client, made trustworthy: timeouts, retries, errors in words.

The client is imported when `connect()` is called and not before. It prints, makes folders and may
ask the network when it is imported, so that is done with stdout silenced and timeouts in place.

    site = connect()                     # a KaggleSite; raises a KaggleError
    site.files("some-contest")           # small dataclasses, never the client's own objects
    site.call("GetCompetition", {"competition_name": slug}, about=slug)

To add an operation, write a method of `KaggleSite` (or a function that takes one) around `call`:
the name of the wire method, its fields in snake_case, and `repeat=False` where a second request
would do harm, as with CreateSubmission. What comes back is the client's object; make a dataclass
of it. Errors arrive translated (`kbdenoise.errors`), with nothing secret in their text.
"""

from kbdenoise.contests.kaggle_client.credentials import (
    Credential,
    credential_remarks,
    find_credentials,
)
from kbdenoise.contests.kaggle_client.patience import Patience
from kbdenoise.contests.kaggle_client.scrub import scrub
from kbdenoise.contests.kaggle_client.site import (
    Body,
    Competition,
    DataFile,
    KaggleSite,
    check_online,
    connect,
)

__all__ = [
    "Body",
    "Competition",
    "Credential",
    "DataFile",
    "KaggleSite",
    "Patience",
    "check_online",
    "connect",
    "credential_remarks",
    "find_credentials",
    "scrub",
]
