"""Addresses as stored in raw records: 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2)."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

__all__ = ["ADDRESSES", "ENDS", "is_loopback", "is_packed_loopback", "parse", "to_bytes", "to_text"]

ENDS = ("src", "dst")
"""The ends of a flow: the local one, and the remote one."""

ADDRESSES = ("src_ip", "dst_ip")
"""The columns with both ends' addresses, as text."""

_MAPPED = b"\0" * 10 + b"\xff\xff"
"""What an IPv4 address begins with."""


def to_bytes(text: str) -> bytes:
    """The address in `text`, as 16 bytes.

    Raises:
        ValueError: if `text` is not an address.
    """
    try:
        return _MAPPED + socket.inet_pton(socket.AF_INET, text)  # a tenth of what follows
    except OSError:
        return ip_address(text).packed


def parse(packed: bytes) -> IPv4Address | IPv6Address:
    """The address in 16 bytes."""
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def to_text(packed: bytes) -> str:
    """The address in 16 bytes in its usual notation (RFC 5952)."""
    if packed.startswith(_MAPPED):  # most are, and this takes a tenth
        return socket.inet_ntoa(packed[12:])
    return str(parse(packed))


def is_loopback(text: str) -> bool:
    """Whether flows of this address, in its usual notation, stay on their host."""
    return text == "::1" or text.startswith("127.")


def is_packed_loopback(packed: bytes) -> bool:
    """`is_loopback` of an address in 16 bytes, for many of them."""
    return packed == _IPV6_LOOPBACK or packed.startswith(_IPV4_LOOPBACK)


_IPV6_LOOPBACK = to_bytes("::1")
_IPV4_LOOPBACK = to_bytes("127.0.0.0")[:13]
