"""Messages as line protocol, read back with a parser of its own."""

import re

from hypothesis import given
from hypothesis import strategies as st

from conftest import a_cause, a_verdict, enriched_batch, flow_row, header
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_influx_writer.points import FlowPoints, verdict_point

Line = tuple[str, dict[str, str], dict[str, str], int]


def parse(line: str) -> Line:
    """Measurement, tags, fields and time of a line."""
    head, rest = _cut(line, " ")
    fields, _, time = rest.rpartition(" ")
    measurement, tags = _cut(head, ",")
    return measurement, _pairs(tags), _pairs(fields), int(time)


def _cut(text: str, separator: str) -> tuple[str, str]:
    found = re.match(rf"((?:[^\\{separator}]|\\.)*){separator}?(.*)", text, re.DOTALL)
    assert found
    return found[1], found[2]


def _pairs(text: str) -> dict[str, str]:
    pairs = {}
    while text:
        pair, text = _cut(text, ",")
        name, value = _cut(pair, "=")
        pairs[name] = re.sub(r"\\([,= ])", r"\1", value)
    return pairs


def test_a_pair_is_one_point_in_each_interval() -> None:
    lines, points = FlowPoints().lines(
        header(),
        enriched_batch(
            flow_row("pod-a@w", "pod-b@w", retransmitted_segments=3, rtt_us=500, src_port=1),
            flow_row("pod-a@w", "pod-b@w", retransmitted_segments=4, rtt_us=700, src_port=2),
            flow_row("pod-a@w", "pod-b@w", src_port=3),
            flow_row("pod-b@w", "pod-a@w", bytes_sent=9),
        ),
    )
    assert points == 2
    there, back = sorted((parse(line) for line in lines.splitlines()), key=lambda p: p[1]["src_ip"])
    assert there[0] == "flow"
    assert there[1]["src_pod"] == "pod-a"
    assert there[1]["collector"] == "n1"
    assert there[2]["retransmitted_segments"] == "7i"
    assert there[2]["rtt_us_sum"] == "1200i"
    assert there[2]["rtt_us_samples"] == "2i"
    assert there[3] == header().end_ns
    assert back[2]["bytes_sent"] == "9i"


def test_fields_that_are_zero_are_left_out_but_for_what_a_ratio_divides() -> None:
    lines, _ = FlowPoints().lines(
        header(), enriched_batch(flow_row("pod-a@w", "pod-b@w", bytes_sent=9, opens=1))
    )
    _, _, fields, _ = parse(lines)
    assert fields == {
        "bytes_sent": "9i",
        "opens": "1i",
        "data_segments_sent": "100i",
        "retransmitted_data_segments": "0i",
    }


def test_parts_of_an_interval_do_not_overwrite_each_other() -> None:
    points, batch = FlowPoints(), enriched_batch(flow_row("pod-a", "pod-b"))
    first = IntervalHeader("n1", "b", 1, 0, 10**9, part=1, parts=2)
    second = IntervalHeader("n1", "b", 2, 0, 10**9, part=2, parts=2)
    times = {parse(points.lines(each, batch)[0].strip())[3] for each in (first, second)}
    assert len(times) == 2


kubernetes_names = st.from_regex(r"[a-z0-9A-Z]([-a-z0-9A-Z_.]{0,60}[a-z0-9A-Z])?", fullmatch=True)
odd_names = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\t\\", exclude_categories=["Cc"]),
    min_size=1, max_size=20,
)  # fmt: skip


@given(st.one_of(kubernetes_names, odd_names))
def test_every_label_comes_through_the_line_protocol(name: str) -> None:
    row = flow_row("pod-a", "pod-b") | {"dst_workload": name, "src_node": name}
    lines, points = FlowPoints().lines(header(), enriched_batch(row))
    assert points == 1
    assert lines.count("\n") == 1
    tags = parse(lines.removesuffix("\n"))[1]
    assert (tags["dst_workload"], tags["src_node"]) == (name, name)


@given(st.text(min_size=1, max_size=20))
def test_no_label_can_make_a_second_line(name: str) -> None:
    row = flow_row("pod-a", "pod-b") | {"dst_workload": name}
    lines, _ = FlowPoints().lines(header(), enriched_batch(row))
    assert lines.count("\n") == 1
    assert re.search(r"[^\\] data_segments_sent=100i,", lines)


def test_a_verdict_is_a_point_with_its_cause_and_summary() -> None:
    line = verdict_point(a_verdict(causes=(a_cause("pod", "shop/cart 1"),)))
    assert line.startswith("verdict,basis=failures,cause_kind=pod,cause_name=shop/cart\\ 1,")
    assert "score=0.9" in line
    assert 'summary="pod shop/cart 1 is to blame"' in line
    assert line.endswith(f" {1_000_000 * 10**9}\n")
