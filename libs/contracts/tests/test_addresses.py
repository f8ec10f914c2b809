"""Addresses, as text and in 16 bytes."""

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from flowverdict_contracts.addresses import is_loopback, is_packed_loopback, to_bytes, to_text

loopback = st.integers(0, 2**24 - 1).map(lambda number: ip_network("127.0.0.0/8")[number])
any_address = st.one_of(
    loopback,
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.just(IPv6Address("::1")),
)


@given(any_address)
def test_an_address_is_loopback_in_16_bytes_if_it_is_as_text(
    address: IPv4Address | IPv6Address,
) -> None:
    packed = to_bytes(str(address))
    assert is_packed_loopback(packed) == is_loopback(to_text(packed))


@given(loopback)
def test_all_of_127_is_loopback(address: IPv4Address) -> None:
    assert is_packed_loopback(to_bytes(str(address)))
