"""Who had an address, and when."""

from ipaddress import ip_network
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from flowverdict_contracts.addresses import ENDS, to_bytes, to_text
from flowverdict_contracts.enriched import NAMES, Names
from flowverdict_enricher import directory as directory_module
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.tenures import GRACE_NS, KEEP_NS

SECOND = 1_000_000_000
A, B = to_bytes("10.0.0.1"), to_bytes("10.0.0.2")


def packed(addresses: list[bytes]) -> npt.NDArray[np.void]:
    return np.array(addresses, "V16")


def pod(name: str) -> Names:
    return Names("pod", namespace="default", pod=name)


def test_an_address_that_moved_is_named_as_of_the_flow_not_as_of_now() -> None:
    directory = Directory()
    directory.put("1", pod("old"), [A], 100 * SECOND, 100 * SECOND)
    directory.end("1", 200 * SECOND)
    directory.put("2", pod("new"), [A], 210 * SECOND, 210 * SECOND)
    assert directory.at(A, 150 * SECOND, 151 * SECOND) == pod("old")
    assert directory.at(A, 220 * SECOND, 221 * SECOND) == pod("new")


def test_where_it_changed_hands_in_the_interval_the_longer_owner_is_likely() -> None:
    directory = Directory()
    directory.put("1", pod("old"), [A], 0, 0)
    directory.end("1", 11 * SECOND)
    directory.put("2", pod("new"), [A], 12 * SECOND, 12 * SECOND)
    named = directory.at(A, 10 * SECOND, 20 * SECOND)
    assert (named.pod, named.name_confidence) == ("new", "likely")


def test_segments_after_a_pods_end_are_likely_its_and_say_that_it_is_gone() -> None:
    directory = Directory()
    directory.put("1", pod("gone"), [A], 0, 0)
    directory.end("1", 100 * SECOND)
    soon = directory.at(A, 110 * SECOND, 111 * SECOND)
    assert (soon.pod, soon.name_confidence, soon.condition) == ("gone", "likely", "gone")
    late = 100 * SECOND + KEEP_NS
    assert directory.at(A, late - SECOND, late).condition == "gone"
    assert directory.at(A, late + SECOND, late + 2 * SECOND).kind == "unknown"


def test_an_address_is_not_named_after_a_pod_that_gets_it_much_later() -> None:
    directory = Directory()
    directory.put("1", pod("later"), [A], 1000 * SECOND, 0)
    soon = 1000 * SECOND - GRACE_NS
    assert directory.at(A, soon - SECOND, soon).pod == "later"
    assert directory.at(A, soon - 2 * SECOND, soon - SECOND).kind == "unknown"


def test_a_new_owner_ends_the_old_ones_tenure_though_its_end_was_never_reported() -> None:
    directory = Directory()
    directory.put("1", pod("old"), [A], 0, 0)
    directory.put("2", pod("new"), [A], 100 * SECOND, 100 * SECOND)
    assert directory.at(A, 50 * SECOND, 51 * SECOND) == pod("old")
    assert directory.at(A, 150 * SECOND, 151 * SECOND) == pod("new")


def test_late_news_of_the_old_owner_does_not_take_the_address_from_the_new_one() -> None:
    directory = Directory()
    directory.put("1", pod("old"), [A], 100 * SECOND, 100 * SECOND)
    directory.put("2", pod("new"), [A], 200 * SECOND, 200 * SECOND)
    directory.put("1", pod("old"), [A], 100 * SECOND, 300 * SECOND)
    directory.end("1", 400 * SECOND)
    assert directory.at(A, 150 * SECOND, 151 * SECOND) == pod("old")
    assert directory.at(A, 500 * SECOND, 501 * SECOND) == pod("new")


def test_a_pod_that_gets_another_address_gives_the_first_one_up() -> None:
    directory = Directory()
    directory.put("1", pod("p"), [A], 0, 0)
    directory.put("1", pod("p"), [B], 0, 100 * SECOND)
    late = 100 * SECOND + GRACE_NS + SECOND
    assert directory.at(A, late, late + SECOND).condition == "gone"
    assert directory.at(B, late, late + SECOND) == pod("p")


