"""Raw flow records."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.columns import RECORD, decode
from flowverdict_contracts.raw import FIELDS, RECORD_BYTES, ROLES
from flowverdict_contracts.subjects import STREAMS, raw_subject


def test_fields_neither_overlap_nor_leave_the_record() -> None:
    taken: set[int] = set()
    for name, kind, offset in FIELDS:
        size = 16 if kind == "16s" else int(kind[1:])
        bytes_of_field = set(range(offset, offset + size))
        assert not taken & bytes_of_field, name
        taken |= bytes_of_field
    assert max(taken) < RECORD_BYTES


@given(st.lists(st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES), max_size=5))
def test_a_body_of_whole_records_is_read_record_by_record(records: list[bytes]) -> None:
    records = [
        record[:122] + bytes([record[122] % len(ROLES)]) + record[123:] for record in records
    ]
    decoded = decode(b"".join(records))
    assert [each.tobytes() for each in decoded] == records
    for each, record in zip(decoded, records, strict=True):
        assert each["src"].tobytes() == record[:16]
        assert each["segments_sent"] == int.from_bytes(record[64:68], "little")


@given(st.binary(max_size=1000).filter(lambda body: len(body) % RECORD_BYTES))
def test_a_body_that_is_not_whole_records_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(body)


def test_a_record_with_an_unknown_role_is_malformed() -> None:
    record = np.zeros(1, RECORD)
    record["role"] = len(ROLES)
    with pytest.raises(MalformedMessage, match="role"):
        decode(record.tobytes())


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
