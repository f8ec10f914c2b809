"""Which nodes report, which are silent, and which have just been heard again.

heard      n1 |-||-||-||-||-||-||-||-||-||-||-||-||-|     one interval each second
silent     n2 |-||-|        .   .   .  |-||-||-||-|       a collector that was away ...
gap        n2 |-||-||----------------||-||-||-||-|        ... reports what it counted then
recovering n2                         ~~~~~~~~~~~~~~      TCP may need as long again
"""

from collections.abc import Iterator, Mapping

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_rca.facts import SilentNode
from flowverdict_rca.settings import RcaSettings

__all__ = ["KNOWN_NS", "Nodes"]

_SECOND = 1_000_000_000
_SLACK_NS = _SECOND // 2
_ACTIVE_NS = 30 * _SECOND
KNOWN_NS = 600 * _SECOND
"""What was seen last longer ago than this is forgotten."""
_RTO_MAX_NS = 120 * _SECOND
_MOST_NODES = 5000


def _newest(heard: dict[str, int]) -> dict[str, int]:
    if len(heard) <= _MOST_NODES:
        return heard
    return {node: heard[node] for node in sorted(heard, key=heard.__getitem__)[-_MOST_NODES:]}


class Nodes:
    """The nodes of the last ten minutes, 5,000 at most: those heard last.

    Args:
        heard: for each node, the end of its last interval.
        gaps: for each node, start and end of its last interval that was much longer than a pane:
            in that time it could not be heard.
    """

    def __init__(
        self,
        settings: RcaSettings,
        heard: Mapping[str, int] | None = None,
        gaps: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self._pane_ns = int(settings.pane_seconds * _SECOND)
        self._window_ns = settings.window_panes * self._pane_ns
        self._lateness_ns = int(settings.lateness_seconds * _SECOND)
        self._heard = dict(heard or {})
        self._gaps = dict(gaps or {})
        self._stored: dict[str, int] = {}

    def add(self, header: IntervalHeader, stored_ns: int = 0) -> bool:
        """A node has reported an interval; True if the interval is a gap.

        Args:
            header: of the interval.
            stored_ns: when NATS stored it, 0 if that is not known.
        """
        node, start_ns, end_ns = header.node, header.start_ns, header.end_ns
        self._heard[node] = max(self._heard.get(node, 0), end_ns)
        self._stored[node] = stored_ns
        if len(self._heard) > 2 * _MOST_NODES:
            self._forget()
        if end_ns - start_ns <= 2 * self._pane_ns:
            return False
        self._gaps[node] = start_ns, end_ns
        return True

    def _forget(self) -> None:
        self._heard = _newest(self._heard)
        self._gaps = {node: gap for node, gap in self._gaps.items() if node in self._heard}
        self._stored = {node: at for node, at in self._stored.items() if node in self._heard}

    def late(self, start_ns: int) -> set[str]:
        """Those of which NATS stored something since then, but only what had ended before."""
        return {
            node
            for node, stored_ns in self._stored.items()
            if stored_ns >= start_ns > self._heard.get(node, 0)
        }

    def heard(self, now_ns: int) -> dict[str, int]:
        """For each known node, the end of its last interval."""
        return _newest({node: at for node, at in self._heard.items() if at > now_ns - KNOWN_NS})

    def gaps(self, now_ns: int) -> dict[str, tuple[int, int]]:
        """For each known node, its last gap, if it had one."""
        return {node: gap for node, gap in self._gaps.items() if gap[1] > now_ns - KNOWN_NS}

    def have_passed(self, end_ns: int) -> bool:
        """Whether every active node has, or a slow one has been waited for long enough."""
        latest = max(self._heard.values(), default=0)
        if latest >= end_ns + self._lateness_ns + _SLACK_NS:
            return True
        active = [at for at in self._heard.values() if at > latest - _ACTIVE_NS]
        return bool(active) and min(active) >= end_ns + _SLACK_NS

    def silent(self, end_ns: int, caught_up: Mapping[str, int]) -> tuple[SilentNode, ...]:
        """Those that could not be heard in the pane that ends at `end_ns`, by name.

        Args:
            end_ns: of the window's newest pane.
            caught_up: nodes that were heard again within the window, with the start of their gap.
        """
        found = [
            SilentNode(node, at, heard_again=False)
            for node, at in self.heard(end_ns).items()
            if at <= end_ns - self._pane_ns
        ]
        found += [
            SilentNode(node, start_ns, heard_again=False)
            for node, (start_ns, until_ns) in self._gaps.items()
            if start_ns <= end_ns - self._pane_ns and end_ns < until_ns and node not in caught_up
        ]
        found += [SilentNode(node, at, heard_again=True) for node, at in caught_up.items()]
        return tuple(sorted(found, key=lambda each: each.name))

    def recovering(self, end_ns: int) -> Iterator[str]:
        """Those whose connections may still wait for their next retransmission.

        TCP doubles its timeout with each retransmission (RFC 6298, 5.5), so after a gap a
        connection can stay silent for as long as the gap was, up to TCP_RTO_MAX
        (include/net/tcp.h). If all nodes had a gap, it was NATS that could not be reached.
        """
        known = set(self.heard(end_ns))
        for node, (start_ns, until_ns) in self._gaps.items():
            longest = min(until_ns - start_ns, _RTO_MAX_NS) + self._window_ns
            without = known - {
                other
                for other, (other_start_ns, other_until_ns) in self._gaps.items()
                if other_start_ns < until_ns and start_ns < other_until_ns
            }
            if until_ns <= end_ns <= until_ns + longest and without:
                yield node
                if len(without) == 1:  # it may have been the one that was cut off
                    yield from without
