"""The headers of messages with flows."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.interval_header import IntervalHeader

names = st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,2}", fullmatch=True)
times = st.integers(0, (1 << 63) - 1)


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
    )


@given(headers())
def test_a_header_is_read_as_it_was_written(header: IntervalHeader) -> None:
    assert IntervalHeader.decode(header.encode("s/1"), "s/1") == header


@given(headers(), st.data())
def test_a_header_with_a_field_missing_is_malformed(
    header: IntervalHeader, data: st.DataObject
) -> None:
    fields = header.encode("s/1")
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
