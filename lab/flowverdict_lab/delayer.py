"""Delays what a pod sends: a process on the wire between the pod and its node's bridge.

    delayer.py PORT [--milliseconds N] [--up-to-milliseconds N] [--kilobits-per-second N]

PORT is the node's interface that the pod is attached to. What arrives there, and is dropped on its
way to the bridge by somebody else, is put onto the bridge through a port of this process later, in
order: after a time, or after a random time up to another, or as fast as a rate allows, for which a
hundred packets wait at most. What the bridge has for the pod is handed over at once. It works on
kernels without netem. Once it prints `ready`, packets pass through it.
"""

import argparse
import random
import select
import socket
import subprocess
import time
from collections import deque

__all__ = ["OUTSIDE"]

OUTSIDE, _INSIDE = "delay", "delay-inside"
"""The bridge's port for what has been delayed, and this process' end of it."""

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # include/uapi/linux/if_packet.h
_LARGEST = 1 << 16


def _open(interface: str) -> socket.socket:
    """All packets of an interface, each after a virtio_net_hdr, which says what of its checksum is
    still to be done.
    """
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    packets.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    packets.bind((interface, _ETH_P_ALL))
    return packets


def _received(packets: socket.socket) -> bytes | None:
    """The next packet that arrived; None for one that was sent."""
    data, (_, _, kind, *_) = packets.recvfrom(_LARGEST)
    return None if kind == socket.PACKET_OUTGOING else data


_WAITING = 100


class _Wire:
    """When each packet is due."""

    def __init__(self, seconds: float, up_to_seconds: float, bytes_per_second: float) -> None:
        self._seconds, self._up_to_seconds = seconds, up_to_seconds
        self._bytes_per_second = bytes_per_second
        self._last = self._free_at = 0.0

    def due(self, size: int, waiting: int) -> float | None:
        """When a packet of so many bytes is due; None if it is lost, for want of room."""
        now = time.monotonic()
        if self._bytes_per_second and waiting >= _WAITING:
            return None
        if self._bytes_per_second:
            self._free_at = max(self._free_at, now) + size / self._bytes_per_second
            return self._free_at
        later = self._seconds + random.uniform(0, self._up_to_seconds)
        self._last = max(self._last, now + later)
        return self._last


def _delay(port: str, wire: _Wire) -> None:
    for command in (
        f"link add {OUTSIDE} type veth peer name {_INSIDE}",
        f"link set {OUTSIDE} master pods up",
        f"link set {_INSIDE} up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    pod, bridge = _open(port), _open(_INSIDE)
    waiting: deque[tuple[float, bytes]] = deque()
    print("ready", flush=True)
    while True:
        due = waiting[0][0] - time.monotonic() if waiting else None
        readable, _, _ = select.select([pod, bridge], [], [], None if due is None else max(0, due))
        if pod in readable and (data := _received(pod)):
            due_at = wire.due(len(data), len(waiting))
            if due_at is not None:
                waiting.append((due_at, data))
        if bridge in readable and (data := _received(bridge)):
            pod.send(data)
        while waiting and waiting[0][0] <= time.monotonic():
            bridge.send(waiting.popleft()[1])


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    for option in ("--milliseconds", "--up-to-milliseconds", "--kilobits-per-second"):
        parser.add_argument(option, type=int, default=0)
    chosen = parser.parse_args()
    rate = chosen.kilobits_per_second * 125
    _delay(chosen.port, _Wire(chosen.milliseconds / 1000, chosen.up_to_milliseconds / 1000, rate))


if __name__ == "__main__":
    _main()
