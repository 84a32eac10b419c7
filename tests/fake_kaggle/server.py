"""The server: a thread on 127.0.0.1 that speaks to the client as Kaggle and as its storage."""

import contextlib
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.fake_kaggle import api, storage
from tests.fake_kaggle.faults import Fault, FaultPlan
from tests.fake_kaggle.state import KEY, TOKEN, USER, Contest

STORAGE_HOST = "storage.fake-kaggle.test"
SIGNATURE = "canary9signature9canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came in; of a credential only the kind is kept."""

    name: str
    """The API method, or `storage`, `upload`, `link`, or `CONNECT`."""
    method: str
    path: str
    status: int
    """0 if no answer was given."""
    range: str
    credential: str
    """none, basic, bearer, or wrong."""


class FakeKaggle:
    """A Kaggle with one contest. A context manager; use it to see what the client did."""

    def __init__(self, slug: str = "tiny", **contest: Any) -> None:
        self.contest = Contest(slug=slug, **contest)
        self.requests: list[Request] = []
        self.plan = FaultPlan()
        self.closing = threading.Event()
        self.links: dict[str, bytes] = {}
        """Bodies of plain links, by path: `/some.zip`."""
        self.with_md5 = True
        self.heeds_if_range = True
        self.newest_client = ""
        """The version of the client that every answer recommends."""
        self.tls: ssl.SSLContext | None = None
        """Set by `encrypt`."""
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path, *, credential: str = "key") -> dict[str, str]:
        """Variables that lead the real client here; `credential` is key, token or none."""
        home.mkdir(parents=True, exist_ok=True)
        variables = {
            "HOME": str(home),
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "NO_PROXY": "",
            "no_proxy": "",
            "KBDENOISE_TIMEOUT": "3",
        }
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            variables[name] = self.url
        if credential == "key":
            variables |= {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY}
        elif credential == "token":
            variables["KAGGLE_API_TOKEN"] = TOKEN
        return variables

    def fail(self, name: str, *faults: Fault, times: int | None = 1) -> None:
        """Let the next answers to a method go wrong; the last fault `times` times, None: always."""
        self.plan.add(name, faults, times=times)

    def encrypt(self, folder: Path) -> Path:
        """Be the proxy of a company: its hosts speak HTTPS, with the certificate returned."""
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        names = f"subjectAltName=DNS:api.kaggle.com,DNS:{STORAGE_HOST}"
        words = (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
        )
        paths = ["-keyout", str(key), "-out", str(certificate), "-addext", names]
        subprocess.run(["openssl", *words.split(), *paths], check=True, capture_output=True)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)
        return certificate

    def heal(self) -> None:
        """All is well again."""
        self.plan.clear()

    def count(self, name: str) -> int:
        """How often a method was called."""
        return sum(request.name == name for request in self.requests)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        kaggle = self

        class Handler(_Handler):
            fake = kaggle

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed reset their connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeKaggle
    sent_status = 0

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_CONNECT(self) -> None:
        """Nothing is passed on: all hosts are here, if `encrypt` was called, or are refused."""
        if self.fake.tls is None:
            self._answered("CONNECT", lambda fault: self.answer(403, b""))
            return
        self._answered("CONNECT", lambda fault: self.begin(200, 0, {}))
        try:
            self.request = self.fake.tls.wrap_socket(self.connection, server_side=True)
        except OSError:  # the client does not trust the certificate
            self.close_connection = True
            return
        self.setup()
        self.close_connection = False

    def do_POST(self) -> None:
        """A call of the API."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = urlsplit(self.path).path.rpartition("/")[2]
        self._answered(name, lambda fault: api.answer(self, name, body, fault))

    def do_GET(self) -> None:
        """A body from the storage, or a plain link."""
        name = "storage" if urlsplit(self.path).path.startswith("/storage/") else "link"
        self._answered(name, lambda fault: storage.send(self, name, fault))

    def do_PUT(self) -> None:
        """An upload."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answered("upload", lambda fault: storage.take(self, body, fault))

    def _answered(self, name: str, work: Callable[[Fault | None], None]) -> None:
        self.sent_status = 0
        fault = self.fake.plan.next(name)
        # Written down before the answer: the client may be gone, and the test look, at once.
        place = len(self.fake.requests)
        self.fake.requests.append(self._request(name))
        try:
            if fault and fault.kind == "hang":
                self.fake.closing.wait(fault.seconds)
                self.drop()
            elif fault and fault.kind == "drop":
                self.drop()
            else:
                work(fault)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            with contextlib.suppress(IndexError):
                self.fake.requests[place] = self._request(name)

    def _request(self, name: str) -> Request:
        return Request(
            name=name,
            method=self.command,
            path=urlsplit(self.path).path,
            status=self.sent_status,
            range=self.headers.get("Range", ""),
            credential=credential_kind(self.headers.get("Authorization", "")),
        )

    def drop(self) -> None:
        """Close the connection without a word."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.begin(status, len(body), headers or {})
        self.wfile.write(body)

    def begin(self, status: int, length: int, headers: dict[str, str]) -> None:
        """Send the head of an answer."""
        self.sent_status = status
        self.send_response(status)
        newest = {"X-Kaggle-ApiVersion": self.fake.newest_client} if self.fake.newest_client else {}
        for key, value in ({"Content-Length": str(length)} | newest | headers).items():
            self.send_header(key, value)
        self.end_headers()


def credential_kind(header: str) -> str:
    """What an Authorization header holds, without its value."""
    import base64

    if not header:
        return "none"
    if header == "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode():
        return "basic"
    return "bearer" if header == f"Bearer {TOKEN}" else "wrong"
