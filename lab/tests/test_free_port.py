"""Ports for servers."""

import socket
from pathlib import Path

from flowverdict_lab.free_port import free_port


def test_no_port_is_given_twice_although_none_is_bound() -> None:
    ports = [free_port() for _ in range(2000)]
    assert len(set(ports)) == len(ports)


def test_no_port_is_one_that_the_kernel_gives_to_clients() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(not low <= free_port() <= high for _ in range(100))


def test_a_wanted_port_is_given_unless_something_listens_there() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        taken = server.getsockname()[1]
        assert free_port(taken) != taken
    assert free_port(taken) == taken
