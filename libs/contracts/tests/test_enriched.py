"""Enriched messages."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.enriched import ARROW_SCHEMA, decode, encode

WORDS = {
    "role": "client",
    "src_kind": "pod",
    "dst_kind": "pod",
    "src_name_confidence": "certain",
    "dst_name_confidence": "certain",
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
