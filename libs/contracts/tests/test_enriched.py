"""Enriched messages."""

import contextlib
import struct

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import enriched_batch, flow_row
from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.arrow_size import unpacked_bytes
from flowverdict_contracts.enriched import ARROW_SCHEMA, decode, encode

WORDS = {
    "src_ip": "10.0.0.1",
    "dst_ip": "fd00::1",
    "role": "client",
    "src_kind": "pod",
    "dst_kind": "pod",
    "src_name_confidence": "certain",
    "dst_name_confidence": "certain",
    "src_condition": "",
    "dst_condition": "gone",
}


def batch(rows: int, words: dict[str, str | None] | None = None) -> pa.RecordBatch:
    known: dict[str, str | None] = {**WORDS, **(words or {})}
    columns = [
        pa.DictionaryArray.from_arrays(
            pa.array([0] * rows, pa.int32()), pa.array([known.get(field.name, "x")], pa.string())
        )
        if pa.types.is_dictionary(field.type)
        else pa.array([7] * rows, field.type)
        for field in ARROW_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ARROW_SCHEMA)


@given(st.integers(0, 50))
def test_a_batch_is_read_as_it_was_written(rows: int) -> None:
    assert decode(encode(batch(rows))).equals(batch(rows))


@given(st.binary(max_size=300))
def test_any_bytes_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(body)


VALID = encode(batch(3))


@settings(max_examples=300)
@given(st.integers(0, len(VALID) - 1), st.integers(1, 255))
def test_a_damaged_message_is_malformed_or_still_a_whole_batch(position: int, flip: int) -> None:
    damaged = bytearray(VALID)
    damaged[position] ^= flip
    try:
        decoded = decode(bytes(damaged))
    except MalformedMessage:
        return
    decoded.to_pylist()


@given(st.integers(0, len(VALID) - 9))
def test_a_message_cut_short_is_malformed(length: int) -> None:
    with pytest.raises(MalformedMessage):
        decode(VALID[:length])


def test_other_columns_are_malformed() -> None:
    sink = pa.BufferOutputStream()
    other = pa.record_batch({"a": [1]})
    with pa.ipc.new_stream(sink, other.schema) as writer:
        writer.write_batch(other)
    with pytest.raises(MalformedMessage, match="columns"):
        decode(sink.getvalue().to_pybytes())


def with_one_row(name: str, value: object) -> pa.RecordBatch:
    """Three rows, of which the second has this value."""
    columns = batch(3).columns
    position = ARROW_SCHEMA.names.index(name)
    field = ARROW_SCHEMA.field(position)
    if pa.types.is_dictionary(field.type):
        texts = pa.array([WORDS.get(name, "x"), value], pa.string())
        columns[position] = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), texts)
    else:
        columns[position] = pa.array([7, value, 7], field.type)
    return pa.RecordBatch.from_arrays(columns, schema=ARROW_SCHEMA)


IMPOSSIBLE = [
    ("src_kind", "gateway"),
    ("dst_name_confidence", "gateway"),
    ("role", "gateway"),
    ("src_pod", None),
    ("dst_ip", None),
    ("dst_ip", ""),
    ("dst_ip", "pod-a"),
    ("src_ip", "10.0.0"),
    ("src_ip", "10.0.0.256"),
    ("bytes_sent", (1 << 64) - 1),
]


@pytest.mark.parametrize(("column", "value"), IMPOSSIBLE)
def test_a_row_with_what_cannot_be_costs_that_row_and_is_counted(
    column: str, value: object
) -> None:
    left_out: dict[str, int] = {}
    decoded = decode(encode(with_one_row(column, value)), left_out)
    assert decoded.to_pylist() == batch(2).to_pylist()
    assert left_out == {column: 1}
    kept = decoded.column(column)
    if pa.types.is_dictionary(kept.type):
        assert kept.dictionary.to_pylist() == [WORDS.get(column, "x")], "nor does an entry remain"


