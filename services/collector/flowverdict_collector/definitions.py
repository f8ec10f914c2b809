"""What flows.bpf.c is compiled with: kernel offsets, map sizes, the record's members."""

from collections.abc import Mapping

from flowverdict_collector.btf import KernelTypes, NoKernelTypes
from flowverdict_collector.progress import PROGRESS_WORDS
from flowverdict_contracts.raw import (
    DROP_REASONS,
    FIELDS,
    KEY_BYTES,
    KEY_FIELDS,
    RECORD_BYTES,
    ROLES,
    c_members,
)

__all__ = [
    "NAME_BYTES",
    "compiler_flags",
    "drop_offsets",
    "layout_flags",
    "lookup_flags",
    "namespace_flags",
    "owner_flags",
]

_OFFSETS = {
    "SOCK_COMMON_FAMILY": ("sock_common", "skc_family"),
    "SOCK_COMMON_STATE": ("sock_common", "skc_state"),
    "SOCK_COMMON_RCV_SADDR": ("sock_common", "skc_rcv_saddr"),
    "SOCK_COMMON_DADDR": ("sock_common", "skc_daddr"),
    "SOCK_COMMON_V6_RCV_SADDR": ("sock_common", "skc_v6_rcv_saddr"),
    "SOCK_COMMON_V6_DADDR": ("sock_common", "skc_v6_daddr"),
    "SOCK_COMMON_NUM": ("sock_common", "skc_num"),
    "SOCK_COMMON_DPORT": ("sock_common", "skc_dport"),
    "SOCK_COMMON_NET": ("sock_common", "skc_net.net"),
    "SOCK_PROTOCOL": ("sock", "sk_protocol"),
    "SOCK_ERR": ("sock", "sk_err"),
    "NET_INUM": ("net", "ns.inum"),
    "INET_SOCK_SPORT": ("inet_sock", "inet_sport"),
    "TCP_SOCK_BYTES_SENT": ("tcp_sock", "bytes_sent"),
    "TCP_SOCK_BYTES_ACKED": ("tcp_sock", "bytes_acked"),
    "TCP_SOCK_BYTES_RETRANS": ("tcp_sock", "bytes_retrans"),
    "TCP_SOCK_LSNDTIME": ("tcp_sock", "lsndtime"),
    "TCP_SOCK_PACKETS_OUT": ("tcp_sock", "packets_out"),
    "TCP_SOCK_SND_NXT": ("tcp_sock", "snd_nxt"),
    "TCP_SOCK_SND_UNA": ("tcp_sock", "snd_una"),
    "TCP_SOCK_WRITE_SEQ": ("tcp_sock", "write_seq"),
    "TCP_SOCK_SEGS_OUT": ("tcp_sock", "segs_out"),
    "TCP_SOCK_SEGS_IN": ("tcp_sock", "segs_in"),
    "TCP_SOCK_TOTAL_RETRANS": ("tcp_sock", "total_retrans"),
    "TCP_SOCK_DSACK_DUPS": ("tcp_sock", "dsack_dups"),
    "TCP_SOCK_SND_WND": ("tcp_sock", "snd_wnd"),
    "TCP_SOCK_RTT_MIN": ("tcp_sock", "rtt_min"),
    "TCP_SOCK_RCV_TSTAMP": ("tcp_sock", "rcv_tstamp"),
    "TCP_SOCK_SRTT_US": ("tcp_sock", "srtt_us"),
    "TCP_SOCK_MDEV_US": ("tcp_sock", "mdev_us"),
    "TCP_SOCK_MSS_CACHE": ("tcp_sock", "mss_cache"),
    "ICSK_PMTU_COOKIE": ("inet_connection_sock", "icsk_pmtu_cookie"),
    "ICSK_LRCVTIME": ("inet_connection_sock", "icsk_ack.lrcvtime"),
    "ICSK_PENDING": ("inet_connection_sock", "icsk_pending"),
    "ICSK_CA_STATE": ("inet_connection_sock", "icsk_ca_state"),
    "SK_BUFF_SK": ("sk_buff", "sk"),
    "SK_BUFF_DEV": ("sk_buff", "dev"),
    "NET_DEVICE_NET": ("net_device", "nd_net.net"),
    "SK_BUFF_HEAD": ("sk_buff", "head"),
    "SK_BUFF_NETWORK_HEADER": ("sk_buff", "network_header"),
    "SK_BUFF_PROTOCOL": ("sk_buff", "protocol"),
    "SK_BUFF_CB": ("sk_buff", "cb"),
    "SK_BUFF_END": ("sk_buff", "end"),
    "SKB_SHARED_INFO_GSO_SEGS": ("skb_shared_info", "gso_segs"),
    "TCP_SKB_CB_SEQ": ("tcp_skb_cb", "seq"),
    "TCP_SKB_CB_FLAGS": ("tcp_skb_cb", "tcp_flags"),
    "TCP_SKB_CB_GSO_SEGS": ("tcp_skb_cb", "tcp_gso_segs"),
}

