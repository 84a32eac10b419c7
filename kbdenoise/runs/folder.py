"""A run's folder: made by train, understood without kbdenoise.

runs/2026-11-22_kbnet-s_brisk-otter/
  config.toml        every effective setting
  run.json           status, contest, versions, device and its reason, scores, command line
  split.json         which pictures were trained on and which were held out
  history.csv        the curve: one row a validation
  best.safetensors   weights that scored best      last.safetensors   newest weights
  state.pt           optimiser and the rest, for resume only
  good.pt            while it runs: the newest healthy state, another name for a state.pt of before
  filter.toml        in place of all weights where the model is a classical filter
"""

import json
import math
import platform
import secrets
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from kbdenoise.atomic import write_text, writing_to
from kbdenoise.errors import DataError, SettingsError, nearest

Status = Literal["running", "finished", "interrupted", "failed"]

# Two words make a run's name: easy to say, to type and to tell apart.
_ADJECTIVES = (
    "brisk",
    "calm",
    "clear",
    "deft",
    "fleet",
    "gentle",
    "keen",
    "mild",
    "quiet",
    "sharp",
)
_ANIMALS = (
    "badger",
    "crane",
    "finch",
    "heron",
    "lynx",
    "marten",
    "otter",
    "plover",
    "raven",
    "wren",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What run.json holds; scores are in the contest metric's own unit."""

    contest: str
    contest_folder: str
    metric: str
    model: str
    channels: int
    parameters: int
    device: str
    data_checksum: str
    status: Status = "running"
    started_at: str = ""
    updated_at: str = ""
    steps: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    untouched_score: float | None = None
    """The metric of the held-out pictures as they are: what doing nothing scores."""
    stopped_by: str = ""
    memory: list[dict[str, Any]] = field(default_factory=list)
    """What the run planned of it at its start, for each stage: sides and pieces stay so."""
    phases: list[dict[str, Any]] = field(default_factory=list)
    """Of dense-sparse-dense training: what the run scored at the end of each phase."""
    went_back: int = 0
    """How often training diverged and went back to a good state."""
    command_line: str = ""
    git_commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The files of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def config_file(self) -> Path:
        """Every effective setting, as TOML."""
        return self.path / "config.toml"

    @property
    def record_file(self) -> Path:
        """Status, versions and scores, as JSON."""
        return self.path / "run.json"

    @property
    def split_file(self) -> Path:
        """Stems trained on and held out, as JSON."""
        return self.path / "split.json"

    @property
    def history_file(self) -> Path:
        """One row a validation, as CSV."""
        return self.path / "history.csv"

    @property
    def best(self) -> Path:
        """Weights that scored best on the held-out pictures."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The newest weights."""
        return self.path / "last.safetensors"

    @property
    def filter_file(self) -> Path:
        """A classical filter with its parameters, as TOML; a network's run has none."""
        return self.path / "filter.toml"

    @property
    def good_file(self) -> Path:
        """The newest state that training goes back to when it diverges; gone when it is done."""
        return self.path / "good.pt"

    @property
    def state_file(self) -> Path:
        """All that resuming needs; read with torch's weights-only loader."""
        return self.path / "state.pt"

    @property
    def export_folder(self) -> Path:
        """Packages for other engines."""
        return self.path / "export"

    def weights(self) -> Path:
        """The best weights, or the newest where none were validated. Raises DataError for none."""
        path = self.best if self.best.is_file() else self.last
        why = ""
        if not path.is_file():
            why = f"{path} does not exist: the run has not been validated or saved yet"
        elif path == self.last and not self.read_record().steps:
            why = f"{path} holds what the run began with: no step of it has been saved yet"
        if why:
            raise DataError(why, hint=f"let it train on: kbdenoise train --resume {self.name}")
        return path

    def read_record(self) -> RunRecord:
        """Raises DataError if run.json is missing or damaged."""
        try:
            return RunRecord(**read_json(self.record_file))
        except TypeError as error:
            raise DataError(
                f"{self.record_file} is not a run of this version of kbdenoise: {error}",
                hint="use the version that made it, or start a new run",
            ) from error

    def write_record(self, record: RunRecord) -> None:
        """Replace run.json as a whole."""
        write_json(self.record_file, asdict(record))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """One line of `kbdenoise runs list`."""

    name: str
    path: Path
    contest: str
    model: str
    status: str
    steps: int
    metric: str
    best_score: float | None
    started_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting or score in which runs differ, one value a run."""

    setting: str
    values: tuple[str, ...]


def create_run(
    runs: Path, *, model: str, name: str = "", ending: str = "", others: Sequence[str] = ()
) -> Run:
    """Make a new, empty run folder named by date, model and `name` (or two words).

    `ending` follows the name; that with any ending of `others` must be free too. Raises
    SettingsError if `name` is taken or no fit name for a folder.
    """
    if name and not all(c.isalnum() or c in "-_." for c in name):
        raise SettingsError(
            f"'{name}' cannot name a run", hint="use letters, digits, '-', '_' and '.'"
        )
    today = datetime.now().strftime("%Y-%m-%d")
    with writing_to(runs):
        runs.mkdir(parents=True, exist_ok=True)
        for _ in range(100):
            words = name or f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_ANIMALS)}"
            start = f"{today}_{model}_{words}"
            taken = [p for other in others if (p := runs / f"{start}{other}").exists()]
            path = taken[0] if taken else runs / f"{start}{ending}"
            try:
                path.mkdir()
            except FileExistsError:
                if name:
                    break
            except OSError as error:
                raise SettingsError(f"cannot make {path}: {error.strerror}") from error
            else:
                return Run(path=path)
    raise SettingsError(
        f"a run called {path.name} is there already",
        hint=f"choose another --name, or go on with it: kbdenoise train --resume {path.name}",
    )


def list_runs(runs: Path = Path("runs")) -> list[RunInfo]:
    """All runs of a folder, newest last. Damaged ones are listed with the status 'damaged'."""
    return sorted(
        (_info(Run(path=p.parent)) for p in runs.glob("*/run.json")),
        key=lambda info: (info.started_at, info.name),
    )


def find_run(name: str, runs: Path = Path("runs")) -> Run:
    """A run by path, by name, by a unique beginning of its name or of its two words, or `last`.

    `best` is the run with the best score among those of the newest run's contest and metric.
    """
    path = Path(name)
    if (path / "run.json").is_file():
        return Run(path=path.resolve())
    infos = list_runs(runs)
    if not infos:
        raise DataError(f"there is no run in {runs}/", hint="kbdenoise train")
    if name == "last":
        return Run(path=infos[-1].path)
    if name == "best":
        return _best_run(infos)
    words = {info.name: info for info in infos}
    words |= {info.name.rsplit("_", 1)[-1]: info for info in infos}
    matching = {info.path for word, info in words.items() if word.startswith(name)}
    exact = words.get(name)
    if exact or len(matching) == 1:
        return Run(path=exact.path if exact else matching.pop())
    if matching:
        raise SettingsError(
            f"'{name}' could be {len(matching)} runs",
            hint="write more of it: " + ", ".join(sorted(p.name for p in matching)),
        )
    raise SettingsError(f"no run is called '{name}'", hint=nearest(name, [*words, "last", "best"]))


def compare_runs(runs: Sequence[Run]) -> list[Difference]:
    """Settings and scores in which the given runs differ; equal ones are left out."""
    tables = [_flat(run) for run in runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    rows = []
    for name in names:
        values = tuple(table.get(name, "") for table in tables)
        if len(set(values)) > 1:
            rows.append(Difference(setting=name, values=values))
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of ours. Raises DataError if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint="check that it exists and its permissions"
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", hint="restore it, or start anew") from error
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented, atomically."""
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON does not know, as null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Fields of a RunRecord that tell where it was made: command line, commit, versions."""
    return {
        "started_at": now(),
        "command_line": " ".join(sys.argv),
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version()}
        | {p: _version(p) for p in ("kbdenoise", "torch", "numpy", "opencv-python")},
    }


def _best_run(infos: list[RunInfo]) -> Run:
    from kbdenoise.imaging.metrics import metric

    newest = infos[-1]
    rivals = [
        info
        for info in infos
        if (info.contest, info.metric) == (newest.contest, newest.metric)
        and info.best_score is not None
    ]
    if not rivals:
        return Run(path=newest.path)
    sign = 1 if metric(newest.metric).lower_is_better else -1
    return Run(path=min(rivals, key=lambda info: sign * (info.best_score or 0.0)).path)


def _info(run: Run) -> RunInfo:
    try:
        record = run.read_record()
    except DataError:
        return RunInfo(
            name=run.name,
            path=run.path,
            contest="",
            model="",
            status="damaged",
            steps=0,
            metric="",
            best_score=None,
            started_at="",
        )
    return RunInfo(
        name=run.name,
        path=run.path,
        contest=record.contest,
        model=record.model,
        status=record.status,
        steps=record.steps,
        metric=record.metric,
        best_score=record.best_score,
        started_at=record.started_at,
    )


def _flat(run: Run) -> dict[str, str]:
    record = run.read_record()
    try:
        sections = tomllib.loads(run.config_file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot read {run.config_file}: {error}") from error
    table = {name: str(v) for section in sections.values() for name, v in section.items()}
    best = "" if record.best_score is None else f"{record.best_score:.4f}"
    return table | {
        "contest": record.contest,
        "parameters": f"{record.parameters:,}",
        "steps done": f"{record.steps:,}",
        "minutes": f"{record.seconds / 60:.1f}",
        f"best {record.metric}": best,
        **{f"after {p['phase']}": f"{p['score']:.4f}" for p in record.phases},
    }


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git_commit() -> str:
    """The commit of the user's working folder, where it is a repository."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
