"""The storage behind signed links: bodies with ranges and checksums, and uploads."""

import base64
import hashlib
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fake_kaggle.faults import HTML, Fault, damaged
from tests.fake_kaggle.state import etag

if TYPE_CHECKING:
    from tests.fake_kaggle.server import _Handler

EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code></Error>"
_BLOCK = 16 << 10


def send(handler: "_Handler", name: str, fault: Fault | None) -> None:
    """Send a body, whole or from the byte that was asked for, or fail as asked."""
    kind = fault.kind if fault else "none"
    if kind == "expired":
        handler.answer(403, EXPIRED, {"Content-Type": "application/xml"})
        return
    if kind == "html":
        handler.answer(200, HTML, {"Content-Type": "text/html"})
        return
    if kind == "status" and fault:
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        handler.answer(fault.status, fault.message.encode(), headers)
        return
    large = handler.fake.contest.archive_path
    if name == "storage" and large and "/one/" not in handler.path:
        _send_file(handler, large)
        return
    whole = _body(handler, name)
    if whole is None:
        handler.answer(404, b"<html>not found</html>", {"Content-Type": "text/html"})
        return
    headers = {} if kind == "bare" else _headers(handler, whole)
    content = damaged(whole, fault)
    start = 0 if kind == "bare" else _start(handler, whole)
    if start >= len(content) and start:
        handler.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        return
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.begin(206 if start else 200, len(content) - start, headers)
    _write(handler, content[start:], fault)


def _send_file(handler: "_Handler", path: Path) -> None:
    """A large file, from the byte that was asked for; it has no checksum."""
    size_bytes = path.stat().st_size
    tag = f'"{size_bytes}"'
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(asked[1]) if asked and handler.headers.get("If-Range") == tag else 0
    headers = {"Content-Type": "application/zip", "ETag": tag}
    if start:
        headers["Content-Range"] = f"bytes {start}-{size_bytes - 1}/{size_bytes}"
    handler.begin(206 if start else 200, size_bytes - start, headers)
    with path.open("rb") as file:
        file.seek(start)
        shutil.copyfileobj(file, handler.wfile, 1 << 20)


def _body(handler: "_Handler", name: str) -> bytes | None:
    split = urlsplit(handler.path)
    contest = handler.fake.contest
    if name == "link":
        return handler.fake.links.get(split.path)
    if "Signature" not in parse_qs(split.query):
        return None
    if split.path.endswith("/archive.zip") and "/one/" not in split.path:
        return contest.archive
    return contest.file(unquote(split.path.partition("/one/")[2]))


def _headers(handler: "_Handler", content: bytes) -> dict[str, str]:
    headers = {
        "Content-Type": "application/zip",
        "Accept-Ranges": "bytes",
        "ETag": etag(content),
        "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT",
    }
    if handler.fake.with_md5:
        digest = base64.b64encode(hashlib.md5(content).digest()).decode()
        headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={digest}"
    return headers


def _start(handler: "_Handler", content: bytes) -> int:
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    condition = handler.headers.get("If-Range", "")
    changed = bool(condition) and condition != etag(content)
    if not asked or (changed and handler.fake.heeds_if_range):
        return 0
    return int(asked[1])


def _write(handler: "_Handler", content: bytes, fault: Fault | None) -> None:
    kind = fault.kind if fault else "none"
    if fault and kind in ("cut", "stall"):
        handler.wfile.write(content[: fault.after])
        handler.wfile.flush()
        if kind == "stall":
            handler.fake.closing.wait(fault.seconds)
        handler.drop()
        return
    pause_s = _BLOCK / fault.per_s if fault and kind == "slow" else 0.0
    for at in range(0, len(content), _BLOCK):
        handler.wfile.write(content[at : at + _BLOCK])
        if pause_s:
            handler.wfile.flush()
            time.sleep(pause_s)


def take(handler: "_Handler", content: bytes, fault: Fault | None) -> None:
    """Take an upload, or fail as asked."""
    if fault and fault.kind == "status":
        handler.answer(fault.status, fault.message.encode())
        return
    contest = handler.fake.contest
    token = urlsplit(handler.path).path.rpartition("/")[2]
    if token not in contest.uploads:
        handler.answer(404, b"")
        return
    contest.uploads[token] = (contest.uploads[token][0], content)
    if fault and fault.kind == "lost":
        handler.drop()
        return
    handler.answer(201, b"")
