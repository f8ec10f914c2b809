"""Verdict documents."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.verdicts import (
    Cause,
    Component,
    ComponentEnd,
    Coverage,
    FailingFlow,
    FlowCounts,
    Rule,
    TimeWindow,
    Verdict,
    decode,
    encode,
    json_schema,
)

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "verdict.schema.json"

VERDICT = Verdict(
    id="a/1",
    incident_id="a",
    status="opened",
    opened_at="2026-01-01T00:00:10.000Z",
    window=TimeWindow(start="2026-01-01T00:00:00.000Z", end="2026-01-01T00:00:10.000Z"),
    summary="Pod default/pod-a is behind it.",
    enough_evidence=True,
    severity="critical",
    causes=(
        Cause(
            kind="pod",
            name="default/pod-a",
            ends=(ComponentEnd(kind="pod", namespace="default", name="pod-a"),),
            node="worker0",
            addresses=("10.244.0.2",),
            direction="both",
            score=1.0,
            precision=1.0,
            explains=1.0,
            p_value=0.001,
            alternatives=(
                Component(
                    kind="node",
                    name="worker0",
                    ends=(ComponentEnd(kind="node", name="worker0"),),
                ),
            ),
        ),
    ),
    rules=(
        Rule(
            antecedents=("FAIL",),
            consequents=("pod default/pod-a",),
            support=0.5,
            confidence=1.0,
            lift=2.0,
            leverage=0.25,
            p_value=0.001,
        ),
    ),
    conditions=("HIGH_RETRANSMISSION_RATIO",),
    flows=FlowCounts(failing=6, ok=6, undecided=0),
    failing_flows=(
        FailingFlow(
            src="default/pod-a",
            dst="default/pod-b",
            retransmission_ratio=0.2,
            connect_retransmission_ratio=None,
            data_segments_sent=100,
            retransmitted_data_segments=20,
            retransmitted_syns=0,
            retransmitted_synacks=0,
            opens=0,
            failed_opens=0,
            refused_opens=0,
            timed_out_opens=0,
            unreachable_opens=0,
            dns_answers=0,
            dns_failures=0,
            dns_unanswered=0,
            rtt_us=300,
            segments_sent=150,
            segments_arrived=130,
            dropped_by_node={"worker0": 20},
        ),
    ),
    fail_ratio=0.05,
    coverage=Coverage(
        nodes_reporting=("n1",),
        nodes_silent=(),
        nodes_late=(),
        lost_flow_updates=0,
        lost_sockets=0,
        rows_late=0,
    ),
)


def test_a_verdict_is_read_as_it_was_written() -> None:
    assert decode(encode(VERDICT)) == VERDICT


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema(), (
        "write it again: python -m flowverdict_contracts.verdicts > docs/verdict.schema.json"
    )


def test_a_verdict_is_valid_by_the_published_schema() -> None:
    jsonschema.validate(json.loads(encode(VERDICT)), json.loads(SCHEMA_FILE.read_text()))


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[]", b"\xff", encode(VERDICT)[:-1]])
def test_what_is_no_verdict_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(body)


def test_a_verdict_of_a_newer_version_is_malformed() -> None:
    newer = encode(VERDICT).replace(b"rca.verdicts/8", b"rca.verdicts/9")
    with pytest.raises(MalformedMessage):
        decode(newer)


@pytest.mark.parametrize(
    "changes",
    [
        {"opened_at": ""},
        {"opened_at": "yesterday"},
        {"opened_at": "2026-02-30T00:00:00Z"},
        {"opened_at": "2026-02-03T00:00:00"},
        {"opened_at": "0001-01-01T00:00:00Z"},
        {"window": {"start": "x", "end": "2026-02-03T00:00:00Z"}},
        {"flows": {"failing": 10**400, "ok": 0, "undecided": 0}},
        {"flows": {"failing": -1, "ok": 0, "undecided": 0}},
    ],
)
def test_a_verdict_with_a_time_or_a_number_that_is_none_is_malformed(
    changes: dict[str, Any],
) -> None:
    document = json.loads(encode(VERDICT)) | changes
    with pytest.raises(MalformedMessage):
        decode(json.dumps(document).encode())


@pytest.mark.parametrize(("kind", "ends"), [("pod", 0), ("pod", 2), ("link", 1), ("node_link", 0)])
def test_a_cause_whose_ends_do_not_fit_its_kind_is_malformed(kind: str, ends: int) -> None:
    document = json.loads(encode(VERDICT))
    cause = document["causes"][0]
    document["causes"] = [cause | {"kind": kind, "ends": cause["ends"] * ends}]
    with pytest.raises(MalformedMessage, match=f"a {kind} has {ends} ends"):
        decode(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("incident_id", "x'} or up{job='"),
        ("incident_id", "\x1b[31m"),
        ("incident_id", ""),
        ("id", "a"),
        ("id", "b/1"),
        ("id", "a/1\n"),
    ],
)
def test_an_id_that_rca_cannot_have_given_is_malformed(name: str, text: str) -> None:
    document = json.loads(encode(VERDICT)) | {name: text}
    with pytest.raises(MalformedMessage):
        decode(json.dumps(document).encode())
