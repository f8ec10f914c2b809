"""What the C program is compiled with."""

import ctypes
import platform
import re
from pathlib import Path
from typing import cast

import pytest

from flowverdict_collector import definitions, hooks
from flowverdict_collector.btf import KernelTypes, NoKernelTypes
from flowverdict_collector.limits import limits_of
from flowverdict_contracts.raw import DROP_REASONS, FIELDS
from flowverdict_runtime.ebpf import BTF

HAS_BTF = pytest.mark.skipif(not Path(BTF).exists(), reason="this kernel gives no BTF")


@HAS_BTF
def test_offsets_are_those_of_the_running_kernel() -> None:
    with KernelTypes() as types:
        # struct sock_common begins so in every kernel (include/net/sock.h), for the hash lookups.
        assert types.offset("sock_common", "skc_daddr") == 0
        assert types.offset("sock_common", "skc_rcv_saddr") == 4
        assert types.offset("tcp_sock", "inet_conn") == 0
        assert types.offset("sock_common", "skc_net.net") == types.offset("sock_common", "skc_net")
        assert types.enumerators("no_such_enum") == {}
        counters = {each.offset for each in FIELDS if each.name.startswith("drops_")}
        reasons = {each.offset for each in FIELDS if each.name in DROP_REASONS}
        found = definitions.drop_offsets(types).values()
        assert {of_kind for of_kind, _ in found} <= counters
        assert {of_reason for _, of_reason in found} <= reasons


class _Kernel7(KernelTypes):
    """What Linux 7.2 has of drop reasons, and all members but those that are `missing`."""

    def __init__(self, *missing: str) -> None:
        self._missing = missing

    def offset(self, struct: str, member: str) -> int:  # any will do
        if member in self._missing:
            raise NoKernelTypes(member)
        return 8

    def enumerators(self, enum: str) -> dict[str, int]:
        return {
            "skb_drop_reason": {
                "SKB_DROP_REASON_NOT_SPECIFIED": 2,
                "SKB_DROP_REASON_NETFILTER_DROP": 10,
            },
            "qdisc_drop_reason": {
                "QDISC_DROP_UNSPEC": 0,
                "__QDISC_DROP_REASON": 196608,
                "QDISC_DROP_GENERIC": 196609,
                "QDISC_DROP_OVERLIMIT": 196610,
                "QDISC_DROP_MAX": 196618,
            },
        }.get(enum, {})


def test_the_drop_reasons_of_queueing_disciplines_are_told_from_those_of_the_core() -> None:
    offsets = {field.name: field.offset for field in FIELDS}
    found = definitions.drop_offsets(_Kernel7())
    assert found == {
        10: (offsets["drops_netfilter"], offsets["drop_reason_netfilter_drop"]),
        384 + 1: (offsets["drops_queue"], offsets["drop_reason_qdisc_drop"]),
        384 + 2: (offsets["drops_queue"], offsets["drop_reason_qdisc_overlimit"]),
        384 + 10: (offsets["drops_queue"], offsets["drop_reason_other"]),
    }


@pytest.mark.parametrize(
    ("release", "limited"),
    [
        ("5.10.0-32-cloud-amd64", {"skipped runs", "capabilities", "sockets", "resets sent"}),
        ("6.1.0-50-cloud-amd64", {"resets sent"}),
        ("7.2.13+deb14-cloud-amd64", set()),
    ],
)
def test_what_a_kernel_shows_in_part_is_said(release: str, limited: set[str]) -> None:
    types = cast("KernelTypes", _Kernel7())
    found = limits_of(release, types, drained=True)
    more = limits_of(release, types, drained=False).keys() - found.keys()
    assert more == {"what was received last"}
    (no_reason,) = (what for what in found if "drops_" in what)
    assert set(no_reason.split(", ")) == {"drops_socket", "drops_other", "drops_listen_queue"}
    assert set(found) - {no_reason} == limited


def test_whose_a_socket_is_takes_control_groups_in_it_by_either_name_of_what_is_above_them() -> (
    None
):
    assert "-DREAD_OWNERS" in definitions.owner_flags(_Kernel7())
    assert "-DREAD_OWNERS" in definitions.owner_flags(_Kernel7("__parent"))
    without = _Kernel7("sk_cgrp_data")
    assert definitions.owner_flags(without) == []
    assert "pods with hostNetwork" in limits_of("7.2.13", without, drained=True)


@HAS_BTF
def test_the_drop_reasons_of_this_kernel_that_are_not_counted_are_known() -> None:
    with KernelTypes() as types:
        counted = definitions.drop_offsets(types)
        reasons = types.enumerators("skb_drop_reason")
    rest = sorted(name for name, number in reasons.items() if number not in counted)
    print(f"not counted on {platform.release()}:", *rest)  # script/kernels shows it
    assert bool(counted) == bool(reasons)


@HAS_BTF
@pytest.mark.parametrize(("struct", "member"), [("sock", "no_such"), ("no_such", "x")])
def test_a_member_that_is_not_there_is_named(struct: str, member: str) -> None:
    with KernelTypes() as types, pytest.raises(NoKernelTypes, match=f"{struct}.{member}"):
        types.offset(struct, member)


def test_a_kernel_without_btf_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoKernelTypes, match="CONFIG_DEBUG_INFO_BTF"):
        KernelTypes(str(tmp_path / "vmlinux"))


@pytest.mark.parametrize("content", [b"", b"not BTF at all", b"\x9f\xeb\x01\x00" + b"\xff" * 60])
def test_a_file_that_is_no_btf_is_refused(tmp_path: Path, content: bytes) -> None:
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.skip("there is no libbpf on this machine")
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    with pytest.raises(NoKernelTypes, match="cannot be read"):
        KernelTypes(str(path))


def test_every_function_of_the_program_is_a_hook_and_every_hook_a_function() -> None:
    program = Path(definitions.__file__).parent / "bpf" / "flows.bpf.c"
    functions = {
        line.split("(")[0].removeprefix("int ")
        for line in program.read_text().splitlines()
        if line.startswith("int on_")
    }
    assert functions == {hook.function for hook in (*hooks.HOOKS, hooks.READ_HOOK)}


@HAS_BTF
def test_every_total_of_a_socket_is_read_from_its_place_in_this_kernel() -> None:
    with KernelTypes() as types:
        (flag,) = [each for each in definitions.compiler_flags(types) if "READ_TOTALS" in each]
        found = {
            name: int(start) + int(at)
            for start, block in re.findall(r"READ\(block, sk, (\d+)\);([^}]*)", flag)
            for name, at in re.findall(r"now->(\w+), \(u8 \*\)block \+ (\d+)", block)
        }
        members = {"out_of_order": "rcv_ooopack"}
        assert found == {name: types.offset("tcp_sock", members.get(name, name)) for name in found}
        assert len(found) == 8
