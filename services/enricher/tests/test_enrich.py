"""Raw records to named rows."""

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conftest import Flow
from flowverdict_contracts import enriched, raw_records
from flowverdict_contracts.addresses import to_bytes, to_text
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.enrich import enrich


def directory() -> Directory:
    known = Directory()
    pod_a = Names("pod", "default", "pod-a", "web", "Deployment", "worker0", "z1")
    known.put("1", pod_a, [to_bytes("10.0.0.1"), to_bytes("fd00::1")], 0, 0)
    known.put("2", Names("node", node="worker1"), [to_bytes("10.0.0.9")], 0, 0)
    return known


def test_each_end_gets_its_names_and_the_counts_stay(raw_body: Callable[..., bytes]) -> None:
    body = raw_body(
        Flow("10.0.0.1", "10.0.0.9", segments_sent=7, retransmitted_segments=2, bytes_sent=1 << 40),
        Flow("fd00::1", "2001:4860:4860::8888", role=2),
    )
    batch, kinds = enrich(raw_records.decode(body), directory(), (0, 1), "n1")
    first, second = enriched.decode(enriched.encode(batch)).to_pylist()
    assert first["src_pod"] == second["src_pod"] == "pod-a"
    assert first["src_workload"] == "web"
    assert first["src_zone"] == "z1"
    assert first["src_name_confidence"] == "certain"
    assert (first["src_ip"], first["dst_ip"]) == ("10.0.0.1", "10.0.0.9")
    assert (first["dst_kind"], first["dst_node"], first["dst_pod"]) == ("node", "worker1", "")
    assert (first["segments_sent"], first["retransmitted_segments"]) == (7, 2)
    assert first["bytes_sent"] == 1 << 40
    assert (first["role"], second["role"]) == ("client", "server")
    assert (second["dst_ip"], second["dst_kind"]) == ("2001:4860:4860::8888", "external")
    assert kinds == {"pod": 2, "node": 1, "external": 1}


def test_an_interval_without_flows_stays_a_message_without_rows(
    raw_body: Callable[..., bytes],
) -> None:
    batch, _ = enrich(raw_records.decode(raw_body()), directory(), (0, 1), "n1")
    assert enriched.decode(enriched.encode(batch)).num_rows == 0


@given(st.lists(st.tuples(st.ip_addresses(), st.ip_addresses()), max_size=30))
def test_no_row_is_dropped_or_reordered_whoever_it_is_of(
    pairs: list[tuple[object, object]],
) -> None:
    records = np.zeros(len(pairs), raw_records.RECORD)
    for number, (src, dst) in enumerate(pairs):
        records[number]["src"] = np.void(to_bytes(str(src)))
        records[number]["dst"] = np.void(to_bytes(str(dst)))
        records[number]["segments_sent"] = number
    batch, _ = enrich(records, directory(), (0, 1), "n1")
    rows = enriched.decode(enriched.encode(batch)).to_pylist()
    assert [row["segments_sent"] for row in rows] == list(range(len(pairs)))
    for row, (src, dst) in zip(rows, pairs, strict=True):
        assert row["src_ip"] == to_text(to_bytes(str(src)))
        assert row["dst_ip"] == to_text(to_bytes(str(dst)))
