"""Names of DNS lookups in raw messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import header
from flowverdict_contracts import MalformedMessage, looked_up_names, numbered_texts
from flowverdict_contracts.raw import SCHEMA
from flowverdict_contracts.raw_records import RECORD, read

labels = st.lists(st.binary(min_size=1, max_size=63), max_size=4)


def in_query(parts: list[bytes]) -> bytes:
    return b"".join(bytes([len(each)]) + each for each in parts) + b"\0"


texts = labels.map(in_query).map(looked_up_names.text_of)


@given(st.dictionaries(st.integers(1, 0xFFFFFFFF), texts))
def test_names_are_read_as_they_were_written(names: dict[int, str]) -> None:
    assert numbered_texts.decode(numbered_texts.encode(names)) == names


@given(st.binary(max_size=300))
def test_whatever_is_in_a_query_becomes_printable_text(labels: bytes) -> None:
    text = looked_up_names.text_of(labels)
    assert text
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set('"{}<>& ')


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (b"\x03api\x04shop\x00", "api.shop"),
        (b"\x00", "."),
        (b"\x04_tcp\x01*\x00", "_tcp.*"),
        (b"\x04a.b\\\x00", r"a\046b\092"),
        (b"\x3faaaa", "aaaa..."),
        (b"\x3faaaa" + bytes(100), "aaaa..."),
        (b"\x03api" + bytes(100), "api"),
    ],
)
def test_a_name_is_written_as_operators_write_it(labels: bytes, text: str) -> None:
    assert looked_up_names.text_of(labels) == text


@given(st.binary(max_size=60))
def test_bytes_that_are_no_names_are_malformed_or_names(packed: bytes) -> None:
    try:
        names = numbered_texts.decode(packed)
    except MalformedMessage:
        return
    assert all(name.isprintable() for name in names.values())


def message(
    names: dict[int, str], *, header_bytes: int | None = None
) -> tuple[dict[str, str], bytes]:
    records = np.zeros(2, RECORD)
    records["dns_name"], records["src_port"] = (7, 0), (7, 40_000)
    packed = numbered_texts.encode(names)
    headers = header().encode(SCHEMA)
    size = len(packed) if header_bytes is None else header_bytes
    return headers | {"Flowverdict-Names": str(size)}, records.tobytes() + packed


def test_a_row_about_a_lookup_has_its_name_and_no_port() -> None:
    found = read(*message({7: "api.shop"}))
    assert found.names == {7: "api.shop"}
    assert found.records["src_port"].tolist() == [0, 40_000]
    assert found.header.names_bytes == 0


def test_the_pods_on_a_nodes_network_follow_the_names() -> None:
    headers, body = message({7: "api.shop"})
    packed = numbered_texts.encode({4_000_000_000: "0f7c"})
    found = read(headers | {"Flowverdict-Owners": str(len(packed))}, body + packed)
    assert (found.names, found.owners) == ({7: "api.shop"}, {4_000_000_000: "0f7c"})
    assert found.header.owners_bytes == 0


@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_a_header_that_says_another_length_is_malformed(size: int) -> None:
    with pytest.raises(MalformedMessage):
        read(*message({7: "api.shop"}, header_bytes=size))
