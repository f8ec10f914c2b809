"""Carries connections from a port of this machine's loopback into a cluster's network.

    python -m flowverdict_lab.kubernetes.relay PORT PID ADDRESS PORT

Nothing else of the cluster's network is visible on this machine. PID is a process in the network
namespace to connect from.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import sys

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # a side that resets its connection ends it
    finally:
        with contextlib.suppress(OSError):
            writer.close()


async def _relay(listener: socket.socket, address: str, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection(address, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))

    async with await asyncio.start_server(carry, sock=listener) as server:
        await server.serve_forever()


def main() -> None:
    """Listen here, then move into the cluster's network; the listening socket stays here."""
    port, pid, address, to_port = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", int(port)))
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net") as namespace:  # noqa: PTH123 # a file descriptor is needed
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    asyncio.run(_relay(listener, address, int(to_port)))


if __name__ == "__main__":
    main()
