"""What nodes' kernels report in their logs, in verdicts on those nodes."""

from itertools import permutations

from conftest import SECOND, enriched_batch, flow_row
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.kernel_reports import KernelReport
from flowverdict_contracts.verdicts import Verdict, decode, encode
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window_judge import WindowJudge
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
PODS = {f"pod-{letter}": f"worker{index // 2}" for index, letter in enumerate("abcdef")}
DOWN = KernelReport("LINK_DOWN", 1, "e1000e 0000:00:1f.6 eno1: NIC Link is Down")
FULL = KernelReport("CONNTRACK_TABLE_FULL", 7, "nf_conntrack: table full, dropping packet")


def verdicts_on(lossy_node: str, reports: dict[int, tuple[str, KernelReport]]) -> list[Verdict]:
    """Of forty seconds in which a node loses a fifth; `reports` are by second, with their node."""
    panes, judge = Panes(SETTINGS), WindowJudge(SETTINGS)
    found: list[Verdict] = []
    for second in range(40):
        for node in ("worker0", "worker1", "worker2"):
            rows = []
            for src, dst in permutations(PODS, 2):
                if PODS[src] == node:
                    lost = 20 if lossy_node in (PODS[src], PODS[dst]) else 0
                    ends = (f"{each}@{PODS[each]}" for each in (src, dst))
                    rows.append(flow_row(*ends, retransmitted_segments=lost))
            where, report = reports.get(second, ("", DOWN))
            start = (1_000_000 + second) * SECOND
            header = IntervalHeader(
                node, "run", second + 1, start, start + SECOND,
                kernel_reports=(report,) if where == node else (),
            )  # fmt: skip
            read = IntervalHeader.decode(header.encode("s/1"), "s/1")
            panes.add(read, enriched_batch(*rows), 3 * second + 1)
        for window in panes.windows():
            found += [decode(encode(each)) for each in judge.judge(window)]
    return found


def test_what_the_kernel_of_the_blamed_node_reports_is_in_the_verdict() -> None:
    opened = verdicts_on("worker1", {1: ("worker1", DOWN), 2: ("worker1", FULL)})[0]
    assert str(opened.causes[0]) == "node worker1"
    assert {"LINK_DOWN", "CONNTRACK_TABLE_FULL"} <= set(opened.conditions)
    assert [(each.node, each.count, each.line) for each in opened.kernel_log] == [
        ("worker1", 1, DOWN.line),
        ("worker1", 7, FULL.line),
    ]
    assert opened.summary.endswith(
        "The kernel of node worker1 reported: e1000e 0000:00:1f.6 eno1: NIC Link is Down."
        " The kernel of node worker1 reported: nf_conntrack: table full, dropping packet (7 times)."
    )


def test_a_link_that_goes_down_again_flaps() -> None:
    last = verdicts_on("worker1", {3: ("worker1", DOWN), 20: ("worker1", DOWN)})[-1]
    assert {"LINK_DOWN", "LINK_FLAP"} <= set(last.conditions)


def test_what_another_node_reports_is_left_out() -> None:
    found = verdicts_on("worker1", {3: ("worker2", DOWN)})
    assert found
    assert not any(each.kernel_log or "LINK_DOWN" in each.conditions for each in found)


def test_what_a_kernel_reports_blames_nobody_by_itself() -> None:
    assert verdicts_on("none", {3: ("worker1", DOWN), 9: ("worker1", FULL)}) == []
