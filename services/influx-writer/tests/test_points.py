"""Messages as line protocol, read back with a parser of its own."""

import re

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from conftest import a_cause, a_verdict, enriched_batch, flow_row
from flowverdict_influx_writer.points import FlowPoints, summed, verdict_point
from tests.line_protocol import parse


def lines_of(*batches: pa.RecordBatch) -> list[str]:
    """The lines for what a collector counted in one slot."""
    points = FlowPoints()
    return points.lines("n1", 10**9, summed([points.rows(each) for each in batches]))


def test_a_pair_is_one_point_in_each_slot() -> None:
    lines = lines_of(
        enriched_batch(
            flow_row("pod-a@w", "pod-b@w", retransmitted_segments=3, rtt_us=500, src_port=1),
            flow_row("pod-a@w", "pod-b@w", retransmitted_segments=4, rtt_us=700, src_port=2),
            flow_row("pod-a@w", "pod-b@w", src_port=3),
            flow_row("pod-b@w", "pod-a@w", bytes_sent=9),
        ),
        enriched_batch(flow_row("pod-b@w", "pod-a@w", bytes_sent=5)),
    )
    there, back = sorted((parse(line.strip()) for line in lines), key=lambda p: p[1]["src_ip"])
    assert there[0] == "flow"
    assert there[1]["src_pod"] == "pod-a"
    assert there[1]["collector"] == "n1"
    assert there[2]["retransmitted_segments"] == "7i"
    assert there[2]["rtt_us_sum"] == "1200i"
    assert there[2]["rtt_us_samples"] == "2i"
    assert there[3] == 10**9
    assert back[2]["bytes_sent"] == "14i"


def test_fields_that_are_zero_are_left_out_but_for_what_a_ratio_divides() -> None:
    (line,) = lines_of(enriched_batch(flow_row("pod-a@w", "pod-b@w", bytes_sent=9, opens=1)))
    _, _, fields, _ = parse(line)
    assert fields == {
        "bytes_sent": "9i",
        "opens": "1i",
        "data_segments_sent": "100i",
        "retransmitted_data_segments": "0i",
    }


kubernetes_names = st.from_regex(r"[a-z0-9A-Z]([-a-z0-9A-Z_.]{0,60}[a-z0-9A-Z])?", fullmatch=True)
odd_names = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\t\\", exclude_categories=["Cc"]),
    min_size=1, max_size=20,
)  # fmt: skip


@given(st.one_of(kubernetes_names, odd_names))
def test_every_label_comes_through_the_line_protocol(name: str) -> None:
    row = flow_row("pod-a", "pod-b") | {"dst_workload": name, "src_node": name}
    (line,) = lines_of(enriched_batch(row))
    assert line.count("\n") == 1
    tags = parse(line.removesuffix("\n"))[1]
    assert (tags["dst_workload"], tags["src_node"]) == (name, name)


@given(st.text(min_size=1, max_size=20))
def test_no_label_can_make_a_second_line(name: str) -> None:
    row = flow_row("pod-a", "pod-b") | {"dst_workload": name}
    (line,) = lines_of(enriched_batch(row))
    assert line.count("\n") == 1
    assert re.search(r"[^\\] data_segments_sent=100i,", line)


def test_a_verdict_is_a_point_with_its_cause_and_summary() -> None:
    line = verdict_point(a_verdict(causes=(a_cause("pod", "shop/cart 1"),)))
    assert line.startswith("verdict,basis=failures,cause_kind=pod,cause_name=shop/cart\\ 1,")
    assert "score=0.9" in line
    assert 'summary="pod shop/cart 1 is to blame"' in line
    assert line.endswith(f" {1_000_000 * 10**9}\n")
