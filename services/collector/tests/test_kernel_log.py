"""What is read of the kernel's log; `tests/test_half_open.py` has the real kernel write it."""

import ctypes
import errno

import pytest

from flowverdict_collector import kernel_log
from flowverdict_collector.kernel_log import KernelLog

LINES = {
    "LINK_DOWN": [
        "e1000e 0000:00:1f.6 eno1: NIC Link is Down",
        "mlx5_core 0000:03:00.0 ens1f0np0: Link down",
        "r8169 0000:02:00.0 eth0: Link is Down",
        "bond0: (slave eth1): link status definitely down, disabling slave",
        "hv_netvsc 7c1e: eth0: carrier lost",
    ],
    "CONNTRACK_TABLE_FULL": ["nf_conntrack: nf_conntrack: table full, dropping packet"],
    "NEIGHBOUR_TABLE_OVERFLOW": [
        "neighbour: arp_cache: neighbor table overflow!",
        "neighbour: ndisc_cache: neighbor table overflow!",
    ],
    "SYN_FLOODING": [
        "TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:8080. Sending cookies."
    ],
}
OTHERS = [
    "e1000e 0000:00:1f.6 eno1: NIC Link is Up 1000 Mbps Full Duplex",
    "pods: port 1(pod-a) entered disabled state",
    "IPv6: ADDRCONF(NETDEV_CHANGE): veth0: link becomes ready",
]


class Kernel:
    """Stands in for syslog(2)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text = ""
        self._seconds = 1.0
        monkeypatch.setattr(kernel_log, "_klogctl", self.klogctl)

    def klogctl(self, action: int, buffer: "ctypes.Array[ctypes.c_char]", length: int) -> int:
        if action == 10:
            return 1 << 14
        text = self.text.encode()[-length:]
        ctypes.memmove(buffer, text, len(text))
        return len(text)

    def says(self, line: str, priority: int = 6, caller: str = "") -> None:
        self._seconds += 0.001
        self.text += f"<{priority}>[{self._seconds:12.6f}]{caller} {line}\n"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def read(log: KernelLog) -> dict[str, tuple[int, str]]:
    reports = [each for _ in range(5) for each in log.read()]
    return {each.condition: (each.count, each.line) for each in reports}


def test_each_line_about_a_link_or_a_table_is_a_condition_once(kernel: Kernel) -> None:
    for line in (*LINES["LINK_DOWN"], *OTHERS):
        kernel.says(line)
    log = KernelLog()
    assert read(log) == {}, "what was said before is not new"
    for number, line in enumerate([each for of in LINES.values() for each in of] + OTHERS):
        kernel.says(line, caller="[  T123]" if number % 2 else "")
    expected = {condition: (len(lines), lines[-1]) for condition, lines in LINES.items()}
    assert read(log) == expected
    assert read(log) == {}


def test_what_a_program_writes_into_the_log_is_not_the_kernel(kernel: Kernel) -> None:
    log = KernelLog()
    kernel.says("nf_conntrack: table full", priority=12)
    assert read(log) == {}


def test_a_line_that_is_cut_or_strange_is_left_out(kernel: Kernel) -> None:
    log = KernelLog()
    kernel.text = "conntrack: table full\n<6>[ x ] link is down\n<6>[99999\n\x00\xff\n" * 1000
    kernel.says(LINES["SYN_FLOODING"][0])
    assert list(read(log)) == ["SYN_FLOODING"]


def test_a_log_that_may_not_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(kernel_log, "_klogctl", refuse)
    with pytest.raises(PermissionError):
        KernelLog()
