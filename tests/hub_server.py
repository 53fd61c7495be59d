"""A server with the hub's endpoints that serves folders, with faults on request; standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True)
class HubRequest:
    """One request."""

    path: str
    range: str | None
    token: str | None


@dataclass
class Faults:
    """What goes wrong; nothing by default."""

    answers: dict[str, int] = field(default_factory=dict)
    """HTTP status by the last part of the path: a file name, or the revision for the listing."""
    answers_left: int = 1 << 30
    """How many of `answers`; then requests succeed."""
    error_code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of an error."""
    redirect_to: str | None = None
    """Requests for files are redirected to this URL."""
    cut_after: dict[str, int] = field(default_factory=dict)
    """Bytes after which the connection is closed, by file."""
    cuts_left: int = 1 << 30
    stall_after: dict[str, int] = field(default_factory=dict)
    """Bytes after which nothing more is sent, by file."""
    stalls_left: int = 1 << 30
    seconds_before_listing: float = 0
    bytes_per_second: int | None = None
    bodies: dict[str, bytes] = field(default_factory=dict)
    """Bodies to serve instead of files, by name; the listing describes the files."""
    ignore_ranges: bool = False


class HubServer:
    """Serves `folders` by hub id until it is closed."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders, self.faults, self.requests = dict(folders), Faults(), list[HubRequest]()
        self.sizes: dict[str, int] = {}
        """Wrong sizes for the listing, by file."""
        self.sent: dict[str, int] = {}
        """Bytes sent, by file."""
        self.hash_nothing = False
        """The listing has zeros for hashes: for sparse files of many gigabytes."""
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_HubHandler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stops the server and ends stalled requests."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def requests_for(self, name: str) -> list[HubRequest]:
        """The requests whose path ends in a name."""
        return [request for request in self.requests if request.path.partition("?")[0].endswith(f"/{name}")]

    def listing(self, repo: str) -> dict[str, Any]:
        """The answer of /api/models/{id}/revision/{rev}?blobs=true."""
        return {
            "id": repo,
            "sha": COMMIT,
            "siblings": [self._sibling(path) for path in sorted(self.folders[repo].iterdir()) if path.is_file()],
        }

    def _sibling(self, path: Path) -> dict[str, Any]:
        size = self.sizes.get(path.name, path.stat().st_size)
        entry: dict[str, Any] = {"rfilename": path.name, "size": size, "blobId": git_hash(path)}
        if path.suffix in (".safetensors", ".bin", ".model"):
            digest = "0" * 64 if self.hash_nothing else sha256(path)
            entry["lfs"] = {"sha256": digest, "size": size, "pointerSize": 135}
        return entry


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_hash(path: Path) -> str:
    data = path.read_bytes() if path.stat().st_size < 1 << 24 else b""  # larger ones are in large file storage
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _HubHandler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""

    def do_GET(self) -> None:
        hub, faults = self.hub, self.hub.faults
        path = self.path.partition("?")[0]
        hub.requests.append(HubRequest(self.path, self.headers["Range"], self.headers["Authorization"]))
        name = path.rpartition("/")[2]
        status = faults.answers.get(name)
        if status and faults.answers_left > 0:
            faults.answers_left -= 1
            self._error(status)
        elif path.startswith("/api/models/"):
            time.sleep(faults.seconds_before_listing)
            self._listing(path.removeprefix("/api/models/").partition("/revision/")[0])
        elif faults.redirect_to:
            self._start(302, 0, {"Location": f"{faults.redirect_to}{self.path}?signature=SECRET"})
        else:
            self._file(path.partition("/resolve/")[0].lstrip("/"), name)

    def _listing(self, repo: str) -> None:
        if repo not in self.hub.folders:
            self._error(404, "RepoNotFound")
            return
        body = json.dumps(self.hub.listing(repo)).encode()
        with contextlib.suppress(OSError):  # the client is gone
            self._start(200, len(body))
            self.wfile.write(body)

    def _file(self, repo: str, name: str) -> None:
        path = self.hub.folders[repo] / name
        body = self.hub.faults.bodies.get(name)
        if body is None and not path.is_file():
            self._error(404, "EntryNotFound")
            return
        size = len(body) if body is not None else path.stat().st_size
        begin, end = self._range(size)
        if begin >= size:
            self._start(416, 0, {"Content-Range": f"bytes */{size}"})
            return
        extra = {"X-Repo-Commit": COMMIT, "ETag": '"any"'}
        if (begin, end) != (0, size):
            extra["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        self._start(206 if "Content-Range" in extra else 200, end - begin, extra)
        try:
            self._send(name, path, body, begin, end)
        except OSError:
            self.close_connection = True

    def _range(self, size: int) -> tuple[int, int]:
        header = self.headers["Range"]
        if not header or self.hub.faults.ignore_ranges:
            return 0, size
        begin, _, end = header.removeprefix("bytes=").partition("-")
        return int(begin), min(size, int(end) + 1 if end else size)

    def _send(self, name: str, path: Path, body: bytes | None, begin: int, end: int) -> None:
        faults, sent = self.hub.faults, 0
        cut, stall = faults.cut_after.get(name), faults.stall_after.get(name)
        with path.open("rb") as file:
            file.seek(begin)
            while sent < end - begin:
                if cut is not None and sent >= cut and faults.cuts_left > 0:
                    faults.cuts_left -= 1
                    self.close_connection = True
                    return
                if stall is not None and sent >= stall and faults.stalls_left > 0:
                    faults.stalls_left -= 1
                    self.hub.closing.wait(60)
                    self.close_connection = True
                    return
                count = min(CHUNK_BYTES, end - begin - sent)
                self.wfile.write(body[begin + sent : begin + sent + count] if body is not None else file.read(count))
                sent += count
                self.hub.sent[name] = self.hub.sent.get(name, 0) + count
                if faults.bytes_per_second:
                    self.hub.closing.wait(count / faults.bytes_per_second)

    def _error(self, status: int, code: str | None = None) -> None:
        code = self.hub.faults.error_code or code
        self._start(status, 0, {**({"X-Error-Code": code} if code else {}), **self.hub.faults.headers})

    def _start(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()


@contextmanager
def hub_serving(**folders: Path) -> Iterator[HubServer]:
    """A server of folders; `org__name` names `org/name`."""
    server = HubServer({name.replace("__", "/"): folder for name, folder in folders.items()})
    try:
        yield server
    finally:
        server.close()
