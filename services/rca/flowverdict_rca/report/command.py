"""`flowverdict-rca report`: read an incident from NATS, write its page."""

import asyncio
from pathlib import Path

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from flowverdict_rca.report.gather import NoIncident, ReportedIncident, gather
from flowverdict_rca.report.page import render
from flowverdict_runtime.one_shot import NatsUnavailable, connected_once
from flowverdict_runtime.service_settings import NatsSettings
from flowverdict_runtime.settings import redact
from flowverdict_runtime.terminal import complain

__all__ = ["ReportError", "report"]


class ReportError(RuntimeError):
    """There is nothing to report, or it cannot be read or written; the message says what."""


def report(nats_settings: NatsSettings, incident_id: str | None, out: Path) -> str:
    """Write the page of an incident, by default the newest; returns its id.

    Raises:
        ReportError: if NATS does not answer, has no such incident, or `out` cannot be written.
    """
    nats_url = nats_settings.nats_url
    try:
        incident = asyncio.run(_gather(nats_settings, incident_id))
    except NoIncident as error:
        raise ReportError(str(error)) from None
    except NotFoundError:
        raise ReportError(f"NATS at {redact(nats_url)} has none of Flowverdict's streams") from None
    except NatsUnavailable as error:
        raise ReportError(f"NATS at {error}; {error.advice}") from None
    except (NatsError, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise ReportError(f"NATS at {redact(nats_url)}: {why}") from None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render(incident), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{out} cannot be written: {error.strerror}") from None
    return incident.worst.incident_id


def _print_progress(what: str) -> None:
    complain("flowverdict-rca", what)


async def _gather(nats_settings: NatsSettings, incident_id: str | None) -> ReportedIncident:
    async with connected_once(nats_settings, 10) as client:
        return await gather(client.jetstream(timeout=10), incident_id, _print_progress)