def test_pods_that_exchange_their_addresses_are_each_named_whoever_is_older() -> None:
    directory = Directory()
    directory.put("1", pod("old"), [A], 100 * SECOND, 100 * SECOND)
    directory.put("2", pod("young"), [B], 200 * SECOND, 200 * SECOND)
    directory.put("1", pod("old"), [B], 100 * SECOND, 300 * SECOND)
    directory.put("2", pod("young"), [A], 200 * SECOND, 300 * SECOND)
    directory.put("1", pod("old"), [B], 100 * SECOND, 400 * SECOND)
    assert directory.at(B, 500 * SECOND, 501 * SECOND) == pod("old")
    assert directory.at(A, 500 * SECOND, 501 * SECOND) == pod("young")
    assert directory.at(A, 150 * SECOND, 151 * SECOND) == pod("old")
    assert directory.at(B, 250 * SECOND, 251 * SECOND) == pod("young")


def test_an_older_pod_has_an_address_after_a_younger_one_that_is_gone() -> None:
    directory = Directory()
    directory.put("1", pod("old"), [], 100 * SECOND, 100 * SECOND)
    directory.put("2", pod("job"), [A], 200 * SECOND, 200 * SECOND)
    directory.end("2", 300 * SECOND)
    directory.put("1", pod("old"), [A], 100 * SECOND, 400 * SECOND)
    assert directory.at(A, 250 * SECOND, 251 * SECOND) == pod("job")
    assert directory.at(A, 500 * SECOND, 501 * SECOND) == pod("old")


def test_what_a_fresh_list_does_not_have_has_ended() -> None:
    directory = Directory()
    directory.put("1", pod("p"), [A], 0, 0)
    directory.put("2", pod("q"), [B], 0, 0)
    directory.keep_only(["2"], 100 * SECOND)
    late = 100 * SECOND + GRACE_NS + SECOND
    assert directory.at(A, late, late + SECOND).condition == "gone"
    assert directory.at(B, late, late + SECOND) == pod("q")


def test_what_ended_long_ago_is_forgotten_and_takes_no_memory() -> None:
    directory = Directory()
    directory.put("1", pod("p"), [A], 0, 0)
    directory.end("1", SECOND)
    directory.forget(KEEP_NS + 2 * SECOND)
    assert not directory._tenures


def test_an_address_of_nobody_is_external_or_unknown() -> None:
    directory = Directory()
    for text, kind in (("8.8.8.8", "external"), ("10.9.9.9", "unknown"), ("fd00::1", "unknown")):
        named = directory.at(to_bytes(text), 0, 1)
        assert (named.kind, named.name_confidence) == (kind, "none")


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=20))
def test_owners_one_after_the_other_are_each_named_in_their_own_time(
    lives: list[tuple[int, int]],
) -> None:
    """Each life is (seconds of pause before, seconds of life)."""
    directory, now, spans = Directory(), 1000, []
    for number, (pause, life) in enumerate(lives):
        start, end = now + pause, now + pause + life
        directory.put(str(number), pod(f"p{number}"), [A], start * SECOND, start * SECOND)
        directory.end(str(number), end * SECOND)
        spans.append((start, end))
        now = end
    for number, (start, end) in enumerate(spans):
        for second in (start, end - 1):
            assert directory.at(A, second * SECOND, (second + 1) * SECOND) == pod(f"p{number}")


@given(st.data())
def test_after_any_events_an_address_has_at_most_one_owner_at_a_time(data: st.DataObject) -> None:
    directory, now = Directory(), 0
    for _ in range(data.draw(st.integers(0, 30))):
        now += data.draw(st.integers(0, 10))
        owner = data.draw(st.sampled_from("123"))
        if data.draw(st.booleans()):
            owned = data.draw(st.sets(st.sampled_from([A, B])))
            directory.put(owner, pod(owner), owned, now * SECOND, now * SECOND)
        else:
            directory.end(owner, now * SECOND)
    for tenures in directory._tenures.values():
        spans = sorted(
            (each.from_ns, each.until_ns) for each in tenures if each.until_ns > each.from_ns
        )
        for (_, until), (following, _) in pairwise(spans):
            assert until <= following


