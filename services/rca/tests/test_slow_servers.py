"""Late answers, full receivers, resets, drops and floods, found in long windows."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest

from conftest import flow_row
from flowverdict_rca.normal import Normal
from tests.mesh import PODS, Mesh, Shop, at, nothing


def test_a_server_whose_answers_are_late_is_named_and_not_the_links_to_it() -> None:
    shop = Shop()
    shop.serves(150)
    shop.answer_us["pod-e"] = 300_000
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-e")]
    opened = shop.verdicts[0]
    assert (opened.basis, opened.severity) == ("answers", "warning")
    assert opened.conditions == ("SLOW_ANSWERS",)
    assert opened.causes[0].direction == "receiving"
    assert "answers late: its answers to 3 callers take 3" in opened.summary
    assert {flow.dst for flow in opened.failing_flows} == {"default/pod-e"}
    assert min(flow.answer_us for flow in opened.failing_flows) > 200_000
    shop.answer_us.clear()
    shop.serves(120)
    assert shop.said()[1:] == [("resolved", "pod default/pod-e")]
    assert shop.verdicts[-1].summary.endswith("it answers as fast as usual.")


def test_a_server_so_fast_that_hardly_an_answer_is_timed_is_named_once_it_is_slow() -> None:
    shop = Shop()
    shop.answers = 0.05  # 1.5 of a pair in a long window
    shop.serves(300)
    shop.answers, shop.answer_us["pod-e"] = 10.0, 300_000
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-e")]


def test_a_pod_that_a_rollout_put_in_the_place_of_another_is_judged_by_what_was_normal() -> None:
    def workloads(src: str, dst: str) -> dict[str, str]:
        names = {"src": src, "dst": dst}
        return {
            f"{end}_workload": "front" if pod in Shop.CALLERS else f"back-{PODS[pod]}"
            for end, pod in names.items()
        }

    shop = Shop()
    shop.also = workloads
    shop.serves(150)
    shop.SERVERS = ("pod-b", "pod-x", "pod-h")  # instead of pod-e, on its node
    shop.answer_us["pod-x"] = 300_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PODS, "pod-x", PODS["pod-e"])
        shop.serves(300)
    assert shop.said() == [("opened", "pod default/pod-x")]


@pytest.mark.parametrize("asks", [1, 3, 10])
def test_who_waits_for_a_slow_server_is_not_to_blame_however_often_it_asks(asks: int) -> None:
    shop = Shop()
    shop.answers, shop.asks = 3.0, asks
    shop.serves(150)
    shop.answer_us[Shop.DATABASE] = 200_000
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-f")]


def test_who_waits_for_a_slow_way_is_not_to_blame() -> None:
    shop = Shop()
    shop.serves(150)
    shop.way_us = lambda src, dst: 100_000 * (Shop.DATABASE in (src, dst))
    shop.serves(120)
    assert [each.basis for each in shop.verdicts[:1]] == ["latency"]
    assert shop.said() == [("opened", "pod default/pod-f")]


@pytest.mark.parametrize("seconds", [90, 150])
def test_if_all_ways_become_slower_no_server_is_to_blame_for_late_answers(seconds: int) -> None:
    shop = Shop()
    shop.serves(150)
    shop.way_us = lambda src, dst: 100_000
    shop.serves(seconds)
    assert shop.verdicts == []


def test_a_server_with_a_single_caller_is_named_once_it_is_slow() -> None:
    shop = Shop()
    shop.CALLERS, shop.SERVERS = ("pod-a",), ("pod-b",)
    shop.serves(150)
    shop.answer_us["pod-b"] = 300_000
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-b")]
    told = "the link default/pod-a -> default/pod-b equally well"
    assert told in shop.verdicts[0].summary, "it may be asked for more"


def test_a_few_answers_to_a_single_caller_that_take_longer_are_how_it_is_asked() -> None:
    shop = Shop()
    shop.CALLERS, shop.SERVERS, shop.answers = ("pod-a",), ("pod-b",), 0.4
    shop.serves(150)
    shop.answer_us["pod-b"] = 300_000
    shop.serves(120)
    assert shop.said() == []


def test_servers_that_ask_each_other_and_are_slow_are_named() -> None:
    shop = Shop()
    shop.also = lambda src, dst: {"answers": 30, "answers_us": 30 * shop.answer_us.get(dst, 2_000)}
    shop.serves(150)
    for pod in ("pod-b", "pod-f"):
        shop.answer_us[pod] = 300_000
    shop.serves(120)
    assert {cause for _, cause in shop.said()} == {"pod default/pod-b", "pod default/pod-f"}


def test_what_is_slow_on_the_way_is_no_servers_fault() -> None:
    shop = Shop()
    shop.serves(150)
    shop.way_us = lambda src, dst: 300_000 * ("pod-e" in (src, dst))
    shop.serves(120)
    assert [each.basis for each in shop.verdicts[:1]] == ["latency"]
    assert shop.said() == [("opened", "pod default/pod-e")]
    assert "SLOW_ANSWERS" not in {name for each in shop.verdicts for name in each.conditions}


@pytest.mark.parametrize("pod", ["pod-e", Shop.DATABASE])
def test_answers_that_wait_for_what_is_sent_again_are_the_losses_fault(pod: str) -> None:
    shop = Shop()
    shop.serves(150)
    shop.answer_us[pod] = 30_000
    shop.serves(120, at(pod, 0.02))
    assert {each.basis for each in shop.verdicts} == {"losses"}


def test_a_full_receiver_is_told_from_a_slow_one() -> None:
    shop = Shop()
    shop.serves(150)
    shop.full = "pod-e"
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-e")]
    opened = shop.verdicts[0]
    assert (opened.basis, opened.conditions) == ("zero_windows", ("ZERO_WINDOW",))
    assert " reads too slowly: 3 senders found its receive buffers full " in opened.summary
    shop.full = ""
    shop.serves(120)
    assert shop.said()[1:] == [("resolved", "pod default/pod-e")]


def test_a_receiver_that_reads_and_answers_late_is_one_incident() -> None:
    shop = Shop()
    shop.serves(150)
    shop.answer_us["pod-e"], shop.full = 300_000, "pod-e"
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-e")]
    assert shop.verdicts[0].conditions == ("ZERO_WINDOW",), "that explains the rest"


def resets(src: str, dst: str, *, by: str = "", share: float = 0.0) -> dict[str, int]:
    """Of ten connections a second, those that one end resets."""
    return {
        "segments_sent": 200,
        "opens": 10,
        "resets_received": int(10 * share) if dst == by else 0,
    }


def test_a_pod_that_resets_connections_is_named_and_not_who_calls_it() -> None:
    shop = Shop()
    shop.also = resets
    shop.serves(150)
    shop.also = partial(resets, by="pod-e", share=0.5)
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-e")]
    opened = shop.verdicts[0]
    assert (opened.basis, opened.conditions) == ("resets", ("RESET",))
    assert opened.causes[0].direction == "receiving"
    assert opened.summary.startswith(
        "Pod default/pod-e on node worker1 resets connections: 600 with 4 peers, while 1200 were"
        " opened; usually none of them are."
    )
    assert {flow.resets_received for flow in opened.failing_flows} == {150}
    shop.also = resets
    shop.serves(120)
    assert shop.said()[1:] == [("resolved", "pod default/pod-e")]
    assert shop.verdicts[-1].summary == ("Connections of pod default/pod-e are no longer reset.")


@pytest.mark.parametrize("refused", [4, 9])
def test_a_server_that_refuses_less_than_half_of_the_attempts_is_named(refused: int) -> None:
    def calls(src: str, dst: str, *, fails: int = 0) -> dict[str, int]:
        failed = fails if dst == "pod-e" and src in Shop.CALLERS else 0
        return {"opens": 20 - failed, "failed_opens": failed, "refused_opens": failed}

    shop = Shop()
    shop.also = calls
    shop.serves(150)
    shop.also = partial(calls, fails=refused)
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-e")]
    opened = shop.verdicts[0]
    assert (opened.basis, opened.conditions) == ("connects", ("CONNECT_FAILURE",))
    assert (opened.causes[0].direction, opened.severity) == ("receiving", "warning")
    count = refused * 30 * 3
    assert opened.summary.startswith(
        f"Pod default/pod-e on node worker1 has failing connection attempts: {count} of 1800 in 3"
        f" flows sent to it, usually none. {count} were refused."
    )
    shop.also = calls
    shop.serves(120)
    assert shop.said()[1:] == [("resolved", "pod default/pod-e")]


class ThreeTiers(Mesh):
    """Who loads calls the web, which calls a database; each is a service of several pods."""

    TIERS: ClassVar = {"load": range(6), "web": range(1, 5), "db": range(4, 7)}

    def serves(self, seconds: int, **of: dict[str, int]) -> None:
        """Time passes; connections to these tiers also count this."""
        self.passes_rows(seconds, lambda: [*self._rows(of)])

    def _rows(self, of: dict[str, dict[str, int]]) -> Iterator[dict[str, Any]]:
        for caller, server in (("load", "web"), ("web", "db")):
            for one, other in product(self._pods(caller), self._pods(server)):
                for src, dst, role in ((one, other, "client"), (other, one, "server")):
                    call = {"opens": 10} | of.get(server, {}) if role == "client" else {}
                    row = flow_row(src, dst, data_segments_sent=150, segments_sent=200, rtt_us=400)
                    yield row | call | {"role": role} | self._names(src, dst)

    def _pods(self, tier: str) -> list[str]:
        return [f"{tier}-{at}@worker{at % 3}" for at in range(len(self.TIERS[tier]))]

    def _names(self, src: str, dst: str) -> dict[str, str]:
        names: dict[str, str] = {}
        for end, pod in (("src", src), ("dst", dst)):
            tier, _, rest = pod.partition("-")
            address = f"10.1.{list(self.TIERS).index(tier)}.{rest[0]}"
            names |= {f"{end}_{name}": tier for name in ("workload", "service")}
            names |= {f"{end}_workload_kind": "Deployment", f"{end}_ip": address}
        return names


@pytest.mark.parametrize("broken", ["web", "db"])
def test_a_service_all_of_whose_pods_reset_is_named_and_not_who_calls_it(broken: str) -> None:
    shop = ThreeTiers()
    shop.serves(150)
    shop.serves(120, **{broken: {"resets_received": 5}})
    assert shop.said() == [("opened", f"service default/{broken}")]
    assert shop.verdicts[0].basis == "resets"


@pytest.mark.parametrize("broken", ["web", "db"])
def test_a_service_all_of_whose_pods_refuse_is_named_and_not_who_calls_it(broken: str) -> None:
    refused = {"opens": 0, "failed_opens": 12, "refused_opens": 12, "data_segments_sent": 0}
    shop = ThreeTiers()
    shop.serves(60)
    shop.serves(20, **{broken: refused})
    (named,) = {cause for _, cause in shop.said()}
    assert named in (f"service default/{broken}", f"workload default/{broken}")
    assert {each.incident_id for each in shop.verdicts} == {shop.verdicts[0].incident_id}


def test_a_fault_that_begins_with_one_caller_is_not_taken_for_normal() -> None:
    """Its first window ends soon after it has begun, or callers meet it one after the other."""
    shop, meeting = Shop(), set[str]()
    shop.also = lambda src, dst: resets(src, dst, by="pod-e", share=0.5 * (src in meeting))
    shop.serves(150)
    for caller in (*Shop.CALLERS, Shop.DATABASE):
        meeting.add(caller)
        shop.serves(30)
    shop.serves(60)
    assert shop.said() == [("opened", "pod default/pod-e")]


def test_one_pair_that_stays_as_it_has_become_is_normal_after_a_while() -> None:
    shop, meeting = Shop(), set[str]()
    shop.also = lambda src, dst: resets(src, dst, by="pod-e", share=0.5 * (src in meeting))
    shop.serves(150)
    meeting.add("pod-a")
    shop.serves(360)
    meeting.add("pod-d")
    shop.serves(120)
    assert shop.said() == []


def test_a_program_that_has_always_closed_with_resets_is_normal() -> None:
    shop = Shop()
    shop.also = partial(resets, by="pod-e", share=0.9)
    shop.serves(300)
    assert shop.verdicts == []


def test_a_few_resets_in_a_large_pool_of_connections_are_none() -> None:
    shop = Shop()
    many = {"segments_sent": 9000, "data_segments_sent": 5000, "retransmitted_data_segments": 0}
    shop.also = lambda src, dst: many
    shop.serves(150)
    shop.also = lambda src, dst: many | {"resets_received": int(dst == "pod-e")}
    shop.serves(120)
    assert shop.verdicts == []


def test_connections_that_are_refused_are_not_reset() -> None:
    shop = Shop()
    shop.also = resets
    shop.serves(150)
    shop.also = lambda src, dst: {
        "segments_sent": 200, "opens": 10, "failed_opens": 4, "refused_opens": 4,
        "resets_received": 4 if dst == "pod-e" else 0,
    }  # fmt: skip
    shop.serves(120)
    assert "resets" not in {each.basis for each in shop.verdicts}


def test_a_pod_that_is_flooded_with_connection_requests_is_told() -> None:
    def flood(seconds: int) -> None:
        shop.others = [
            flow_row("pod-e@worker1", "x@", data_segments_sent=0, retransmitted_synacks=2)
            | {"role": "server", "src_ip": "10.0.0.1", "dst_ip": f"45.0.0.{number}"}
            | {"dst_kind": "external", "dst_pod": "", "dst_namespace": "", "dst_node": ""}
            for number in range(50)
        ]
        shop.serves(seconds)
        shop.others = []

    shop = Shop()
    shop.also = resets
    shop.serves(150)
    flood(120)
    assert shop.said() == [("opened", "pod default/pod-e")]
    opened = shop.verdicts[0]
    assert (opened.basis, opened.severity) == ("half_open", "warning")
    assert opened.conditions == ("HALF_OPEN",)
    assert opened.summary.startswith(
        "Pod default/pod-e on node worker1 is sent connection requests that never complete: it"
        " repeated its answer 3000 times, to 50 addresses; usually never."
    )
    shop.serves(120)
    assert shop.said()[1:] == [("resolved", "pod default/pod-e")]
    assert shop.verdicts[-1].summary == ("Connection requests to pod default/pod-e complete again.")


def drops(src: str, dst: str, *, of: str = "") -> dict[str, int]:
    dropped = 4 if src == of else 0
    return {"segments_sent": 200, "drops_netfilter": dropped, "drop_reason_netfilter_drop": dropped}


def test_packets_that_a_kernel_drops_without_a_loss_are_said_with_node_and_reason() -> None:
    shop = Shop()
    shop.also = drops
    shop.serves(150)
    shop.also = partial(drops, of="pod-e")
    shop.serves(120)
    assert shop.said() == [("opened", "pod default/pod-e")]
    opened = shop.verdicts[0]
    assert (opened.basis, opened.conditions) == ("drops", ("PACKET_DROPS",))
    assert opened.summary.startswith(
        "Packets of pod default/pod-e are dropped: 480 of 24000 in 4 flows that it sends, usually"
        " none; 480 by the kernel of node n1. The kernel's reason is NETFILTER_DROP."
    )
    shop.also = drops
    shop.serves(120)
    assert shop.said()[1:] == [("resolved", "pod default/pod-e")]


def test_packets_that_arrive_though_a_kernel_dropped_a_copy_are_not_dropped() -> None:
    shop = Shop()
    shop.also = lambda src, dst: drops(src, dst) | {"segments_received": 200}
    shop.serves(150)
    shop.also = lambda src, dst: drops(src, dst, of="pod-e") | {"segments_received": 200}
    shop.serves(120)
    assert shop.verdicts == []


def test_drops_that_are_losses_are_one_incident() -> None:
    shop = Shop()
    shop.also = drops
    shop.serves(150)
    shop.also = partial(drops, of="pod-e")
    shop.serves(120, lambda src, dst: 0.02 if src == "pod-e" else nothing(src, dst))
    assert shop.said() == [("opened", "pod default/pod-e")]
    assert {each.basis for each in shop.verdicts} == {"losses"}


def test_a_receiver_that_has_always_had_no_room_is_normal() -> None:
    shop = Shop()
    shop.full = "pod-e"
    shop.serves(300)
    assert shop.verdicts == []


def test_answers_that_have_always_been_late_are_normal() -> None:
    shop = Shop()
    shop.answer_us["pod-e"] = 300_000
    shop.serves(300)
    assert shop.verdicts == []


def test_fewer_events_of_a_broker_are_no_late_answers() -> None:
    """What subscribes acknowledges each event, and then waits for the next one."""

    def events(gap_ms: int) -> list[dict[str, Any]]:
        count = 1000 // gap_ms
        subscribers = [f"subscriber-{number}@worker{number % 3}" for number in range(6)]
        waiting = {"answers": count, "answers_us": 1000 * gap_ms * count, "rtt_us": 400}
        return [flow_row(each, "broker@worker1", **waiting) for each in subscribers]

    shop = Shop()
    for gap_ms, seconds in ((100, 150), (500, 180)):
        shop.others = events(gap_ms)
        shop.serves(seconds)
    assert shop.verdicts == []


def test_a_window_that_closes_now_and_then_is_no_full_receiver() -> None:
    random = np.random.default_rng(3)
    shop = Shop()
    shop.also = lambda src, dst: {
        "data_segments_sent": 4, "zero_windows_received": int(random.random() < 0.01),
    }  # fmt: skip
    shop.serves(600)
    assert shop.verdicts == []


def test_a_job_that_resets_its_connections_once_an_hour_stays_normal() -> None:
    shop = Shop()
    idle = {"segments_sent": 5, "data_segments_sent": 1, "retransmitted_data_segments": 0}
    for _ in range(2):
        shop.also = lambda src, dst: idle
        shop.serves(1200)
        shop.also = lambda src, dst: resets(src, dst, by="pod-e", share=1.0)
        shop.serves(150)
    assert shop.verdicts == []


def test_late_answers_stay_known_over_a_restart() -> None:
    shop = Shop()
    shop.serves(150)
    shop.answer_us["pod-e"] = 300_000
    shop.serves(90)
    normal = shop.judge.learn(shop.tables())
    shop.restart()
    shop.judge.expect(Normal.decode(normal.encode(1 << 18)))
    shop.serves(90)
    assert shop.said() == [("opened", "pod default/pod-e")]


def test_one_of_three_pods_behind_a_service_that_refuses_everyone_is_named() -> None:
    """Two thirds of the attempts succeed, so no flow fails in a short window."""
    pods, callers = ("pod-b", "pod-e", "pod-h"), ("pod-a", "pod-d", "pod-g", "pod-i")
    refuses: set[str] = set()
    address = {"dst_kind": "service", "dst_ip": "10.96.0.1", "dst_service": "api"}
    address |= dict.fromkeys(("dst_pod", "dst_node", "dst_workload"), "")
    mesh = Mesh()

    def rows() -> Iterator[dict[str, Any]]:
        for caller, pod in product(callers, pods):
            row = mesh.row(caller, pod, 0.0002)
            if pod in refuses:
                none = dict.fromkeys(("data_segments_sent", "bytes_acked", "opens"), 0)
                yield row | none | address | {"failed_opens": 2, "refused_opens": 2}
            else:
                yield row | {"opens": 2, "dst_service": "api"}
                yield mesh.row(pod, caller, 0.0002) | {"role": "server", "src_service": "api"}

    mesh.passes_rows(180, lambda: list(rows()))
    refuses.add("pod-e")
    mesh.passes_rows(120, lambda: list(rows()))
    assert mesh.said() == [("opened", "pod default/pod-e")]
    opened = mesh.verdicts[0]
    assert (opened.basis, opened.conditions) == ("connects", ("CONNECT_FAILURE",))
    assert opened.causes[0].service_addresses == ("10.96.0.1",)
    refuses.clear()
    mesh.passes_rows(120, lambda: list(rows()))
    assert mesh.said()[1:] == [("resolved", "pod default/pod-e")]
