"""Services, Prometheus, InfluxDB, Grafana: over HTTP."""

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
_LARGEST, _LONGEST_SECONDS = 32 << 20, 20.0
_RULES = "flowverdict-verdicts"


class _NoAnswer(Exception):
    """Nothing usable came back; the message says what did."""


def _get(url: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and parsed JSON.

    Raises:
        _NoAnswer: if there is neither.
    """
    try:
        # Credentials in ~/.netrc are for others.
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                url, headers=headers, timeout=_TIMEOUT, allow_redirects=False, stream=True
            )
            deadline, body = time.monotonic() + _LONGEST_SECONDS, b""
            for piece in answer.iter_content(1 << 16):
                body += piece
                if len(body) > _LARGEST or time.monotonic() > deadline:
                    raise _NoAnswer(f"{url} answers without an end")
            return answer.status_code, json.loads(body)
    except (ValueError, RecursionError):
        raise _NoAnswer(f"{url} answers {answer.status_code} without JSON") from None
    except requests.Timeout:
        raise _NoAnswer(f"no answer from {url} in time") from None
    except requests.RequestException:
        raise _NoAnswer(f"nothing answers at {url}") from None


def _away(what: str, given: str, setting: str, why: str) -> Finding:
    """No answer is a fault only where somebody said that there is something."""
    if given:
        return broken(what, why, f"is it running? {setting} says where")
    return warning(what, f"none on this host ({why})", f"where you have one, set {setting}")


def _services(settings: DoctorSettings) -> Iterator[Finding]:
    for name, url in settings.services:
        try:
            status, answer = _get(f"{url}/readyz")
            waiting = dict(answer["waiting"])
        except _NoAnswer as error:
            yield broken(name, str(error), "is it running? FLOWVERDICT_SERVICES says where")
            continue
        except (KeyError, TypeError, ValueError):
            advice = "is it at that address? FLOWVERDICT_SERVICES says where"
            yield broken(name, f"{url} is something else ({status})", advice)
            continue
        if status == requests.codes.ok:
            yield ok(name, f"{url} is ready")
        else:
            why = "; ".join(f"{part}: {reason}" for part, reason in waiting.items())
            yield broken(name, f"is not ready: {why}", "it goes on by itself once that is mended")


def _prometheus(settings: DoctorSettings) -> Iterator[Finding]:
    what, url = "Prometheus", settings.prometheus_url or "http://127.0.0.1:9090"
    try:
        _, targets = _get(f"{url}/api/v1/targets?state=active")
        found = [
            each
            for each in targets["data"]["activeTargets"]
            if "flowverdict" in each["labels"].get("job", "")
        ]
        _, rules = _get(f"{url}/api/v1/rules")
        groups = {each["name"] for each in rules["data"]["groups"]}
    except (_NoAnswer, KeyError, TypeError) as error:
        yield _away(what, settings.prometheus_url, "FLOWVERDICT_PROMETHEUS_URL", str(error))
        return
    if not found:
        advice = "give it a scrape job whose name begins with flowverdict (docs/monitoring.md)"
        yield broken(what, f"{url} scrapes none of the services", advice)
    for each in found:
        job, where = each["labels"]["job"], each["scrapeUrl"]
        if each["health"] == "up":
            yield ok(what, f"{job} at {where} is up")
        else:
            why = each.get("lastError") or each["health"]
            yield broken(what, f"{job} at {where}: {why}", "is it running, and may it be reached?")
    if _RULES not in groups:
        advice = "load deploy/prometheus/rules"
        yield warning(what, "has not Flowverdict's rules, so nobody is alerted", advice)


def _influx(settings: DoctorSettings) -> Iterator[Finding]:
    what, url = "InfluxDB", settings.influx_url or "http://127.0.0.1:8086"
    try:
        _, health = _get(f"{url}/health")
        if health["status"] != "pass":
            yield broken(what, f"{url}: {health.get('message', health)}", "its log says more")
            return
        if not settings.influx_token:
            advice = "set FLOWVERDICT_INFLUX_TOKEN"
            yield warning(what, f"{url} is well; its bucket was not looked at", advice)
            return
        headers = {"Authorization": f"Token {settings.influx_token}"}
        query = f"{url}/api/v2/buckets?{urlencode({'name': settings.influx_bucket})}"
        status, answer = _get(query, headers)
    except (_NoAnswer, KeyError, TypeError) as error:
        yield _away(what, settings.influx_url, "FLOWVERDICT_INFLUX_URL", str(error))
        return
    if status in (401, 403):
        advice = "FLOWVERDICT_INFLUX_TOKEN is to be one that may read the bucket"
        yield broken(what, f"{url} does not take the token ({status})", advice)
    elif status not in (requests.codes.ok, requests.codes.not_found):
        yield broken(what, f"{url} answers {status} for its buckets", "its log says more")
    elif settings.influx_bucket in [each.get("name") for each in answer.get("buckets") or ()]:
        yield ok(what, f"{url} is well, and the bucket {settings.influx_bucket} is there")
    else:
        advice = "the influx-writer makes it: is it running, and may its token?"
        yield broken(what, f"{url} has no bucket {settings.influx_bucket}", advice)


def _grafana(settings: DoctorSettings) -> Iterator[Finding]:
    what, url = "Grafana", settings.grafana_url or "http://127.0.0.1:3000"
    try:
        _, health = _get(f"{url}/api/health")
        database, version = health["database"], health.get("version", "")
    except (_NoAnswer, KeyError, TypeError) as error:
        yield _away(what, settings.grafana_url, "FLOWVERDICT_GRAFANA_URL", str(error))
        return
    if database == "ok":
        yield ok(what, f"{url} is well {version}".rstrip())
    else:
        yield broken(what, f"{url}: its database is {database}", "its log says more")


def findings(settings: DoctorSettings) -> Iterator[Finding]:
    """Lines about what answers over HTTP."""
    yield from _services(settings)
    yield from _prometheus(settings)
    yield from _influx(settings)
    yield from _grafana(settings)
