"""How people write what a setting holds: 8h, 10M, 'norm=none', '128x8:90% page:10%'."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from kbdenoise.errors import SettingsError

# 10_000_000, 10,000,000 or 1.5; a comma parts thousands, so that 1,5M is refused and not 15M.
_COUNT = r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+(?:_[0-9]+)*)(?:\.[0-9]+)?)([kKmMgG]?)"
_PAIR = re.compile(  # name=value, the value a list, a text in quotes, or a single word
    r"""[\s,]*([\w.+-]+)\s*=\s*(\[[^][]*\]|\([^()]*\)|"[^"]*"|'[^']*'|[^][()"'=\s,]+)(?=[\s,]|$)"""
)
_STAGE = re.compile(
    r"(?:(?P<patch>\d+)x(?P<batch>\d+)|page(?:x(?P<pages>\d+))?):(?P<share>[\d.]+)%"
)
_SMALLEST_PATCH = 16
_STAGES_HINT = (
    "write side x batch:share, as in '64x16:50% 128x4:40% page:10%'; page takes whole pages, "
    "pagex2 two at a step"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a run in which patches have one size."""

    patch: int
    """Side in pixels; 0 where whole pages are seen."""
    batch: int
    """Patches or pages a step."""
    share: float
    """Of the run, above 0 and at most 1."""
    pages: bool = False


Unit = Literal["steps", "epochs", "samples", "run"]


@dataclass(frozen=True, slots=True)
class Amount:
    """So much of a training: '2000 steps', '60 epochs', '1.6M samples', '3%' of the run."""

    value: float
    """How many; of a run the share, 0 to 1."""
    unit: Unit


def amount(text: str, *, name: str) -> Amount:
    """An amount of training as people write it; a plain whole number is steps. SettingsError."""
    match = re.fullmatch(rf"{_COUNT}\s*(steps?|epochs?|samples?|%|)", text.strip())
    if match:
        value, unit = _number(match[1], match[2]), match[3].rstrip("s")
        if unit == "%" and value <= 100:
            return Amount(float(value / 100), "run")
        units: dict[str, Unit] = {"": "steps", "step": "steps", "sample": "samples"}
        if unit in units and value == int(value):
            return Amount(float(value), units[unit])
        if unit == "epoch":
            return Amount(float(value), "epochs")
    raise SettingsError(
        f"{name} {text!r} is no amount of training",
        hint="write '2000 steps', '60 epochs', '1.6M samples' or '3%' of the run",
    )


def batch_size(text: str) -> int:
    """Patches a step; `auto` is 0. Raises SettingsError."""
    if text.strip() == "auto":
        return 0
    if re.fullmatch(r"[0-9]+", text.strip()):
        return int(text)
    raise SettingsError(f"--batch {text!r} is no number of patches", hint="write 8, or auto")


def sample_count(text: str) -> int:
    """A number of patches such as 500k or 1.6M. Raises SettingsError."""
    match = re.fullmatch(_COUNT, text.strip())
    if match and (value := _number(match[1], match[2])) == int(value):
        return int(value)
    raise SettingsError(f"--samples {text!r} is no number of patches", hint="write 500k or 1.6M")


def parameter_count(text: str) -> int:
    """A number of parameters such as 10M, 500k, 1.5M or 10_000_000. Raises SettingsError."""
    match = re.fullmatch(_COUNT, text.strip())
    if match:
        value = _number(match[1], match[2])
        if value == int(value):
            return int(value)
    raise SettingsError(
        f"--max-params {text!r} is no number of parameters",
        hint="write 10M, 500k, 1.5M, 10_000_000 or a plain whole number",
    )


def _number(digits: str, suffix: str) -> Decimal:
    factor = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[suffix.lower()]
    return Decimal(re.sub("[_,]", "", digits)) * factor


def seconds(text: str, *, name: str) -> float:
    """A duration such as 8h, 1h30m, 90m, 45s or 0 in seconds. Raises SettingsError."""
    if text == "0":
        return 0.0
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or not match:
        raise SettingsError(f"{name} {text!r} is no duration", hint="write 8h, 1h30m, 90m or 45s")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return float(3600 * hours + 60 * minutes + rest)


def parse_stages(text: str, *, patch: int, batch: int) -> tuple[Stage, ...]:
    """The stages of a run, such as `64x16:50% 128x4:40% page:10%`, parted by spaces or commas.

    Empty text is one stage of `patch` and `batch`. Raises SettingsError where the text cannot be
    read or the shares are not 100 % together.
    """
    words = text.replace(",", " ").split()
    if not words:
        return (Stage(patch=patch, batch=batch, share=1.0),)
    shares = [_stage_share(word) for word in words]
    if sum(shares) != 100:
        raise SettingsError(
            f"the shares of --stages '{text}' are {sum(shares):f} % together instead of 100 %",
            hint=_STAGES_HINT,
        )
    return tuple(_stage(word, share) for word, share in zip(words, shares, strict=True))


def phase_shares(text: str) -> tuple[float, float, float]:
    """The shares of a run's three phases, such as `40% 30% 30%`. Raises SettingsError."""
    shares = [amount(word, name="--dsd-phases") for word in text.replace(",", " ").split()]
    if len(shares) != 3 or any(s.unit != "run" or not s.value for s in shares):
        raise SettingsError(
            f"--dsd-phases {text!r} are no three shares of a run", hint="write '40% 30% 30%'"
        )
    if abs(sum(s.value for s in shares) - 1.0) > 1e-6:
        raise SettingsError(
            f"--dsd-phases {text!r} do not add up to 100%", hint="write '40% 30% 30%'"
        )
    return shares[0].value, shares[1].value, shares[2].value


def stage_at(stages: Sequence[Stage], progress: float) -> int:
    """The number of the stage in which a run is whose share `progress` is done, 0 to 1."""
    end = 0.0
    for number, stage in enumerate(stages[:-1]):
        end += stage.share
        if progress < end - 1e-9:  # shares such as 0.1 are not exact, nor are their sums
            return number
    return len(stages) - 1


def parse_hyper(text: str) -> dict[str, Any]:
    """Hyper-parameters from pairs such as `encoder_blocks=[2,2,4] norm=none lightweight=true`.

    Spaces or commas part them; a value that is not JSON is taken as text. Raises SettingsError
    where the text cannot be read; whether a model has them is for its builder to say.
    """
    values: dict[str, Any] = {}
    position = 0
    while match := _PAIR.match(text, position):
        name, value = match[1], match[2]
        if name == "channels":
            raise SettingsError(
                "--hyper cannot set channels, which are the contest's",
                hint="leave it out; a contest's channels stand in its contest.toml",
            )
        if name in values:
            raise SettingsError(f"--hyper names {name} twice", hint="leave one of them out")
        values[name] = _hyper_value(value)
        position = match.end()
    if rest := text[position:].strip(" ,\t\n"):
        raise SettingsError(
            f"--hyper cannot be read from '{rest}' on",
            hint="write pairs such as 'encoder_blocks=[2,2,4] norm=none lightweight=true'",
        )
    return values


def hyper_text(values: Mapping[str, Any]) -> str:
    """Hyper-parameters given in Python as a mapping, in the form of `--hyper`."""
    return " ".join(f"{name}={json.dumps(value, default=native)}" for name, value in values.items())


def _stage_share(word: str) -> Decimal:
    """The percentage of a stage as it is written, which is what adds up exactly."""
    match = _STAGE.fullmatch(word)
    if not match or not re.fullmatch(r"\d+(?:\.\d+)?|\.\d+", match["share"]):
        raise SettingsError(f"--stages: '{word}' is no stage", hint=_STAGES_HINT)
    share = Decimal(match["share"])
    if not share:
        raise SettingsError(f"--stages: '{word}' has no share of the run", hint="leave it out")
    return share


def _stage(word: str, share: Decimal) -> Stage:
    match = _STAGE.fullmatch(word)
    assert match, "its share has been read"
    pages = match["patch"] is None
    patch = 0 if pages else int(match["patch"])
    batch = int((match["pages"] or 1) if pages else match["batch"])
    if not pages and patch < _SMALLEST_PATCH:
        raise SettingsError(
            f"--stages: patches of '{word}' are smaller than {_SMALLEST_PATCH} px",
            hint=_STAGES_HINT,
        )
    if not batch:
        raise SettingsError(
            f"--stages: '{word}' has no {'page' if pages else 'patch'} a step", hint=_STAGES_HINT
        )
    return Stage(patch=patch, batch=batch, share=float(share / 100), pages=pages)


def _hyper_value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    if text[0] == "'":
        return text[1:-1]
    if text[0] == "(":
        text = f"[{text[1:-1].rstrip(', ')}]"
    try:
        return json.loads(text)
    except ValueError:
        return text


def native(value: object) -> object:
    """An array's scalar as Python's own number; anything else as text, to be refused by type."""
    return value.item() if hasattr(value, "item") else str(value)
