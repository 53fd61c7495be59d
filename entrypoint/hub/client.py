"""The hub: a model's list of files and pieces of them, each request within bounds of time and size.

huggingface_hub gives the session, the addresses, and the token where somebody has logged in. Its own readers are not
used: they set no limit to the whole of a read, and its download (2.4) begins anew after a kill and checks no hash.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import httpx2
from huggingface_hub import get_session, get_token, hf_hub_url

from entrypoint.checkpoint.safetensors_header import CheckpointError
from entrypoint.hub.listing import PUBLIC_HUB, Deadline, HubError, Kind, Listing, parse_listing

CONNECT_SECONDS = 10.0
READ_SECONDS = 10.0
LISTING_LIMIT_BYTES = 10_000_000
logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every address, and one elsewhere is signed: a secret


class Hub:
    """Asks one endpoint. The token goes to its origin alone: the session drops it at a redirect elsewhere."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint = endpoint
        # Not huggingface_hub's own headers (2.4): these would ask the endpoint for a list of coding agents first.
        self._headers = {"User-Agent": "berth", "Accept-Encoding": "identity"}
        if token is None and endpoint == PUBLIC_HUB:
            token = get_token()  # what somebody logged in with there; a mirror gets what HF_TOKEN says, or nothing
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def listing(self, repo: str, revision: str, deadline: Deadline) -> Listing:
        """Resolves a branch, tag or commit and lists its files, by one request. Raises HubError, CheckpointError."""
        url = f"{self.endpoint}/api/models/{repo}/revision/{revision.replace('/', '%2F')}?blobs=true"
        return parse_listing(repo, url, self._read(url, 0, LISTING_LIMIT_BYTES, deadline))

    def read(self, listing: Listing, name: str, start: int, count: int, deadline: Deadline) -> bytes:
        """At most `count` bytes of a file from `start`, by a range request. Raises HubError."""
        return self._read(self._address(listing, name), start, count, deadline, ranged=True)

    @contextlib.contextmanager
    def stream(self, listing: Listing, name: str, start: int, silence_seconds: float) -> Iterator[Iterator[bytes]]:
        """The bytes of a file from `start` on, as they come. Raises HubError, also after a silence."""
        with self._open(self._address(listing, name), {"Range": f"bytes={start}-"}, silence_seconds) as response:
            yield _from(response, start)

    def answers(self, listing: Listing, seconds: float) -> HubError | None:
        """Whether the endpoint answers at all: None when it does, else what keeps it from it."""
        try:
            self.listing(listing.repo, listing.commit, Deadline(seconds))
        except HubError as error:
            return error
        except CheckpointError as error:
            return HubError("broken", str(error))
        return None

    def _address(self, listing: Listing, name: str) -> str:
        return hf_hub_url(listing.repo, name, revision=listing.commit, endpoint=self.endpoint)

    def _read(self, url: str, start: int, count: int, deadline: Deadline, ranged: bool = False) -> bytes:
        headers = {"Range": f"bytes={start}-{start + count - 1}"} if ranged else {}
        found = bytearray()
        with self._open(url, headers, min(READ_SECONDS, deadline.left())) as response:
            for chunk in _from(response, start):
                found += chunk
                deadline.left()
                if len(found) >= count:
                    break
        return bytes(found[:count])

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str], seconds: float) -> Iterator[httpx2.Response]:
        timeout = httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        try:
            with _session().stream("GET", url, headers={**self._headers, **headers}, timeout=timeout) as response:
                if response.status_code >= 400:
                    raise _refused(response)
                yield response
        except httpx2.TimeoutException as error:
            raise HubError("slow", f"no byte for {seconds:.0f} s") from error
        except httpx2.ConnectError as error:
            raise HubError("unreachable", str(error) or "no connection") from error
        except (httpx2.RemoteProtocolError, httpx2.NetworkError) as error:
            raise HubError("cut", "the connection was cut") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the caller's own: a full disk while the bytes were written
            raise HubError("broken", type(error).__name__) from error


def _session() -> httpx2.Client:
    try:
        return get_session()
    except (ImportError, ValueError) as error:  # its text may hold the proxy's password
        raise HubError(
            "unreachable", "the proxy that HTTPS_PROXY or ALL_PROXY names can't be used; give an http:// address"
        ) from error


def _from(response: httpx2.Response, start: int) -> Iterator[bytes]:
    """The body from `start` on, where the server heeded the range and where it sent the whole file."""
    skip = 0 if response.status_code == 206 else start
    for chunk in response.iter_raw():
        yield chunk[skip:]
        skip = max(0, skip - len(chunk))


def _refused(response: httpx2.Response) -> HubError:
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    after = response.headers.get("Retry-After", "")
    kinds: dict[int, Kind] = {401: "unauthorised", 403: "gated", 404: "no_model", 410: "no_model", 429: "busy"}
    kind = kinds.get(status, "broken")
    if code == "GatedRepo":
        kind = "gated"
    elif code == "RevisionNotFound":
        kind = "no_revision"
    elif code == "EntryNotFound" or (response.history and kind in ("unauthorised", "gated", "no_model")):
        kind = "broken"  # says nothing of the model: a signed address elsewhere has run out, or one file is gone
    return HubError(kind, f"HTTP {status}", status, float(after) if after.isascii() and after.isdigit() else None)
