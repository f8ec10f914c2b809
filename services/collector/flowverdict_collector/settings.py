"""The collector's settings."""

import platform
from dataclasses import dataclass

from flowverdict_collector.source import Options
from flowverdict_contracts.subjects import raw_subject
from flowverdict_runtime.service_settings import CommonSettings, listen_setting
from flowverdict_runtime.settings import (
    Address,
    Parser,
    choice,
    integer,
    number,
    optional_text,
    setting,
)

__all__ = ["CollectorSettings"]


def _parse_node(value: str) -> str:
    raw_subject(value)
    return value


def _parse_inodes(value: str) -> frozenset[int]:
    return frozenset(int(each) for each in value.split(",") if each)


inode_numbers = Parser("whole numbers separated by commas", _parse_inodes)
node_name = Parser("letters, digits, '-', '_' and single dots", _parse_node)


@dataclass(frozen=True, slots=True)
class CollectorSettings(CommonSettings):
    """What the collector reads from its environment."""

    node: str = setting(node_name, platform.node(), "this node's name, as Kubernetes knows it")
    interval_seconds: float = setting(number(0.1, 60), "1", "how often counts are published")
    max_flows: int = setting(
        integer(1024, 1 << 22),
        "65536",
        "how many flows may have counts in an interval; each takes 2 x 400 bytes in the kernel. "
        "Before Linux 6.1, also how many sockets can be tracked, at 300 bytes each",
    )
    pin_directory: str = setting(
        optional_text,
        "",
        "where to pin what goes on counting while no collector runs: /sys/fs/bpf, or another "
        "directory on a BPF file system; without one, what happens meanwhile is not counted",
    )
    network_namespaces: frozenset[int] = setting(
        inode_numbers,
        "",
        "count only these network namespaces, as inode numbers separated by commas; "
        "without any, all of this node",
    )
    dns: str = setting(
        choice("on", "off"), "off", "whether to count DNS lookups, by client, server and name"
    )
    fold_client_ports: str = setting(
        choice("on", "off"),
        "off",
        "whether all connections of a client to one port of a server are one flow, for nodes with "
        "thousands of new connections a second; which pod answers for a service, and what stays "
        "in a pod of a service mesh, is then unknown",
    )
    listen: Address = listen_setting("collector")

    @property
    def options(self) -> Options:
        """What is to be counted."""
        return Options(
            max_flows=self.max_flows,
            find_namespaces=not self.network_namespaces,
            lookups=self.dns == "on",
            fold_client_ports=self.fold_client_ports == "on",
        )
