"""The API: JSON in, JSON out, errors in either of Kaggle's two forms."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.fake_kaggle.faults import HTML, RULES, Fault
from tests.fake_kaggle.state import TOKEN, USER

if TYPE_CHECKING:
    from tests.fake_kaggle.server import _Handler

Fields = dict[str, Any]


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer(handler: "_Handler", name: str, body: bytes, fault: Fault | None) -> None:
    """Answer one call, or fail as asked."""
    if fault and fault.kind == "status":
        refuse(handler, fault.status, fault.message, fault=fault)
        return
    if fault and fault.kind == "html":
        handler.answer(200, HTML, {"Content-Type": "text/html"})
        return
    if fault and fault.kind in ("unmade", "phantom"):
        made: Fields = {"message": fault.message or "Successfully submitted", "ref": 0}
        made |= {"ref": 4_999_999} if fault.kind == "phantom" else {}
        handler.answer(200, json.dumps(made).encode(), {"Content-Type": "application/json"})
        return
    try:
        fields = json.loads(body or b"{}")
        _check_credential(handler, name)
        work = METHODS.get(name)
        if work is None:
            raise Refused(404, f"no method {name}")
        result = work(handler, fields)
    except Refused as error:
        refuse(handler, error.status, str(error))
        return
    if fault and fault.kind == "slow-made":
        handler.fake.closing.wait(fault.seconds)
        handler.drop()
    elif fault and fault.kind == "lost":
        handler.drop()
    elif isinstance(result, str):
        handler.answer(302, b"", {"Location": result})
    elif isinstance(result, bytes):
        handler.answer(200, result, {"Content-Type": "application/zip"})
    else:
        content = json.dumps(result).encode()
        handler.answer(200, content, {"Content-Type": "application/json; charset=utf-8"})


def refuse(handler: "_Handler", status: int, message: str, *, fault: Fault | None = None) -> None:
    """An error as Kaggle or as Google writes it; a web page where there is no message."""
    headers = {"Content-Type": "application/json"}
    content: Fields = {"code": status, "message": message}
    if fault and fault.google:
        content = {"error": {"code": status, "message": message, "status": "RESOURCE_EXHAUSTED"}}
    if fault and fault.retry_after:
        headers["Retry-After"] = fault.retry_after
    body = json.dumps(content).encode()
    if not message:
        body, headers["Content-Type"] = b"<html><title>Error</title></html>", "text/html"
    handler.answer(status, body, headers)


def _check_credential(handler: "_Handler", name: str) -> None:
    from tests.fake_kaggle.server import credential_kind

    kind = credential_kind(handler.headers.get("Authorization", ""))
    if name != "IntrospectToken" and kind not in ("basic", "bearer"):
        raise Refused(401, "Unauthenticated")


def _contest(handler: "_Handler", fields: Fields) -> Any:
    contest = handler.fake.contest
    if fields.get("competitionName") != contest.slug:
        raise Refused(404, "Not found")
    return contest


def _introspect(handler: "_Handler", fields: Fields) -> Fields:
    if fields.get("token") != TOKEN:
        raise Refused(403, "Invalid token")
    return {"active": True, "username": USER, "userId": 7}


def _competition(handler: "_Handler", fields: Fields) -> Fields:
    contest = _contest(handler, fields)
    return {
        "id": 3,
        "ref": f"https://www.kaggle.com/competitions/{contest.slug}",
        "title": contest.title,
        "url": f"https://www.kaggle.com/competitions/{contest.slug}",
        "deadline": contest.deadline,
        "userHasEntered": contest.entered,
        "maxDailySubmissions": contest.max_daily,
        "evaluationMetric": contest.metric,
        "isKernelsSubmissionsOnly": contest.code_only,
        "submissionsDisabled": contest.closed,
    }


def _files(handler: "_Handler", fields: Fields) -> Fields:
    contest = _entered(handler, fields)
    start, count = int(fields.get("pageToken") or 0), int(fields.get("pageSize") or 20)
    found = contest.files()
    listed = [
        {"ref": f"{name}-ref", "name": name, "totalBytes": size}
        for name, size in found[start : start + count]
    ]
    more = start + count < len(found)
    return {"files": listed} | ({"nextPageToken": str(start + count)} if more else {})


def _entered(handler: "_Handler", fields: Fields) -> Any:
    contest = _contest(handler, fields)
    if not contest.entered:
        raise Refused(403, RULES)
    return contest


def _download_all(handler: "_Handler", fields: Fields) -> str:
    contest = _entered(handler, fields)
    return _signed(handler, f"/storage/{contest.slug}/archive.zip")


def _download_one(handler: "_Handler", fields: Fields) -> str:
    from urllib.parse import quote

    contest = _entered(handler, fields)
    if contest.file(fields["fileName"]) is None:
        raise Refused(404, "Not found")
    return _signed(handler, f"/storage/{contest.slug}/one/{quote(fields['fileName'])}")


def _signed(handler: "_Handler", path: str) -> str:
    from tests.fake_kaggle.server import SIGNATURE, STORAGE_HOST

    scheme = "https" if handler.fake.tls else "http"
    return f"{scheme}://{STORAGE_HOST}{path}?GoogleAccessId=x&Expires=1&Signature={SIGNATURE}"


def _start_upload(handler: "_Handler", fields: Fields) -> Fields:
    from tests.fake_kaggle.server import SIGNATURE, STORAGE_HOST

    contest = _entered(handler, fields)
    token = f"upload-{len(contest.uploads)}"
    contest.uploads[token] = (fields["fileName"], b"")
    url = f"http://{STORAGE_HOST}/upload/{token}?upload_id={SIGNATURE}"
    return {"token": token, "createUrl": url}


def _create(handler: "_Handler", fields: Fields) -> Fields:
    contest = _entered(handler, fields)
    if contest.code_only:
        raise Refused(400, "This competition only accepts Submissions from Notebooks.")
    if not contest.left_today():
        raise Refused(400, "You have reached your daily submission limit.")
    if fields.get("blobFileTokens") not in contest.uploads:
        raise Refused(400, "Submission file was not uploaded.")
    entry = contest.submit(fields["blobFileTokens"], fields.get("submissionDescription", ""))
    return {"message": f"Successfully submitted to {contest.title}", "ref": entry.ref}


def _submissions(handler: "_Handler", fields: Fields) -> Fields:
    contest = _contest(handler, fields)
    newest = [contest.described(entry) for entry in reversed(contest.submissions)]
    count = int(fields.get("pageSize") or 20)
    start = int(fields.get("pageToken") or (int(fields.get("page") or 1) - 1) * count)
    more = start + count < len(newest)
    return {"submissions": newest[start : start + count]} | (
        {"nextPageToken": str(start + count)} if more else {}
    )


def _submission(handler: "_Handler", fields: Fields) -> Fields:
    contest = handler.fake.contest
    for entry in contest.submissions:
        if entry.ref == fields.get("ref"):
            return contest.described(entry)
    raise Refused(404, "Not found")


def _limits(handler: "_Handler", fields: Fields) -> Fields:
    contest = _entered(handler, fields)
    used = len(contest.submissions)
    return {"numToday": used, "numTotal": used, "numAllowedNow": contest.left_today()}


def _leaderboard(handler: "_Handler", fields: Fields) -> Fields:
    rows = _contest(handler, fields).leaderboard()
    start, count = int(fields.get("pageToken") or 0), int(fields.get("pageSize") or 20)
    more = start + count < len(rows)
    return {"submissions": rows[start : start + count]} | (
        {"nextPageToken": str(start + count)} if more else {}
    )


def _download_leaderboard(handler: "_Handler", fields: Fields) -> bytes:
    contest = _contest(handler, fields)
    rows = [f"{row['teamId']},{row['teamName']},{row['score']}" for row in contest.leaderboard()]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        text = "\n".join(["TeamId,TeamName,Score", *rows])
        archive.writestr(f"{contest.slug}-publicleaderboard.csv", text)
    return packed.getvalue()


METHODS: dict[str, Callable[["_Handler", Fields], Fields | str | bytes]] = {
    "IntrospectToken": _introspect,
    "GetCompetition": _competition,
    "ListDataFiles": _files,
    "DownloadDataFiles": _download_all,
    "DownloadDataFile": _download_one,
    "StartSubmissionUpload": _start_upload,
    "CreateSubmission": _create,
    "ListSubmissions": _submissions,
    "GetSubmission": _submission,
    "GetSubmissionLimits": _limits,
    "GetLeaderboard": _leaderboard,
    "DownloadLeaderboard": _download_leaderboard,
}