@given(st.data(), st.sampled_from([0, 3, 1000]))
def test_columns_say_about_each_end_what_its_address_was_called_in_that_interval(
    data: st.DataObject, most_rows: int
) -> None:
    directory, now = Directory(), 100
    some = st.lists(st.sampled_from([A, B, to_bytes("8.8.8.8")]), min_size=3, max_size=3)
    with patch.object(directory_module, "_MOST_ROWS", most_rows):
        for _ in range(data.draw(st.integers(1, 30))):
            now += data.draw(st.integers(0, 10))
            match data.draw(st.sampled_from(["put", "end", "networks", "forget", "ask"])):
                case "put":
                    owner, node = data.draw(st.sampled_from([("1", "x"), ("2", "x"), ("3", "y")]))
                    names = Names("pod", "default", owner, node=node)
                    owned = data.draw(st.sets(st.sampled_from([A, B])))
                    since = data.draw(st.integers(0, now))
                    directory.put(owner, names, owned, since * SECOND, now * SECOND)
                case "end":
                    directory.end(data.draw(st.sampled_from("123")), now * SECOND)
                case "networks":
                    networks = data.draw(st.sampled_from([[], [ip_network("10.0.0.0/24")]]))
                    directory.set_pod_networks("x", networks)
                case "forget":
                    directory.forget(now * SECOND + data.draw(st.sampled_from([0, KEEP_NS])))
                case "ask":
                    start = data.draw(st.integers(0, now))
                    interval = start * SECOND, data.draw(st.integers(start, now)) * SECOND
                    src, dst = data.draw(some), data.draw(some)
                    columns = directory.columns(packed(src), packed(dst), interval, "x", {})
                    for end, asked in zip(ENDS, (src, dst), strict=True):
                        for row, address in enumerate(asked):
                            said = {
                                name: columns[f"{end}_{name}"][row].as_py()
                                for name in NAMES
                                if f"{end}_{name}" in columns  # else empty
                            }
                            used_on = "x" if address in src else ""
                            known = directory.at(address, *interval, used_on)
                            assert Names(**{"kind": "", **said}) == known
                            assert columns[f"{end}_ip"][row].as_py() == to_text(address)


def test_an_address_that_two_pods_have_is_not_settled_though_its_times_are_as_before() -> None:
    directory = Directory()
    one, other = (Names("pod", "default", name, node=name) for name in "xy")
    directory.put("x", one, [A], 10 * SECOND, 10 * SECOND)
    directory.put("y", other, [A], 20 * SECOND, 20 * SECOND)
    directory.put("x", one, [A], 10 * SECOND, 30 * SECOND)
    directory.put("x", one, [], 10 * SECOND, 30 * SECOND)
    later = 40 * SECOND, 41 * SECOND
    columns = directory.columns(packed([A]), packed([]), later, "x", {})
    assert columns["src_pod"].to_pylist() == ["y"]
    directory.put("x", one, [A], 10 * SECOND, 30 * SECOND)
    columns = directory.columns(packed([A]), packed([]), later, "x", {})
    assert columns["src_pod"].to_pylist() == ["x"]


def test_an_owner_may_give_up_what_has_long_been_forgotten() -> None:
    directory = Directory()
    directory.put("3", pod("p3"), [A], 115 * SECOND, 110 * SECOND)
    directory.put("2", pod("p2"), [A, B], 124 * SECOND, 119 * SECOND)
    directory.put("2", pod("p2"), [], 124 * SECOND, 124 * SECOND)
    directory.forget(7427 * SECOND)
    directory.forget(14729 * SECOND)
    directory.end("3", 14730 * SECOND)
    assert len(directory) == 1


def test_addresses_that_nobody_has_take_no_memory_for_good() -> None:
    directory = Directory()
    directory.set_pod_networks("x", [ip_network("fd00::/64")])
    with patch.object(directory_module, "_MOST_ROWS", 100):
        for number in range(1000):
            address = to_bytes(f"fd00::{number:x}")
            gone = directory.columns(packed([]), packed([address]), (0, SECOND), "x", {})
            assert gone["dst_condition"].to_pylist() == ["gone"]
            assert directory._table.size <= 101


def test_an_address_that_moves_through_a_thousand_pods_is_each_pods_in_its_time() -> None:
    directory = Directory()
    for number in range(1000):
        start = 1000 + 4 * number
        directory.put(str(number), pod(f"p{number}"), [A], start * SECOND, start * SECOND)
        within = (start + 1) * SECOND, (start + 2) * SECOND
        live = directory.columns(packed([A]), packed([A]), within, "x", {})
        assert live["src_pod"].to_pylist() == [f"p{number}"]
        directory.end(str(number), (start + 3) * SECOND)
    for number in range(1000):  # batches that come late
        start = 1000 + 4 * number
        across = start * SECOND, (start + 3) * SECOND
        late = directory.columns(packed([A]), packed([B]), across, "x", {})
        assert late["src_pod"].to_pylist() == [f"p{number}"]
        assert late["src_name_confidence"].to_pylist() == ["certain"]
