"""Finds a port for a server."""

import random
import socket
from pathlib import Path

__all__ = ["free_port"]

_LOWEST = 20_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_port(wanted: int = 0) -> int:
    """`wanted` if nothing listens there, else a free port of 127.0.0.1.

    No port is given twice, because whoever got it may not have bound it yet. The ports are below
    those that the kernel gives to clients (ip(7), ip_local_port_range), which could take one, too.

    Raises:
        OSError: if there is none.
    """
    first_of_clients = int(_EPHEMERAL.read_text().split()[0])
    others = list(range(_LOWEST, first_of_clients)) or list(range(1024, 65536))
    random.shuffle(others)
    if wanted and _is_free(wanted):
        return wanted
    for port in others:
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise OSError("there is no free port on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
