"""Many connections between pods of the lab: long ones at a time, or short ones after each other."""

import subprocess
import sys

from flowverdict_lab.cluster import Pod
from flowverdict_lab.network import Network

__all__ = ["open_and_close", "send_in_parallel", "serve"]

# Reads from every connection until its end, on each of the ports from 9000 on.
_SERVER = """
import socketserver, sys, threading
class Reader(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(1 << 16):
            pass
class Server(socketserver.ThreadingTCPServer):
    request_queue_size, allow_reuse_address, daemon_threads = 4096, True, True
servers = [Server(("", 9000 + number), Reader) for number in range(int(sys.argv[1]))]
for each in servers:
    threading.Thread(target=each.serve_forever).start()
print("ready", flush=True)
"""
_PARALLEL = """
import socket, sys, threading
def send(server, size):
    with socket.create_connection((server, 9000), 120) as connection:
        connection.sendall(b"x" * size)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
server, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
threads = [threading.Thread(target=send, args=(server, size)) for _ in range(count)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""
# Every connection has a byte to send. The ports of one server would not last: each is in
# TIME_WAIT for a minute.
_SHORT = """
import socket, sys
server, count, ports = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for number in range(count):
    with socket.create_connection((server, 9000 + number % ports), 60) as connection:
        connection.sendall(b"x")
"""


def serve(network: Network, pod: Pod, ports: int = 1) -> None:
    """Accept connections on so many ports of a pod, and read what they send."""
    network.start_inside(pod.name, [sys.executable, "-c", _SERVER, str(ports)])


def send_in_parallel(
    network: Network, pod: Pod, server: Pod, connections: int, bytes_each: int
) -> subprocess.Popen[bytes]:
    """Start to send that much over so many connections at a time; ends when all has arrived."""
    numbers = (str(connections), str(bytes_each))
    return network.start_inside(pod.name, [sys.executable, "-c", _PARALLEL, server.ipv4, *numbers])


def open_and_close(
    network: Network, pod: Pod, server: Pod, connections: int, ports: int
) -> subprocess.Popen[bytes]:
    """Start to open and close so many connections, one after the other."""
    numbers = (str(connections), str(ports))
    return network.start_inside(pod.name, [sys.executable, "-c", _SHORT, server.ipv4, *numbers])