_TOTALS = {
    "bytes_sent": ("bytes_sent", 8),
    "bytes_acked": ("bytes_acked", 8),
    "bytes_received": ("bytes_received", 8),
    "segs_out": ("segs_out", 4),
    "segs_in": ("segs_in", 4),
    "data_segs_out": ("data_segs_out", 4),
    "total_retrans": ("total_retrans", 4),
    "out_of_order": ("rcv_ooopack", 4),
}
"""Member of `struct totals` to the one of `struct tcp_sock`, and its size."""
_MOST_AT_ONCE = 48
"""Bytes; reading that many from the kernel takes as long as reading four."""

_NETWORK_OFFSETS = {
    "TASK_STRUCT_NSPROXY": ("task_struct", "nsproxy"),
    "NSPROXY_NET_NS": ("nsproxy", "net_ns"),
}
_OWNER_OFFSETS = {
    "TASK_STRUCT_REAL_PARENT": ("task_struct", "real_parent"),
    "SOCK_CGROUP": ("sock", "sk_cgrp_data"),
    "CGROUP_KN": ("cgroup", "kn"),
    "KERNFS_NODE_ID": ("kernfs_node", "id"),
    "KERNFS_NODE_NAME": ("kernfs_node", "name"),
}
_PARENTS = ("__parent", "parent")
"""What the one above is called in `struct kernfs_node`, since Linux 6.15 and until then."""
_NAMESPACE_OFFSETS = {
    "TASK_STRUCT_THREAD_PID": ("task_struct", "thread_pid"),
    "NET_COOKIE": ("net", "net_cookie"),
    "PID_LEVEL": ("pid", "level"),
    "PID_NUMBERS": ("pid", "numbers"),
    "UPID_NS": ("upid", "ns"),
    "PID_NAMESPACE_PARENT": ("pid_namespace", "parent"),
    "PID_NAMESPACE_INUM": ("pid_namespace", "ns.inum"),
}

_REASONS = {
    "drops_netfilter": (
        "NETFILTER_DROP",
        "TC_INGRESS",
        "TC_EGRESS",
        "XDP",
        "BPF_CGROUP_EGRESS",
        "SOCKET_FILTER",
        "XFRM_POLICY",
    ),
    "drops_queue": (
        "QDISC_DROP",
        "QDISC_OVERLIMIT",
        "QDISC_CONGESTED",
        "CPU_BACKLOG",
        "FULL_RING",
        "NEIGH_QUEUEFULL",
        "FQ_BAND_LIMIT",
        "FQ_HORIZON_LIMIT",
        "FQ_FLOW_LIMIT",
        "CAKE_FLOOD",
        "DUALPI2_STEP_DROP",
    ),
    "drops_socket": (
        "SOCKET_RCVBUFF",
        "SOCKET_BACKLOG",
        "PROTO_MEM",
        "TCP_OFO_QUEUE_PRUNE",
        "TCP_OFO_DROP",
    ),
    "drops_listen_queue": ("TCP_LISTEN_OVERFLOW",),
    "drops_other": (
        "NOMEM",
        "TCP_CSUM",
        "IP_CSUM",
        "IP_INADDRERRORS",
        "IP_INNOROUTES",
        "IP_OUTNOROUTES",
        "IP_RPFILTER",
        "NEIGH_FAILED",
        "NEIGH_CREATEFAIL",
        "NEIGH_DEAD",
        "PKT_TOO_BIG",
        "PKT_TOO_SMALL",
        "DEV_READY",
        "DEV_HDR",
        "HDR_TRUNC",
    ),
}
"""Maps each counter to the drop reasons that mean a lost packet. TCP's own housekeeping
(TCP_OLD_DATA and similar) is left out."""

