import pickle

import pytest

from kbdenoise import errors
from kbdenoise.errors import DataError, KaggleError, KbdenoiseError, SettingsError, nearest


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (KbdenoiseError, 1),
        (DataError, 1),
        (KaggleError, 1),
        (SettingsError, 2),
        (errors.KaggleLoginError, 3),
        (errors.KaggleRulesError, 4),
        (errors.KaggleNotFoundError, 5),
        (errors.KaggleLimitError, 6),
        (errors.KaggleNetworkError, 7),
        (errors.KaggleValidationError, 8),
        (errors.KaggleScoringError, 9),
        (errors.KaggleWaitError, 10),
    ],
)
def test_every_error_of_ours_has_its_exit_code(kind: type[KbdenoiseError], code: int) -> None:
    error = kind("what happened", hint="how to mend it")

    assert isinstance(error, KbdenoiseError)
    assert (error.exit_code, error.message, error.hint) == (
        code,
        "what happened",
        "how to mend it",
    )


def test_an_error_from_a_worker_process_arrives_with_its_hint() -> None:
    error = DataError("page.tif is broken", hint="fetch it again")

    arrived = pickle.loads(pickle.dumps(error))

    assert type(arrived) is DataError
    assert (str(arrived), arrived.hint) == ("page.tif is broken", "fetch it again")


def test_the_nearest_word_is_named() -> None:
    assert nearest("kbnet_s", ["dncnn", "kbnet-s"]) == "did you mean 'kbnet-s'?"


def test_all_words_are_listed_when_none_is_near() -> None:
    assert nearest("zzz", ["dncnn", "kbnet-s"]) == "choose one of: dncnn, kbnet-s"
