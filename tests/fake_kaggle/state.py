"""What the fake Kaggle knows: one contest, its files, who may come in, what was handed in."""

import csv
import hashlib
import io
import time
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

USER = "tester"
KEY = "canary1key2canary3key4canary5key"
TOKEN = "KGAT_canary0token0canary0token0"


@dataclass(slots=True)
class Submission:
    """One submission, as Kaggle keeps it."""

    ref: int
    file_name: str
    description: str
    content: bytes
    made_at: float
    error: str = ""
    public: str = ""
    private: str = ""


@dataclass(slots=True)
class Contest:
    """The contest that is served."""

    slug: str
    archive: bytes = b""
    """What DownloadDataFiles sends; its entries are the contest's files."""
    archive_path: Path | None = None
    """A file that is sent instead, without being read into memory."""
    title: str = "A tiny contest"
    metric: str = "mae"
    """Also rmse or accuracy."""
    solution: str = ""
    """CSV with id, value, Usage (Public or Private)."""
    code_only: bool = False
    closed: bool = False
    entered: bool = True
    max_daily: int = 5
    deadline: str = "2030-01-01T23:59:00Z"
    pending_s: float = 0.0
    """How long a submission stays PENDING; infinity for ever."""
    scoring_error: str = ""
    """Every submission ends in ERROR with this text."""
    better_teams: int = 0
    """How many teams are ahead of all others on the leaderboard."""
    submissions: list[Submission] = field(default_factory=list)
    uploads: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Token of an upload to the file's name and what has come of it."""
    wrapped: set[str] = field(default_factory=set)
    """Single files that come wrapped into a zip of their own."""

    def files(self) -> list[tuple[str, int]]:
        """Names and sizes of the archive's files."""
        try:
            with zipfile.ZipFile(io.BytesIO(self.archive)) as archive:
                return [(e.filename, e.file_size) for e in archive.infolist() if not e.is_dir()]
        except zipfile.BadZipFile:
            return []

    def file(self, name: str) -> bytes | None:
        """One file out of the archive."""
        with zipfile.ZipFile(io.BytesIO(self.archive)) as archive:
            content = archive.read(name) if name in archive.namelist() else None
        if content is None or name not in self.wrapped:
            return content
        packed = io.BytesIO()
        entry = zipfile.ZipInfo(name.rpartition("/")[2], (2025, 1, 1, 0, 0, 0))
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(entry, content)
        return packed.getvalue()

    def submit(self, token: str, description: str) -> Submission:
        """Take what was uploaded as a submission, and score it."""
        name, content = self.uploads[token]
        entry = Submission(
            ref=4_000_001 + len(self.submissions),
            file_name=name,
            description=description,
            content=content,
            made_at=time.time(),
        )
        entry.error, entry.public, entry.private = score(content, self.solution, metric=self.metric)
        if self.scoring_error:
            entry.error = self.scoring_error
        self.submissions.append(entry)
        return entry

    def left_today(self) -> int:
        """Submissions that are still taken today."""
        return max(0, self.max_daily - len(self.submissions))

    def described(self, entry: Submission) -> dict[str, object]:
        """A submission as ListSubmissions and GetSubmission tell it; defaults are left out."""
        waiting = time.time() - entry.made_at < self.pending_s
        status = "PENDING" if waiting else "ERROR" if entry.error else "COMPLETE"
        told: dict[str, object] = {
            "ref": entry.ref,
            "totalBytes": len(entry.content),
            "date": _date(entry.made_at),
            "description": entry.description,
            "fileName": entry.file_name,
            "submittedBy": USER,
            "teamName": "The Testers",
            "url": f"https://www.kaggle.com/submissions/{entry.ref}/{entry.ref}.raw",
        }
        if status != "PENDING":
            told["status"] = status
        if status == "ERROR":
            told["errorDescription"] = entry.error
        if status == "COMPLETE":
            told |= {"publicScore": entry.public, "privateScore": entry.private}
        return told

    def leaderboard(self) -> list[dict[str, object]]:
        """The teams, best first: ours, if it has a score, and two others."""
        rows = [("Others", "0.05000"), ("Yet Others", "99.00000")]
        rows += [(f"Better {i}", "0.00100") for i in range(self.better_teams)]
        scored = [s for s in self.submissions if self.described(s).get("publicScore")]
        if scored:
            rows.append(("The Testers", min((s.public for s in scored), key=float)))
        rows.sort(key=lambda row: float(row[1]))
        return [
            {"teamId": 100 + i, "teamName": name, "submissionDate": _date(0), "score": value}
            for i, (name, value) in enumerate(rows)
        ]


def score(content: bytes, solution: str, *, metric: str) -> tuple[str, str, str]:
    """What is wrong with a submission, or its public and private score."""
    truth = list(csv.DictReader(io.StringIO(solution)))
    try:
        rows = list(csv.reader(io.StringIO(content.decode())))
        answers = {row[0]: row[1] for row in rows[1:]}
        if len(answers) != len(truth):
            return f"Evaluation: {len(answers)} rows, {len(truth)} expected", "", ""
        both = []
        for usage in ("Public", "Private"):
            part = [(answers[r["id"]], r["value"]) for r in truth if r["Usage"] == usage]
            both.append(f"{_metric(part, metric):.5f}" if part else "")
    except (KeyError, ValueError, IndexError, UnicodeDecodeError) as error:
        return f"Evaluation Exception: Submission must have the right columns ({error})", "", ""
    return "", both[0], both[1]


def _metric(part: list[tuple[str, str]], metric: str) -> float:
    if metric == "accuracy":
        return sum(a == b for a, b in part) / len(part)
    gaps = [abs(float(a) - float(b)) for a, b in part]
    if metric == "rmse":
        return float((sum(g * g for g in gaps) / len(gaps)) ** 0.5)
    return sum(gaps) / len(gaps)


def etag(content: bytes) -> str:
    """The ETag of a body."""
    return f'"{hashlib.md5(content).hexdigest()}"'


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