def test_a_row_with_several_things_that_cannot_be_counts_once() -> None:
    left_out: dict[str, int] = {}
    both = {"dst_ip": "pod-a", "src_kind": "gateway"}
    assert decode(encode(batch(3, {**both})), left_out).num_rows == 0
    assert sum(left_out.values()) == 3


def test_nulls_among_the_indices_or_numbers_cost_their_rows() -> None:
    for name in ("src_pod", "mss"):
        columns = batch(3).columns
        left_out: dict[str, int] = {}
        position = ARROW_SCHEMA.names.index(name)
        columns[position] = columns[position].take(pa.array([0, None, 2]))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, ARROW_SCHEMA) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=ARROW_SCHEMA))
        assert decode(sink.getvalue().to_pybytes(), left_out).num_rows == 2
        assert left_out == {name: 1}


def test_names_that_no_row_has_are_not_looked_at() -> None:
    columns = batch(2).columns
    for name in ("src_ip", "src_pod"):
        texts = pa.array([*["no address"] * 1000, WORDS.get(name, "x")], pa.string())
        indices = pa.array([1000, 1000], pa.int32())
        columns[ARROW_SCHEMA.names.index(name)] = pa.DictionaryArray.from_arrays(indices, texts)
    decoded = decode(encode(pa.RecordBatch.from_arrays(columns, schema=ARROW_SCHEMA)))
    assert decoded.to_pylist() == batch(2).to_pylist()
    assert (
        len(decoded.column("src_ip").dictionary) == len(decoded.column("src_pod").dictionary) == 1
    )


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_message_that_unpacks_to_gigabytes_is_malformed_before_it_is_unpacked(
    compression: str,
) -> None:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, ARROW_SCHEMA, options=options) as writer:
        writer.write_batch(batch(500_000))
    body = sink.getvalue().to_pybytes()
    assert len(body) < 4_000_000
    before = pa.total_allocated_bytes()
    with pytest.raises(MalformedMessage, match="would unpack to"):
        decode(body)
    assert pa.total_allocated_bytes() - before < len(body)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_the_size_told_is_the_size_unpacked(compression: str | None) -> None:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, ARROW_SCHEMA, options=options) as writer:
        writer.write_batch(batch(1000))
    told = unpacked_bytes(sink.getvalue().to_pybytes())
    assert 0 <= told - batch(1000).nbytes < 64 * len(ARROW_SCHEMA) * 3, "but for padding"


def test_no_buffer_can_have_a_length_that_hides_another_ones() -> None:
    body = encode(batch(200))
    changed = 0
    for at in range(0, len(body) - 8, 8):
        (number,) = struct.unpack_from("<q", body, at)
        if 64 < number < len(body):
            for other in (-number, -400_000_000, 1 << 40):
                damaged = bytearray(body)
                struct.pack_into("<q", damaged, at, other)
                with contextlib.suppress(MalformedMessage):
                    left_out: dict[str, int] = {}
                    rows = decode(bytes(damaged), left_out).num_rows
                    assert rows + sum(left_out.values()) == 200
                with contextlib.suppress(ValueError, OSError, pa.ArrowException):
                    assert unpacked_bytes(bytes(damaged)) > 0
            changed += 1
    assert changed > 10


def test_columns_with_nothing_in_them_are_left_out_and_read_as_zero_or_empty() -> None:
    row = flow_row("pod-a@n1", "pod-b@n2", segments_sent=5)
    body = encode(enriched_batch(row, row))
    with pa.ipc.open_stream(body) as reader:
        sent = set(reader.schema.names)
    assert "segments_sent" in sent
    assert not sent & {"retransmitted_syns", "src_labels", "dns_name"}
    found = decode(body)
    assert found.schema.equals(ARROW_SCHEMA)
    assert found.column("segments_sent").to_pylist() == [5, 5]
    assert found.column("retransmitted_syns").to_pylist() == [0, 0]
    assert found.column("src_labels").to_pylist() == ["", ""]
    assert len(body) < 10_000
