"""The headers of messages with flows."""

import contextlib
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.interval_header import SENT, IntervalHeader, sent_ns
from flowverdict_contracts.kernel_reports import KernelCondition, KernelReport

names = st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,2}", fullmatch=True)
times = st.integers(0, (1 << 63) - 1)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
conditions = st.sampled_from(get_args(KernelCondition))
reports = st.builds(KernelReport, conditions, st.integers(1, 1_000_000), printable)


@st.composite
def headers(draw: st.DrawFn) -> IntervalHeader:
    start, end = sorted((draw(times), draw(times)))
    parts = draw(st.integers(1, 1000))
    return IntervalHeader(
        node=draw(names),
        run_id=draw(st.from_regex(r"[0-9a-f]{12}", fullmatch=True)),
        sequence=draw(st.integers(1, 1 << 60)),
        start_ns=start,
        end_ns=end,
        part=draw(st.integers(1, parts)),
        parts=parts,
        lost_flow_updates=draw(st.integers(0, 1 << 60)),
        lost_sockets=draw(st.integers(0, 1 << 60)),
        piece=draw(st.integers(0, 5000)),
        skipped_runs=draw(st.integers(0, 1 << 60)),
        clock_behind_ns=draw(st.integers(-(1 << 60), 1 << 60)),
        kernel_reports=tuple(draw(st.lists(reports, max_size=4))),
    )


@given(headers())
def test_a_header_is_read_as_it_was_written(header: IntervalHeader) -> None:
    assert IntervalHeader.decode(header.encode("s/1"), "s/1") == header


@given(headers(), st.data())
def test_a_header_with_a_field_missing_is_malformed(
    header: IntervalHeader, data: st.DataObject
) -> None:
    fields = replace(header, clock_behind_ns=0, skipped_runs=0, kernel_reports=()).encode("s/1")
    del fields[data.draw(st.sampled_from(sorted(fields)))]
    with pytest.raises(MalformedMessage):
        IntervalHeader.decode(fields, "s/1")


@given(headers(), st.data(), st.text(max_size=30))
def test_a_header_with_any_text_in_a_field_is_read_or_malformed(
    header: IntervalHeader, data: st.DataObject, text: str
) -> None:
    fields = header.encode("s/1")
    fields[data.draw(st.sampled_from(sorted(fields)))] = text
    with contextlib.suppress(MalformedMessage):
        IntervalHeader.decode(fields, "s/1")


def test_a_message_of_another_schema_version_names_both_versions() -> None:
    fields = IntervalHeader("n", "b", 1, 0, 1).encode("flows.raw/2")
    with pytest.raises(MalformedMessage, match=r"flows.raw/2.*flows.raw/1"):
        IntervalHeader.decode(fields, "flows.raw/1")


def test_a_message_without_headers_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        IntervalHeader.decode(None, "flows.raw/1")


def test_an_interval_from_a_clock_that_runs_ahead_is_malformed_and_its_node_named() -> None:
    header = IntervalHeader("n7", "b", 1, 3600_000_000_000, 3601_000_000_000)
    header.check_not_ahead(3600_500_000_000)
    with pytest.raises(MalformedMessage, match="clock of node n7 is 3601 s ahead"):
        header.check_not_ahead(0)


SECOND = 1_000_000_000


def test_an_interval_dated_by_nats_is_the_same_but_for_its_time() -> None:
    header = IntervalHeader("n7", "b", 1, 100 * SECOND, 101 * SECOND)
    dated = header.dated_by_nats(20 * SECOND)
    assert (dated.start_ns, dated.end_ns) == (120 * SECOND, 121 * SECOND)
    assert dated.clock_behind_ns == 20 * SECOND
    assert dated.message_id == header.message_id
    assert header.dated_by_nats(-1000 * SECOND).start_ns == 0


@pytest.mark.parametrize("text", [None, "", "soon", "-5", "1.5", "9" * 40, "\u0661"])
def test_a_time_of_sending_that_is_none_is_not_known(text: str | None) -> None:
    assert sent_ns({} if text is None else {SENT: text}) is None
    assert sent_ns(None) is None


def test_a_time_of_sending_is_read() -> None:
    assert sent_ns({SENT: "1700000000000000000"}) == 1_700_000_000_000_000_000


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[1]", '[{"condition": "LINK_DOWN"}]', "[" * 100_000,
        '[{"condition": "OTHER", "count": 1, "line": ""}]',
        '[{"condition": "LINK_DOWN", "count": 0, "line": ""}]',
        '[{"condition": ["LINK_DOWN"], "count": 1, "line": ""}]',
        '[{"condition": "LINK_DOWN", "count": 1, "line": 1}]',
        '[{"condition": "LINK_DOWN", "count": 1e400, "line": ""}]',
    ],
)  # fmt: skip
def test_what_no_kernel_reports_is_malformed(text: str) -> None:
    fields = IntervalHeader("n1", "run", 1, 0, 1).encode("s/1")
    with pytest.raises(MalformedMessage):
        IntervalHeader.decode(fields | {"Flowverdict-Kernel-Log": text}, "s/1")


def test_a_line_of_the_kernels_log_cannot_write_to_a_terminal() -> None:
    line = "eth0: \x1b[31mlink is down\n" + "é" * 300
    header = IntervalHeader(
        "n1", "run", 1, 0, 1, kernel_reports=(KernelReport("LINK_DOWN", 1, line),)
    )
    (report,) = IntervalHeader.decode(header.encode("s/1"), "s/1").kernel_reports
    assert report.line.isprintable()
    assert report.line.isascii()
    assert len(report.line) == 200
