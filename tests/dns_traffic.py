"""DNS lookups between pods of the lab."""

import json
import sys
from collections.abc import Sequence

from flowverdict_lab.cluster import Pod
from flowverdict_lab.network import Network

__all__ = ["look_up", "look_up_over_tcp", "serve", "serve_tcp"]

# Answers each name with the code that it begins with; what begins with 9 gets no answer.
_SERVER = """
import socket, sys
at = sys.argv[1]
family = socket.AF_INET6 if ":" in at else socket.AF_INET
server = socket.socket(family, socket.SOCK_DGRAM)
server.bind((at, 53))
print("ready", flush=True)
while True:
    asked, client = server.recvfrom(512)
    code = asked[13] - ord("0")
    if code != 9:
        server.sendto(asked[:2] + bytes([0x81, 0x80 + code]) + asked[4:], client)
"""
_QUESTION = """
def question_of(number, name):
    label = bytes([len(name)]) + name.encode() + b"\\0"
    return bytes([7, number, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + label + b"\\0\\1\\0\\1"
"""
# Looks up names, each from a socket of its own as resolvers do, and waits for the answers.
_CLIENT = """
import json, socket, sys
server, names = sys.argv[1], json.loads(sys.argv[2])
family = socket.AF_INET6 if ":" in server else socket.AF_INET
for number, name in enumerate(names):
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.connect((server, 53))
        question = question_of(number, name)
        client.send(question)
        if name.startswith("9"):
            client.send(question)
        else:
            client.recv(512)
"""


# Answers the names that begin with 0, each over a connection of its own; hangs up on the others.
_TCP_SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 53))
print("ready", flush=True)
while True:
    peer, _ = server.accept()
    with peer:
        asked = peer.recv(512)
        if asked[15:16] == b"0":
            peer.sendall(asked)
            peer.recv(1)
"""
_TCP_CLIENT = """
import json, socket, sys
server, names = sys.argv[1], json.loads(sys.argv[2])
for number, name in enumerate(names):
    with socket.create_connection((server, 53), 30) as client:
        question = question_of(number, name)
        client.sendall(len(question).to_bytes(2, "big") + question)
        client.recv(512)
"""


def serve(network: Network, pod: Pod, address: str) -> None:
    """Answer lookups at an address of a pod, as the names say: see `look_up`."""
    network.start_inside(pod.name, [sys.executable, "-c", _SERVER, address])


def look_up(network: Network, pod: Pod, server: str, names: Sequence[str]) -> None:
    """Look up names, each of which begins with the code of its answer; 9 gets none."""
    network.inside(pod.name, [sys.executable, "-c", _QUESTION + _CLIENT, server, json.dumps(names)])


def serve_tcp(network: Network, pod: Pod) -> None:
    """Answer lookups over TCP at a pod, of the names that begin with 0."""
    network.start_inside(pod.name, [sys.executable, "-c", _TCP_SERVER, pod.ipv4])


def look_up_over_tcp(network: Network, pod: Pod, server: Pod, names: Sequence[str]) -> None:
    """Look up names, each over a connection of its own."""
    argv = [sys.executable, "-c", _QUESTION + _TCP_CLIENT, server.ipv4, json.dumps(names)]
    network.inside(pod.name, argv)
