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


@pytest.mark.parametrize("column", ["src_kind", "dst_name_confidence", "role"])
def test_a_word_that_the_contract_does_not_have_is_malformed(column: str) -> None:
    with pytest.raises(MalformedMessage, match=column):
        decode(encode(batch(3, {column: "gateway"})))


def test_a_dictionary_with_a_null_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="src_pod has nulls"):
        decode(encode(batch(3, {"src_pod": None})))


@pytest.mark.parametrize("address", ["", "pod-a", "10.0.0", "10.0.0.256"])
def test_what_is_no_address_is_malformed(address: str) -> None:
    with pytest.raises(MalformedMessage, match="dst_ip has a value that is not an address"):
        decode(encode(batch(3, {"dst_ip": address})))


def test_a_number_that_no_flow_reaches_is_malformed() -> None:
    columns = batch(2).columns
    position = ARROW_SCHEMA.names.index("bytes_sent")
    columns[position] = pa.array([1, (1 << 64) - 1], ARROW_SCHEMA.field(position).type)
    with pytest.raises(MalformedMessage, match="bytes_sent has a number above"):
        decode(encode(pa.RecordBatch.from_arrays(columns, schema=ARROW_SCHEMA)))


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
                    assert decode(bytes(damaged)).num_rows == 200
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
