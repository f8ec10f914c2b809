"""Which addresses are behind a service."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from conftest import enriched_batch, flow_row
from flowverdict_exporter.services import MOST_ADDRESSES, Services

EXPIRE_SECONDS = 600.0


def row(end: str, address: str, service: str, kind: str = "pod") -> dict[str, Any]:
    """A flow of which one end is that."""
    names = {"ip": address, "service": service, "namespace": "shop", "kind": kind}
    return flow_row("pod-a", "pod-b") | {f"{end}_{name}": text for name, text in names.items()}


def shown(services: Services) -> set[tuple[str, str, str]]:
    registry = CollectorRegistry()
    registry.register(services)
    return {
        (s.labels["service_namespace"], s.labels["service_name"], s.labels["ip"])
        for family in registry.collect()
        for s in family.samples
    }


def test_the_pods_that_answer_and_the_address_of_a_service_are_shown_at_whichever_end() -> None:
    services = Services(EXPIRE_SECONDS)
    services.add(
        enriched_batch(
            row("dst", "10.244.0.7", "cart"),
            row("dst", "10.244.0.7", "cart"),
            row("src", "10.244.0.8", "cart"),
            row("dst", "10.96.0.9", "cart", "service"),
            row("dst", "10.244.0.7", "cart-admin"),
            flow_row("pod-c", "pod-d"),
        )
    )
    assert shown(services) == {
        ("shop", "cart", "10.244.0.7"),
        ("shop", "cart", "10.244.0.8"),
        ("shop", "cart", "10.96.0.9"),
        ("shop", "cart-admin", "10.244.0.7"),
    }


def test_an_address_that_no_flow_goes_to_any_more_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("flowverdict_exporter.services.time.monotonic", lambda: now[0])
    services = Services(EXPIRE_SECONDS)
    services.add(enriched_batch(row("dst", "10.244.0.7", "cart")))
    now[0] += EXPIRE_SECONDS / 2
    services.add(enriched_batch(row("dst", "10.244.0.8", "cart")))
    assert len(shown(services)) == 2
    now[0] += EXPIRE_SECONDS / 2 + 1
    assert shown(services) == {("shop", "cart", "10.244.0.8")}


def test_of_too_many_addresses_those_stay_that_flows_went_to_last() -> None:
    services = Services(EXPIRE_SECONDS)
    services.add(enriched_batch(row("dst", "10.1.1.1", "first"), row("dst", "10.1.1.2", "second")))
    for start in range(0, MOST_ADDRESSES, 1000):
        more = range(start, min(start + 1000, MOST_ADDRESSES - 1))
        services.add(enriched_batch(*(row("dst", f"10.2.0.{n}", f"cart-{n}") for n in more)))
        services.add(enriched_batch(row("dst", "10.1.1.2", "second")))
    names = shown(services)
    assert len(names) == MOST_ADDRESSES
    assert ("shop", "second", "10.1.1.2") in names
    assert ("shop", "first", "10.1.1.1") not in names
