"""Delays what a pod sends: a process on the wire between the pod and its node's bridge.

    delayer.py PORT MILLISECONDS

PORT is the node's interface that the pod is attached to. What arrives there, and is dropped on its
way to the bridge by somebody else, is put onto the bridge through a port of this process after
MILLISECONDS; what the bridge has for the pod is handed over at once. It works on kernels without
netem. Once it prints `ready`, packets pass through it.
"""

import select
import socket
import subprocess
import sys
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


def _delay(port: str, seconds: float) -> None:
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
            waiting.append((time.monotonic() + seconds, data))
        if bridge in readable and (data := _received(bridge)):
            pod.send(data)
        while waiting and waiting[0][0] <= time.monotonic():
            bridge.send(waiting.popleft()[1])


if __name__ == "__main__":
    _delay(sys.argv[1], int(sys.argv[2]) / 1000)
