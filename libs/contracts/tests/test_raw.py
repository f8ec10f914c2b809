"""Raw flow records."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import header
from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.byte_columns import pack
from flowverdict_contracts.raw import (
    FIELDS,
    RECORD_BYTES,
    ROLES,
    SCHEMA,
    VERSION_2_RECORD_BYTES,
    VERSION_3_RECORD_BYTES,
    VERSION_4_RECORD_BYTES,
    VERSION_5_RECORD_BYTES,
)
from flowverdict_contracts.raw_records import RECORD, decode, read
from flowverdict_contracts.subjects import STREAMS, raw_subject

OFFSETS = {field.name: field.offset for field in FIELDS}


def test_fields_neither_overlap_nor_leave_the_record() -> None:
    taken: set[int] = set()
    for field in FIELDS:
        bytes_of_field = set(range(field.offset, field.offset + field.bytes))
        assert not taken & bytes_of_field, field.name
        taken |= bytes_of_field
    assert max(taken) < RECORD_BYTES


@given(st.lists(st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES), max_size=5))
def test_a_body_of_whole_records_is_read_record_by_record(records: list[bytes]) -> None:
    at = OFFSETS["role"]
    records = [each[:at] + bytes([each[at] % len(ROLES)]) + each[at + 1 :] for each in records]
    decoded = decode(b"".join(records))
    assert [each.tobytes() for each in decoded] == records
    for each, record in zip(decoded, records, strict=True):
        assert each["src"].tobytes() == record[:16]
        at = OFFSETS["segments_sent"]
        assert each["segments_sent"] == int.from_bytes(record[at : at + 4], "little")


@given(st.binary(max_size=1000).filter(lambda body: len(body) % RECORD_BYTES))
def test_a_body_that_is_not_whole_records_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("role", len(ROLES)),
        ("bytes_acked", 2**64 - 1),  # what a socket of another kind reads as
        ("segments_sent", 2**32 - 5),
        ("retransmitted_segments", 2**31 + 1),
        ("rtt_us", 2**32 - 1),
    ],
)
def test_a_record_that_cannot_be_true_costs_no_other(field: str, value: int) -> None:
    records = np.zeros(3, RECORD)
    records["opens"] = (1, 2, 3)
    records[field][1] = value
    found = read(header().encode(SCHEMA), records.tobytes())
    assert found.records["opens"].tolist() == [1, 3]
    assert found.impossible == {field: 1}


@given(st.lists(st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES), max_size=8))
def test_every_record_is_kept_or_counted_whatever_it_holds(records: list[bytes]) -> None:
    found = read(header().encode(SCHEMA), b"".join(records))
    assert len(found.records) + sum(found.impossible.values()) == len(records)
    assert (found.records["bytes_sent"] <= 2**48).all()


_SPARSE = st.lists(
    st.dictionaries(st.integers(0, RECORD_BYTES - 1), st.integers(0, 255), max_size=9), max_size=9
).map(lambda records: [bytes(each.get(at, 0) for at in range(RECORD_BYTES)) for each in records])


@given(_SPARSE)
def test_packed_records_are_read_as_those_that_are_not(records: list[bytes]) -> None:
    plain = read(header().encode(SCHEMA), b"".join(records))
    packed = pack(b"".join(records), RECORD_BYTES)
    found = read(replace(header(), is_packed=True).encode(SCHEMA), packed)
    assert found.records.tolist() == plain.records.tolist()
    assert found.impossible == plain.impossible
    assert not found.header.is_packed, "the records are not any longer"


@pytest.mark.parametrize(
    ("schema", "size"),
    [
        ("flows.raw/2", VERSION_2_RECORD_BYTES),
        ("flows.raw/3", VERSION_3_RECORD_BYTES),
        ("flows.raw/4", VERSION_4_RECORD_BYTES),
        ("flows.raw/5", VERSION_5_RECORD_BYTES),
    ],
)
def test_records_that_an_earlier_collector_left_in_the_kernel_are_packed_alike(
    schema: str, size: int
) -> None:
    at = OFFSETS["segments_sent"]
    records = b"".join(bytes(at) + bytes([n]) + bytes(size - at - 1) for n in (3, 0, 9))
    found = read(replace(header(), is_packed=True).encode(schema), pack(records, size))
    assert found.records["segments_sent"].tolist() == [3, 0, 9]


def test_the_names_after_records_of_version_5_are_read() -> None:
    assert VERSION_5_RECORD_BYTES == 296
    record = bytearray(VERSION_5_RECORD_BYTES)
    record[OFFSETS["dns_name"]] = 7
    names = b"\x07\0\x08\0api.shop" + b"\x09\0\x01\0."
    found = read(
        replace(header(), names_bytes=len(names)).encode("flows.raw/5"), bytes(record) + names
    )
    assert found.names == {7: "api.shop", 9: "."}
    assert found.records["dns_name"].tolist() == [7]
    assert not found.records["answers"].any()


@given(_SPARSE, st.data())
def test_packed_records_that_are_damaged_are_malformed_and_nothing_worse(
    records: list[bytes], data: st.DataObject
) -> None:
    packed = bytearray(pack(b"".join(records), RECORD_BYTES))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(packed)))
    headers = replace(header(), is_packed=True).encode(SCHEMA)
    with contextlib.suppress(MalformedMessage):
        assert len(read(headers, bytes(packed[:end])).records) <= 2048


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\1",
        b"\xff" * 4 + bytes(37),  # 1.3 TB of zeros
        bytes(4) + b"\xff" * 36,  # the mask is cut off
        pack(bytes(2 * RECORD_BYTES), RECORD_BYTES) + b"\0",
    ],
)
def test_what_is_no_packed_records_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read(replace(header(), is_packed=True).encode(SCHEMA), body)


def test_a_packing_that_is_not_known_is_malformed() -> None:
    headers = header().encode(SCHEMA) | {"Flowverdict-Packed": "zstd"}
    with pytest.raises(MalformedMessage, match="zstd"):
        read(headers, b"")


@pytest.mark.parametrize("name", ["worker0", "ip-10-0-0-1.ec2.internal", "NODE_1"])
def test_a_kubernetes_node_name_makes_a_subject(name: str) -> None:
    assert raw_subject(name) == f"flows.raw.{name}"


@pytest.mark.parametrize("name", ["", "a b", "a.*", ">", "a..b", ".a", "a.", "a\r\nPUB x"])
def test_a_name_that_would_break_out_of_its_subject_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="node name"):
        raw_subject(name)


def test_a_copy_of_a_message_is_recognised_as_long_as_flows_are_kept() -> None:
    for name in ("FLOWS_RAW", "FLOWS_ENRICHED"):
        assert STREAMS[name].duplicate_window == STREAMS[name].max_age


def test_a_record_of_version_1_is_read_and_its_handshake_told_from_its_data() -> None:
    old = bytearray(128)
    old[72:76] = (9).to_bytes(4, "little")  # retransmitted_segments
    old[76:80] = (4).to_bytes(4, "little")  # syn_retransmits
    old[80:84] = (2).to_bytes(4, "little")  # opens
    old[124:128] = (50).to_bytes(4, "little")  # data_segments_sent
    for role, name in ((1, "retransmitted_syns"), (2, "retransmitted_synacks")):
        old[122] = role
        (record,) = decode(bytes(old), "flows.raw/1")
        assert (record["retransmitted_segments"], record[name]) == (9, 4)
        assert record["retransmitted_data_segments"] == 5
        assert (record["opens"], record["data_segments_sent"], record["role"]) == (2, 50, role)


def test_a_record_of_version_2_is_read_and_what_it_lacks_is_zero() -> None:
    old = bytearray(160)
    old[144:148] = (123).to_bytes(4, "little")  # rtt_us
    old[154] = 2  # role
    old[155:160] = b"\xff" * 5  # not part of any field
    (record,) = decode(bytes(old), "flows.raw/2")
    assert (record["rtt_us"], record["role"]) == (123, 2)
    assert record["spurious_retransmissions"] == record["connect_us"] == 0
