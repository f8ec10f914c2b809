"""What one end sent against what the other received, in a verdict."""

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import pytest

from conftest import enriched_batch, flow_row, header
from flowverdict_contracts.verdicts import FailingFlow, Verdict
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window_judge import WindowJudge
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
PODS = {"pod-a": "n1", "pod-b": "n1", "pod-c": "n2", "pod-d": "n2"}
SENT, LOST = 100, 20
T = 1_000_000


def rows_of(node: str, dropped_at: str) -> Iterator[dict[str, Any]]:
    """What a node counts in a second in which a fifth of pod-d's segments are lost, both ways."""
    for src, dst in permutations(PODS, 2):
        lost = LOST if "pod-d" in (src, dst) else 0
        row = flow_row(f"{src}@{PODS[src]}", f"{dst}@{PODS[dst]}", retransmitted_segments=lost)
        if PODS[src] == node:
            yield row | {"segments_sent": SENT, "segments_received": SENT - lost}
        if node == dropped_at:  # whoever sent it
            nothing = {"data_segments_sent": 0, "retransmitted_data_segments": 0}
            dropped = {"drops_netfilter": lost, "drop_reason_netfilter_drop": lost}
            dropped |= {"drops_socket": 9 * lost, "drop_reason_socket_rcvbuff": 9 * lost}
            yield row | nothing | {"role": "unknown", **dropped}


def opened(dropped_at: str = "", nodes: Sequence[str] = ("n1", "n2")) -> Verdict:
    """The first verdict, as the kernel of one node drops what is lost, and these nodes report."""
    panes, judge = Panes(SETTINGS), WindowJudge(SETTINGS)
    for second in range(40):
        for node in nodes:
            batch = enriched_batch(*rows_of(node, dropped_at))
            panes.add(header(T + second, second + 1, node), batch, second + 1)
        for window in panes.windows():
            for verdict in judge.judge(window):
                return verdict
    raise AssertionError("no verdict")


def flow(verdict: Verdict, src: str, dst: str) -> FailingFlow:
    ends = f"default/{src}", f"default/{dst}"
    return next(each for each in verdict.failing_flows if (each.src, each.dst) == ends)


@pytest.mark.parametrize(
    ("dropped_at", "where"),
    [("", "720 were lost on the way"), ("n2", "720 were dropped by the kernel of node n2")],
)
def test_a_verdict_says_how_much_arrived_and_what_became_of_the_rest(
    dropped_at: str, where: str
) -> None:
    verdict = opened(dropped_at)
    found = flow(verdict, "pod-a", "pod-d")
    assert (found.segments_sent, found.segments_arrived) == (600, 480)
    assert found.dropped_by_node == ({"n2": 120} if dropped_at else {})
    reasons = {"NETFILTER_DROP": 120, "SOCKET_RCVBUFF": 1080}
    assert found.drop_reasons == (reasons if dropped_at else {})
    assert f"Of 3600 segments, 720 did not arrive: {where}." in verdict.summary
    assert ("The kernel's reason is NETFILTER_DROP." in verdict.summary) == bool(dropped_at)


def test_without_a_collector_at_the_other_end_a_verdict_says_so() -> None:
    verdict = opened(nodes=["n1"])
    assert flow(verdict, "pod-a", "pod-d").segments_arrived is None
    assert "One end is not seen" in verdict.summary