_FIRST_QDISC_SLOT, _QDISC_SLOTS = 384, 128
_NO_PREALLOC = 1
"""BPF_F_NO_PREALLOC (include/uapi/linux/bpf.h)."""
_SUBSYSTEM_SHIFT = 16
"""A subsystem's reasons have its number in their upper half (include/net/dropreason.h)."""


_NAME_OF_QDISC_REASON = {"GENERIC": "QDISC_DROP", "OVERLIMIT": "QDISC_OVERLIMIT"}
"""What reasons were called until Linux 7.0."""


def drop_offsets(types: KernelTypes) -> dict[int, tuple[int, int]]:
    """Maps slots of the map `drop_offsets` to the byte offsets of two counters in a record: that of
    the kind of reason, and that of the reason itself.

    A reason's slot is its number, unless it is one of the queueing disciplines' own, since Linux
    7.0 (include/net/dropreason-qdisc.h). Empty before Linux 5.17, which has no reasons
    (include/net/dropreason-core.h).
    """
    numbers = types.enumerators("skb_drop_reason")
    offsets = {field.name: field.offset for field in FIELDS}
    by_name = {name: offsets[field] for field, name in DROP_REASONS.items()}

    def both(counter: str, reason: str) -> tuple[int, int]:
        return offsets[counter], by_name.get(reason, by_name["OTHER"])

    slots = {
        numbers[f"SKB_DROP_REASON_{reason}"]: both(counter, reason)
        for counter, reasons in _REASONS.items()
        for reason in reasons
        if f"SKB_DROP_REASON_{reason}" in numbers
    }
    for name, number in types.enumerators("qdisc_drop_reason").items():
        slot = number % (1 << _SUBSYSTEM_SHIFT)
        if name.startswith("QDISC_DROP_") and 0 < slot < _QDISC_SLOTS:
            reason = _NAME_OF_QDISC_REASON.get(name.removeprefix("QDISC_DROP_"), "")
            slots[_FIRST_QDISC_SLOT + slot] = both("drops_queue", reason)
    return slots


_MANY_SOCKETS = 1 << 20
_MAX_LOOKUPS = 1 << 15
"""In five seconds, which is how long each is remembered."""
_MAX_NAMES, NAME_BYTES = 1 << 12, 128
"""Names of lookups that are told apart, and how much of each is kept."""


def layout_flags(types: KernelTypes, max_flows: int, *, drained: bool) -> list[str]:
    """`-D` definitions for maps.bpf.h: the size of the maps and the members of a record.

    Since Linux 6.1 a program can allocate the entries of a map as it needs them
    (kernel/bpf/memalloc.c), so that the number of sockets is limited only by memory.

    Args:
        types: the kernel's.
        max_flows: capacity of the maps.
        drained: whether a program counts at the end of an interval what the hooks left.
    """
    numbers = {"MAX_FLOWS": max_flows, "MAX_SOCKETS": max_flows, "SOCKETS_FLAGS": 0}
    if types.has_struct("bpf_mem_alloc"):
        numbers |= {"MAX_SOCKETS": max(max_flows, _MANY_SOCKETS), "SOCKETS_FLAGS": _NO_PREALLOC}
    numbers |= {"FLOW_KEY_BYTES": KEY_BYTES, "FLOW_RECORD_BYTES": RECORD_BYTES}
    numbers |= {"PROGRESS_WORDS": PROGRESS_WORDS}
    flags = [f"-D{name}={value}" for name, value in numbers.items()]
    if drained:
        flags.append("-DSAMPLE_ONCE_A_TICK")
    flags.append(f"-DFLOW_KEY_MEMBERS={c_members(KEY_FIELDS)}")
    return [*flags, f"-DFLOW_COUNT_MEMBERS={c_members(FIELDS[len(KEY_FIELDS) :])}"]


