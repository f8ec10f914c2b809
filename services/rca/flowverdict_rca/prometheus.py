"""The command `fetch`: retransmission counters from a Prometheus server, as a file."""

import base64
import http.client
import json
import math
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPMessage
from pathlib import Path
from typing import IO

from flowverdict_rca.series import OfflineError
from flowverdict_runtime.settings import redact

__all__ = ["fetch"]

QUERY = "sum(tcp_retransmissions_total) by (src_ip, dst_ip)"
_STEP_SECONDS = 30
_MOST_POINTS = 10_000
"""Prometheus refuses more than 11,000 for one series (web/api/v1/api.go)."""
_MOST_BYTES = 256 << 20
_PATIENCE_SECONDS = 30.0
_QUERY_PATHS = ("/api/v1/query_range", "/api/v1/query")


def fetch(url: str, out: Path, minutes: float, headers: Mapping[str, str] | None = None) -> int:
    """Save the last `minutes` of retransmission counters to `out`.

    One JSON object per line, in the format of a range query's series: `metric` with `src_ip` and
    `dst_ip`, and `values`. Returns how many were written.

    Args:
        url: of the server, or of what forwards to it, with a user name and password if it wants
            them; a query address works, too.
        headers: added to the request, such as a token or a tenant.

    Raises:
        OfflineError: if Prometheus does not answer, returns an error, or has no such series.
    """
    address, own = _request_of(url)
    end, seconds = time.time(), 60 * minutes
    step = max(_STEP_SECONDS, math.ceil(seconds / _MOST_POINTS))
    query = {"query": QUERY, "start": end - seconds, "end": end, "step": step}
    request = urllib.request.Request(  # noqa: S310 # checked in _request_of
        f"{address}?{urllib.parse.urlencode(query)}", headers={**own, **(headers or {})}
    )
    try:
        answer = json.loads(_within_time(lambda: _asked(request, address), address))
        series = [dict(each) for each in answer["data"]["result"]]
    except (OSError, http.client.HTTPException) as error:
        raise OfflineError(f"{address} cannot be reached: {redact(str(error))}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OfflineError(f"{address} does not answer like a Prometheus server") from None
    if not series:
        raise OfflineError(f"the Prometheus at {address} has no tcp_retransmissions_total")
    try:
        out.write_text("".join(json.dumps(each) + "\n" for each in series))
    except OSError as error:
        raise OfflineError(f"{out} cannot be written: {error.strerror}") from None
    return len(series)


def _asked(request: urllib.request.Request, address: str) -> bytes:
    try:
        with _OPENER.open(request, timeout=_PATIENCE_SECONDS) as response:
            return _body(response, address)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode(errors="replace")
        raise OfflineError(f"{address} returned {error.code}: {said}") from None


def _within_time(ask: Callable[[], bytes], address: str) -> bytes:
    """What `ask` returns or raises, unless that takes too long: a server can send a byte at a time,
    and each is waited for anew.
    """
    done: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put(ask())
        except Exception as error:  # noqa: BLE001 # raised again below
            done.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        found = done.get(timeout=_PATIENCE_SECONDS)
    except queue.Empty:
        raise OfflineError(
            f"{address} takes more than {_PATIENCE_SECONDS:.0f} s: ask for fewer --minutes"
        ) from None
    if isinstance(found, Exception):
        raise found
    return found


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows redirects within a server only, since the credentials are sent along."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        encrypts = (before.scheme, after.scheme) == ("http", "https")
        if before.hostname != after.hostname or not (
            encrypts or (before.scheme, before.port) == (after.scheme, after.port)
        ):
            raise OfflineError(f"{redact(req.full_url)} redirects to {redact(newurl)}: use that")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """What opens http:// and https:// addresses, and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SameServer(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()


def _body(response: http.client.HTTPResponse, address: str) -> bytes:
    """The whole answer, if it is not too large."""
    body = bytearray()
    while piece := response.read1(1 << 16):
        body += piece
        if len(body) > _MOST_BYTES:
            raise OfflineError(
                f"{address} returned more than {_MOST_BYTES >> 20} MiB: ask for fewer --minutes"
            )
    return bytes(body)


def _request_of(url: str) -> tuple[str, dict[str, str]]:
    """The address for range queries, without credentials, and the header that carries those."""
    if not url.startswith(("http://", "https://")):
        raise OfflineError(f"{redact(url)} is not an http:// or https:// address")
    try:
        parts = urllib.parse.urlsplit(url)
        user, password = (
            urllib.parse.unquote(each or "") for each in (parts.username, parts.password)
        )
    except ValueError as error:
        raise OfflineError(f"{redact(url)}: {error}") from None
    if "@" in parts.path + parts.query + parts.fragment:
        raise OfflineError(
            f"{redact(url)}: in a user name or password, write / ? # @ as %2F %3F %23 %40"
        )
    path = parts.path.rstrip("/")
    for each in _QUERY_PATHS:
        path = path.removesuffix(each)
    address = parts._replace(
        netloc=parts.netloc.rpartition("@")[2], path=path + _QUERY_PATHS[0], query="", fragment=""
    )
    if not user and not password:
        return address.geturl(), {}
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return address.geturl(), {"Authorization": f"Basic {credentials}"}
