"""Checks over HTTP: the services, Prometheus, InfluxDB and Grafana."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import requests

from flowverdict_doctor.finding import Finding, broken, ok, warning
from flowverdict_doctor.settings import DoctorSettings

__all__ = ["findings"]

_TIMEOUT = (3, 10)
_MAX_BYTES, _MAX_SECONDS = 32 << 20, 20.0
_RULES = "flowverdict-verdicts"


class _NoAnswer(Exception):
    """There was no usable answer; the message says why."""


def _request(
    url: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, Any]:
    """Status and parsed JSON; an empty object if there is no content.

    Raises:
        _NoAnswer: if there is no answer, or it is not JSON.
    """
    try:
        # Do not send credentials from ~/.netrc.
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                method, url, headers=headers, timeout=_TIMEOUT, allow_redirects=False, stream=True
            )
            deadline, body = time.monotonic() + _MAX_SECONDS, b""
            for piece in answer.iter_content(1 << 16):
                body += piece
                if len(body) > _MAX_BYTES or time.monotonic() > deadline:
                    raise _NoAnswer(f"the answer from {url} is too large or too slow")
            empty = answer.status_code == requests.codes.no_content
            return answer.status_code, {} if empty else json.loads(body)
    except (ValueError, RecursionError):
        raise _NoAnswer(f"{url} returned {answer.status_code}, but no JSON") from None
    except requests.Timeout:
        raise _NoAnswer(f"{url} did not answer in time") from None
    except requests.RequestException:
        raise _NoAnswer(f"cannot connect to {url}") from None


def _unreachable(what: str, given: str, setting: str, why: str) -> Finding:
    """No answer is a fault only if its address is configured."""
    if given:
        return broken(what, why, f"is it running? check {setting}")
    return warning(what, f"not found on this host ({why})", f"if you have one, set {setting}")


def _services(settings: DoctorSettings) -> Iterator[Finding]:
    for name, url in settings.services:
        try:
            status, answer = _request(f"{url}/readyz")
            waiting = dict(answer["waiting"])
        except _NoAnswer as error:
            yield broken(name, str(error), "is it running? check FLOWVERDICT_SERVICES")
            continue
        except (KeyError, TypeError, ValueError):
            advice = "is that its address? check FLOWVERDICT_SERVICES"
            yield broken(name, f"{url} is not a Flowverdict service ({status})", advice)
            continue
        if status == requests.codes.ok:
            yield ok(name, f"{url} is ready")
        else:
            why = "; ".join(f"{part}: {reason}" for part, reason in waiting.items())
            yield broken(name, f"is not ready: {why}", "it recovers by itself once that is fixed")


def _prometheus(settings: DoctorSettings) -> Iterator[Finding]:
    what, url = "Prometheus", settings.prometheus_url or "http://127.0.0.1:9090"
    try:
        _, targets = _request(f"{url}/api/v1/targets?state=active")
        found = [
            each
            for each in targets["data"]["activeTargets"]
            if "flowverdict" in each["labels"].get("job", "")
        ]
        _, rules = _request(f"{url}/api/v1/rules")
        groups = {each["name"] for each in rules["data"]["groups"]}
    except (_NoAnswer, KeyError, TypeError) as error:
        yield _unreachable(what, settings.prometheus_url, "FLOWVERDICT_PROMETHEUS_URL", str(error))
        return
    if not found:
        advice = "add a scrape job whose name starts with flowverdict (docs/monitoring.md)"
        yield broken(what, f"{url} scrapes none of the services", advice)
    for each in found:
        job, where = each["labels"]["job"], each["scrapeUrl"]
        if each["health"] == "up":
            yield ok(what, f"{job} at {where} is up")
        else:
            why = each.get("lastError") or each["health"]
            yield broken(what, f"{job} at {where}: {why}", "is it running and reachable?")
    if _RULES not in groups:
        advice = "load deploy/prometheus/rules"
        yield warning(what, "Flowverdict's rules are not loaded, so there are no alerts", advice)


def _influx(settings: DoctorSettings) -> Iterator[Finding]:
    what, url = "InfluxDB", settings.influx_url or "http://127.0.0.1:8086"
    try:
        _, health = _request(f"{url}/health")
        if health["status"] != "pass":
            yield broken(what, f"{url}: {health.get('message', health)}", "see its log")
            return
        if not settings.influx_token:
            advice = "set FLOWVERDICT_INFLUX_TOKEN"
            yield warning(what, f"{url} is up; its bucket was not checked", advice)
            return
        yield _bucket(url, settings)
    except (_NoAnswer, KeyError, TypeError) as error:
        yield _unreachable(what, settings.influx_url, "FLOWVERDICT_INFLUX_URL", str(error))


def _bucket(url: str, settings: DoctorSettings) -> Finding:
    """Whether the token can read from the bucket, or write to it.

    Raises:
        _NoAnswer, KeyError, TypeError: if an answer is not InfluxDB's.
    """
    what, bucket = "InfluxDB", settings.influx_bucket
    headers = {"Authorization": f"Token {settings.influx_token}"}
    status, answer = _request(f"{url}/api/v2/buckets?limit=100", headers)
    if status == requests.codes.unauthorized:
        return broken(what, f"{url} rejects the token", "check FLOWVERDICT_INFLUX_TOKEN")
    if status != requests.codes.ok:
        return broken(what, f"{url} returned {status} to a bucket query", "see its log")
    if bucket in [each["name"] for each in answer["buckets"]]:
        return ok(what, f"{url} is up, and the token can read the bucket {bucket}")
    # A token that can only write sees no bucket. Writing nothing shows that it can.
    where = urlencode({"org": settings.influx_org, "bucket": bucket})
    status, _ = _request(f"{url}/api/v2/write?{where}", headers, "POST")
    if status == requests.codes.no_content:
        return ok(what, f"{url} is up, and the token can write to the bucket {bucket}")
    if status == requests.codes.forbidden:
        advice = "set FLOWVERDICT_INFLUX_TOKEN to a token that can read the bucket"
        return broken(what, f"the token can neither read nor write the bucket {bucket}", advice)
    advice = "in a cluster, apply again: a Job creates it; elsewhere, create it"
    return broken(what, f"{url} has no bucket {bucket}", advice)


def _grafana(settings: DoctorSettings) -> Iterator[Finding]:
    what, url = "Grafana", settings.grafana_url or "http://127.0.0.1:3000"
    try:
        _, health = _request(f"{url}/api/health")
        database, version = health["database"], health.get("version", "")
    except (_NoAnswer, KeyError, TypeError) as error:
        yield _unreachable(what, settings.grafana_url, "FLOWVERDICT_GRAFANA_URL", str(error))
        return
    if database == "ok":
        yield ok(what, f"{url} is up {version}".rstrip())
    else:
        yield broken(what, f"{url}: its database is {database}", "see its log")


def findings(settings: DoctorSettings) -> Iterator[Finding]:
    """Check everything that answers over HTTP."""
    yield from _services(settings)
    yield from _prometheus(settings)
    yield from _influx(settings)
    yield from _grafana(settings)
