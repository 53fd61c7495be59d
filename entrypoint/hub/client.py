"""Requests to the hub: a model's list of files and ranges of these files, each with a limit on time and size.

huggingface_hub provides the session, the URLs and the token of a user who logged in. Its own readers are not used:
they don't limit the time of a whole read, and its download (2.4) starts over after a kill and checks no hash.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

import httpx2
from huggingface_hub import get_session, get_token, hf_hub_url

from entrypoint.checkpoint.safetensors_header import CheckpointError
from entrypoint.hub.listing import PUBLIC_HUB, Deadline, HubError, HubErrorKind, Listing, parse_listing
from entrypoint.reasons.files import InvalidCheckpoint
from entrypoint.reasons.hub import BadProxy, ConnectionLost, HttpError, NoConnection, NoData, RequestFailed

CONNECT_SECONDS = 10.0
READ_SECONDS = 10.0
LISTING_LIMIT_BYTES = 10_000_000
ERRNO = re.compile(r"^\[Errno -?\d+\] ")
"""Before the text of an OSError; it says nothing to users."""
logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every URL, and a signed one is a secret


class Hub:
    """One endpoint. The token goes to its origin only: the session drops it at a redirect to another host."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint = endpoint
        # Not huggingface_hub's own headers (2.4): making them requests a list of coding agents from the endpoint first.
        self._headers = {"User-Agent": "berth", "Accept-Encoding": "identity"}
        if token is None and endpoint == PUBLIC_HUB:
            token = get_token()  # of the user's login at the public hub; a mirror gets HF_TOKEN or nothing
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def listing(self, repo: str, revision: str, deadline: Deadline) -> Listing:
        """Resolves a branch, tag or commit and lists its files in one request. Raises HubError, CheckpointError."""
        url = f"{self.endpoint}/api/models/{repo}/revision/{revision.replace('/', '%2F')}?blobs=true"
        return parse_listing(repo, url, self._read(url, 0, LISTING_LIMIT_BYTES, deadline))

    def read(self, listing: Listing, name: str, start: int, count: int, deadline: Deadline) -> bytes:
        """At most `count` bytes of a file from `start`, by a range request. Raises HubError."""
        return self._read(self._address(listing, name), start, count, deadline, ranged=True)

    @contextlib.contextmanager
    def stream(self, listing: Listing, name: str, start: int, stall_seconds: float) -> Iterator[Iterator[bytes]]:
        """The bytes of a file from `start` on, as they arrive. Raises HubError, also if none do for `stall_seconds`."""
        with self._open(self._address(listing, name), {"Range": f"bytes={start}-"}, stall_seconds) as response:
            yield _body(response, start)

    def check(self, listing: Listing, seconds: float) -> HubError | None:
        """None if the endpoint answers, else its error."""
        try:
            self.listing(listing.repo, listing.commit, Deadline(seconds))
        except HubError as error:
            return error
        except CheckpointError as error:
            return HubError("broken", InvalidCheckpoint(str(error)))
        return None

    def _address(self, listing: Listing, name: str) -> str:
        return hf_hub_url(listing.repo, name, revision=listing.commit, endpoint=self.endpoint)

    def _read(self, url: str, start: int, count: int, deadline: Deadline, ranged: bool = False) -> bytes:
        headers = {"Range": f"bytes={start}-{start + count - 1}"} if ranged else {}
        data = bytearray()
        with self._open(url, headers, min(READ_SECONDS, deadline.left())) as response:
            for chunk in _body(response, start):
                data += chunk
                deadline.left()
                if len(data) >= count:
                    break
        return bytes(data[:count])

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str], seconds: float) -> Iterator[httpx2.Response]:
        timeout = httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        try:
            with _session().stream("GET", url, headers={**self._headers, **headers}, timeout=timeout) as response:
                if response.status_code >= 400:
                    raise _http_error(response)
                yield response
        except httpx2.TimeoutException as error:
            raise HubError("slow", NoData(seconds)) from error
        except httpx2.ConnectError as error:
            raise HubError("unreachable", NoConnection(ERRNO.sub("", str(error)))) from error
        except (httpx2.RemoteProtocolError, httpx2.NetworkError) as error:
            raise HubError("cut", ConnectionLost()) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the caller's: the disk is full while it writes the bytes
            raise HubError("broken", RequestFailed(type(error).__name__)) from error


def _session() -> httpx2.Client:
    try:
        return get_session()
    except (ImportError, ValueError) as error:  # its text may hold the proxy's password
        raise HubError("unreachable", BadProxy()) from error


def _body(response: httpx2.Response, start: int) -> Iterator[bytes]:
    """The body from `start` on, whether the server sent the range or the whole file."""
    skip = 0 if response.status_code == 206 else start
    for chunk in response.iter_raw():
        yield chunk[skip:]
        skip = max(0, skip - len(chunk))


def _http_error(response: httpx2.Response) -> HubError:
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    after = response.headers.get("Retry-After", "")
    kinds: dict[int, HubErrorKind] = {401: "unauthorised", 403: "gated", 404: "no_model", 410: "no_model", 429: "busy"}
    kind = kinds.get(status, "broken")
    if code == "GatedRepo":
        kind = "gated"
    elif code == "RevisionNotFound":
        kind = "no_revision"
    elif code == "EntryNotFound" or (response.history and kind in ("unauthorised", "gated", "no_model")):
        kind = "broken"  # not about the model: a signed URL has expired, or one file is gone
    return HubError(kind, HttpError(status), status, float(after) if after.isascii() and after.isdigit() else None)
