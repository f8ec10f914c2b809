"""What the kernel says about links and sockets in its log.

Read by syslog(2), which needs no device: as any user where kernel.dmesg_restrict is 0, else with
CAP_SYSLOG. Lines that a program wrote to /dev/kmsg are left out (their facility is not 0).
"""

import ctypes
import os
import re
from collections import Counter

from prometheus_client import Counter as Metric

from flowverdict_contracts.kernel_reports import KernelCondition, KernelReport

__all__ = ["KernelLog"]

_READ_ALL, _SIZE_BUFFER = 3, 10
_MOST_BYTES = 1 << 22
_EVERY = 5

_LINE = re.compile(r"<(\d+)>\[ *(\d+\.\d+)\](?:\[[^]]*\])? ?(.*)")
_KERNEL_FACILITY = range(8)

# The drivers' own words, net/netfilter/nf_conntrack_core.c, net/core/neighbour.c and
# net/ipv4/tcp_input.c.
_PATTERNS: dict[KernelCondition, re.Pattern[str]] = {
    "LINK_DOWN": re.compile(
        r"\blink (is |status definitely )?down\b|(carrier lost|lost carrier)", re.IGNORECASE
    ),
    "CONNTRACK_TABLE_FULL": re.compile(r"nf_conntrack: table full", re.IGNORECASE),
    "NEIGHBOUR_TABLE_OVERFLOW": re.compile(r"neighbou?r table overflow", re.IGNORECASE),
    "SYN_FLOODING": re.compile(r"possible syn flooding", re.IGNORECASE),
}

_REPORTED = Metric(
    "flowverdict_collector_kernel_reports_total",
    "Lines of the kernel log about links, tables that are full, and SYN floods.",
    ["condition"],
)

_libc = ctypes.CDLL(None, use_errno=True)


class KernelLog:
    """The lines since it was made.

    Raises:
        OSError: if it may not be read.
    """

    def __init__(self) -> None:
        size = _klogctl(_SIZE_BUFFER, None, 0)
        self._buffer = ctypes.create_string_buffer(min(size, _MOST_BYTES))
        self._calls = 0
        self._last = 0.0
        self._lines()

    def read(self) -> tuple[KernelReport, ...]:
        """What is new; looked for at every fifth call, since the whole log has to be read."""
        self._calls += 1
        if self._calls % _EVERY:
            return ()
        found: Counter[KernelCondition] = Counter()
        newest: dict[KernelCondition, str] = {}
        for line in self._lines():
            for condition, pattern in _PATTERNS.items():
                if pattern.search(line):
                    found[condition] += 1
                    newest[condition] = line
        for condition, count in found.items():
            _REPORTED.labels(condition).inc(count)
        return tuple(KernelReport(each, count, newest[each]) for each, count in found.items())

    def _lines(self) -> list[str]:
        """The kernel's own lines since the last call."""
        length = _klogctl(_READ_ALL, self._buffer, len(self._buffer))
        found, last = [], self._last
        for line in self._buffer.raw[:length].decode(errors="replace").splitlines():
            match = _LINE.match(line)
            if match and float(match[2]) > self._last:
                last = max(last, float(match[2]))
                if int(match[1]) in _KERNEL_FACILITY:
                    found.append(match[3])
        self._last = last
        return found


def _klogctl(action: int, buffer: "ctypes.Array[ctypes.c_char] | None", length: int) -> int:
    done: int = _libc.klogctl(action, buffer, length)
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done
