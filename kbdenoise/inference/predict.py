"""Restore whole pictures: a contest's test set, or any files and folders."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kbdenoise.checksums import checksum
from kbdenoise.contests.contest import LocalContest, open_contest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import (
    SUFFIXES,
    Header,
    list_images,
    read_header,
    suffix_rules,
)
from kbdenoise.inference.ledger import Ledger, stamp
from kbdenoise.inference.loading import Loaded, load_file, load_run
from kbdenoise.inference.packages import is_package
from kbdenoise.inference.restore_files import Job, restore_files
from kbdenoise.inference.whose import contest_of
from kbdenoise.notation import parse_hyper
from kbdenoise.progress import Fact, Progress, silent
from kbdenoise.team import joined

LEDGER_FILE = "restored.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What `predict` wrote, or would write on a dry run."""

    run: Path | None
    """None where the weights were named by themselves."""
    weights: Path
    out: Path
    pictures: int
    """Pictures restored in this call."""
    kept: int
    """Pictures that an earlier, stopped call had restored already."""
    megapixels: float
    seconds: float
    tiles: str
    device: str


def predict(
    run: str | None = None,
    pictures: Sequence[Path] = (),
    *,
    weights: Path | None = None,
    out: Path | None = None,
    name: str | Path | None = None,
    data: Path = Path("data"),
    runs: Path = Path("runs"),
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> Prediction:
    """Restore pictures with a run's best weights and write them under their own names.

    `run` is the newest where none is named; `weights` names a file instead, of kbdenoise or one
    that is recognised by its tensors. Either may be a package that `export_model` wrote.
    `pictures` are files or folders; empty means the test pictures of the run's contest (or of the
    contest `name`; None with `weights`: the only one in `data`). `out` defaults to
    submissions/NAME, the run's or file's, for a test set and to restored/ otherwise.
    Bit depth, gray or colour, alpha and format stay as they are in each file. A call that was
    stopped half-way goes on where it was. Processes of `torchrun` divide the pictures. Further
    keyword arguments are settings of PredictConfig.

    Raises SettingsError before anything is overwritten (unless `force`) and DataError for a file
    that is no picture, before the first one is restored. Damage further inside is reported at the
    end, when all other pictures are restored.
    """
    with joined() as team:
        progress = progress if team.leads else silent
        loaded = _load(run, weights, runs=runs, progress=progress, settings=settings)
        sources = _sources(pictures) if pictures else list_images(_contest(loaded, name, data).test)
        if not sources:
            raise DataError("there are no pictures to restore", hint="name image files or folders")
        default = Path("restored") if pictures else Path("submissions") / loaded.name
        folder = out or default
        jobs = _jobs(sources, folder)
        progress(Fact(label="device", text=loaded.device.text))
        ledger = Ledger(folder / LEDGER_FILE, _work(loaded))
        todo = _still_to_do(jobs, ledger, force=force)
        started = time.monotonic()
        if not dry_run and todo:
            ledger.begin_together(team)
            rank, size = team.share
            restore_files(todo[rank::size], loaded.restoration, ledger, progress)
            team.gather(rank)  # the leader speaks when all are done
    plans = {loaded.restoration.plan(job.header.height, job.header.width).text for job in jobs}
    return Prediction(
        run=loaded.origin.path if loaded.origin else None,
        weights=loaded.weights,
        out=folder,
        pictures=len(todo),
        kept=len(jobs) - len(todo),
        megapixels=sum(job.header.height * job.header.width for job in todo) / 1e6,
        seconds=time.monotonic() - started,
        tiles="; ".join(sorted(plans)),
        device=loaded.device.kind,
    )


def _load(
    run: str | None,
    weights: Path | None,
    *,
    runs: Path,
    progress: Progress,
    settings: dict[str, Any],
) -> Loaded:
    if weights is None and run is not None and is_package(Path(run)):
        weights, run = Path(run), None
    if weights is None:
        return load_run("last" if run is None else run, runs=runs, progress=progress, **settings)
    if run is not None:
        raise SettingsError(
            f"the run {run} and the weights {weights} cannot both restore",
            hint="name one of them",
        )
    return load_file(Path(weights), progress=progress, **settings)


def _contest(loaded: Loaded, name: str | Path | None, data: Path) -> LocalContest:
    """The contest whose test pictures are meant."""
    if loaded.origin is None:
        return open_contest(name, data=data)
    return contest_of(loaded.origin, name, data=data)


def _sources(pictures: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the images in them."""
    sources = []
    for path in map(Path, pictures):
        if os.path.isdir(path):
            inside = list_images(path)
            if not inside:
                raise DataError(f"there are no images in {path}", hint="name another folder")
            sources += inside
        elif os.path.lexists(path) and path.suffix.lower() not in SUFFIXES:
            raise SettingsError(
                f"{path} is no picture that kbdenoise can write: its name ends in '{path.suffix}'",
                hint="pictures end in " + " ".join(SUFFIXES),
            )
        else:
            sources.append(path)
    return sources


def _jobs(sources: Sequence[Path], out: Path) -> list[Job]:
    """Read every header and settle every target, so that trouble shows before the work begins."""
    if os.path.lexists(out) and not os.path.isdir(out):
        raise SettingsError(f"{out} is a file", hint="name a folder with --out")
    for path in (out / LEDGER_FILE, *(out / source.name for source in sources)):
        if path.is_dir():
            raise SettingsError(f"{path} is a folder", hint="move it, or choose another --out")
    targets: dict[Path, Path] = {}
    jobs = []
    for source in sources:
        target = out / source.name
        if target in targets:
            raise SettingsError(
                f"{targets[target]} and {source} would both be written to {target}",
                hint="restore them in two calls with different --out folders",
            )
        if target.resolve() == source.resolve():
            raise SettingsError(
                f"{source} would be overwritten by its own restoration",
                hint="name another folder with --out",
            )
        targets[target] = source
        header = read_header(source)
        _check_writable(source, header)
        jobs.append(Job(source=source, target=target, header=header, stamp=stamp(source)))
    return jobs


def _check_writable(source: Path, header: Header) -> None:
    """Refuse a file whose content its own suffix cannot hold, such as a PNG called .jpg."""
    depths, keeps_alpha, _ = suffix_rules(source.suffix)
    if header.bit_depth not in depths or (header.alpha and not keeps_alpha):
        what = "an alpha channel" if header.bit_depth in depths else "16-bit values"
        raise DataError(
            f"{source} holds {what}, which a restored {source.suffix} file cannot",
            hint="its name does not tell what it is: rename or convert it to .png",
        )


def _work(loaded: Loaded) -> dict[str, Any]:
    """What tells one restoration from another: the weights and how they are run."""
    engine = loaded.config.engine.engine
    hyper = parse_hyper(loaded.config.model.hyper)
    return {
        "run" if loaded.origin else "weights": loaded.name,
        "weights_sha256": checksum(loaded.weights),
        "settings": asdict(loaded.config.tiles) | ({"hyper": hyper} if hyper else {}),
    } | ({} if engine == "torch" else {"engine": engine})


def _still_to_do(jobs: Sequence[Job], ledger: Ledger, *, force: bool) -> list[Job]:
    """Leave out what is done already; refuse to overwrite anything else."""
    if force:
        return list(jobs)
    todo = [job for job in jobs if not ledger.has(job.target, job.stamp)]
    present = [
        job
        for job in todo
        if job.target.exists() and not ledger.may_overwrite(job.target, job.stamp)
    ]
    if present:
        others = f", and {len(present) - 1} more" if len(present) > 1 else ""
        raise SettingsError(
            f"{present[0].target} is there already{others}",
            hint="add --force to overwrite, or name another folder with --out",
        )
    return todo