def _read_totals(types: KernelTypes) -> str:
    """C statements that read every total of the socket `sk` into `now`, in few reads."""
    fields = sorted(
        (types.offset("tcp_sock", member), size, name) for name, (member, size) in _TOTALS.items()
    )
    blocks: list[list[tuple[int, int, str]]] = []
    for at, size, name in fields:
        if not blocks or at + size - blocks[-1][0][0] > _MOST_AT_ONCE:
            blocks.append([])
        blocks[-1].append((at, size, name))
    statements = []
    for block in blocks:
        start, end = block[0][0], block[-1][0] + block[-1][1]
        copies = (
            f"__builtin_memcpy(&now->{name}, (u8 *)block + {at - start}, {size});"
            for at, size, name in block
        )
        words = -(-(end - start) // 8)
        statements.append(
            f"{{ u64 block[{words}] = {{}}; READ(block, sk, {start}); {' '.join(copies)} }}"
        )
    return " ".join(statements)


def _offsets(types: KernelTypes, members: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    return {name: types.offset(*path) for name, path in members.items()}


def compiler_flags(types: KernelTypes) -> list[str]:
    """`-D` definitions for flows.bpf.c.

    Raises:
        NoKernelTypes: if the kernel lacks a member that the program reads.
    """
    numbers = _offsets(types, _OFFSETS | _NETWORK_OFFSETS)
    subsystems = types.enumerators("skb_drop_reason_subsys")
    numbers |= {
        "QDISC_SUBSYSTEM": subsystems.get("SKB_DROP_REASON_SUBSYS_QDISC", 0),
        "SUBSYSTEM_SHIFT": _SUBSYSTEM_SHIFT,
        "FIRST_QDISC_SLOT": _FIRST_QDISC_SLOT,
        "QDISC_SLOTS": _QDISC_SLOTS,
    }
    numbers |= {f"ROLE_{name.upper()}": number for number, name in enumerate(ROLES)}
    flags = [f"-D{name}={value}" for name, value in numbers.items()]
    return [*flags, f"-DREAD_TOTALS={_read_totals(types)}"]


def namespace_flags(types: KernelTypes) -> list[str]:
    """`-D` definitions for namespaces.bpf.c.

    Raises:
        NoKernelTypes: if the kernel lacks a member that the program reads.
    """
    numbers = _offsets(types, _NAMESPACE_OFFSETS)
    numbers["UPID_BYTES"] = 2 * numbers["UPID_NS"]
    return [f"-D{name}={value}" for name, value in numbers.items()]


def lookup_flags(types: KernelTypes) -> list[str]:
    """`-D` definitions for lookups.bpf.c; they also tell the others that lookups are counted.

    Raises:
        NoKernelTypes: if the kernel lacks a member that the program reads.
    """
    data = types.offset("sk_buff", "data")
    numbers = {
        "MAX_LOOKUPS": _MAX_LOOKUPS,
        "MAX_NAMES": _MAX_NAMES,
        "NAME_BYTES": NAME_BYTES,
        "SK_BUFF_DATA": data,
        "SK_BUFF_TAIL": types.offset("sk_buff", "tail"),
    }
    return ["-DCOUNT_LOOKUPS", *(f"-D{name}={value}" for name, value in numbers.items())]


def owner_flags(types: KernelTypes) -> list[str]:
    """`-D` definitions for owners.bpf.c, if this kernel tells the control group of a socket; they
    also tell the others so.
    """
    for parent in _PARENTS:
        try:
            numbers = _offsets(
                types, _OWNER_OFFSETS | {"KERNFS_NODE_PARENT": ("kernfs_node", parent)}
            )
        except NoKernelTypes:
            continue
        return ["-DREAD_OWNERS", *(f"-D{name}={value}" for name, value in numbers.items())]
    return []
