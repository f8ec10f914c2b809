"""What flows.bpf.c is compiled with: kernel offsets, map sizes, the record's layout."""

from flowverdict_collector.btf import KernelTypes
from flowverdict_contracts.raw import FIELDS, RECORD_BYTES

__all__ = ["compiler_flags", "drop_fields"]

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
    "NET_INUM": ("net", "ns.inum"),
    "INET_SOCK_SPORT": ("inet_sock", "inet_sport"),
    "TCP_SOCK_BYTES_SENT": ("tcp_sock", "bytes_sent"),
    "TCP_SOCK_BYTES_ACKED": ("tcp_sock", "bytes_acked"),
    "TCP_SOCK_BYTES_RECEIVED": ("tcp_sock", "bytes_received"),
    "TCP_SOCK_SEGS_OUT": ("tcp_sock", "segs_out"),
    "TCP_SOCK_SEGS_IN": ("tcp_sock", "segs_in"),
    "TCP_SOCK_DATA_SEGS_OUT": ("tcp_sock", "data_segs_out"),
    "TCP_SOCK_TOTAL_RETRANS": ("tcp_sock", "total_retrans"),
    "TCP_SOCK_SRTT_US": ("tcp_sock", "srtt_us"),
    "TCP_SOCK_MDEV_US": ("tcp_sock", "mdev_us"),
    "TCP_SOCK_MSS_CACHE": ("tcp_sock", "mss_cache"),
    "SK_BUFF_HEAD": ("sk_buff", "head"),
    "SK_BUFF_NETWORK_HEADER": ("sk_buff", "network_header"),
    "SK_BUFF_PROTOCOL": ("sk_buff", "protocol"),
    "SK_BUFF_CB": ("sk_buff", "cb"),
    "TCP_SKB_CB_GSO_SEGS": ("tcp_skb_cb", "tcp_gso_segs"),
}

_NETFILTER, _QUEUE, _SOCKET, _OTHER = 1, 2, 3, 4

_DROP_FIELDS = {
    "NETFILTER_DROP": _NETFILTER,
    "NETFILTER_INGRESS": _NETFILTER,
    "TC_INGRESS": _NETFILTER,
    "TC_EGRESS": _NETFILTER,
    "XDP": _NETFILTER,
    "BPF_CGROUP_EGRESS": _NETFILTER,
    "SOCKET_FILTER": _NETFILTER,
    "XFRM_POLICY": _NETFILTER,
    "QDISC_DROP": _QUEUE,
    "QDISC_OVERLIMIT": _QUEUE,
    "QDISC_CONGESTED": _QUEUE,
    "CPU_BACKLOG": _QUEUE,
    "FULL_RING": _QUEUE,
    "NEIGH_QUEUEFULL": _QUEUE,
    "SOCKET_RCVBUFF": _SOCKET,
    "SOCKET_BACKLOG": _SOCKET,
    "PROTO_MEM": _SOCKET,
    "TCP_BACKLOG": _SOCKET,
    "NOMEM": _OTHER,
    "TCP_CSUM": _OTHER,
    "IP_CSUM": _OTHER,
    "IP_INADDRERRORS": _OTHER,
    "IP_INNOROUTES": _OTHER,
    "IP_OUTNOROUTES": _OTHER,
    "IP_RPFILTER": _OTHER,
    "NEIGH_FAILED": _OTHER,
    "NEIGH_CREATEFAIL": _OTHER,
    "NEIGH_DEAD": _OTHER,
    "PKT_TOO_BIG": _OTHER,
    "PKT_TOO_SMALL": _OTHER,
    "DEV_READY": _OTHER,
    "DEV_HDR": _OTHER,
    "HDR_TRUNC": _OTHER,
}
"""Reasons that mean a lost packet. TCP's own housekeeping (TCP_OLD_DATA …) is left out."""


def drop_fields(types: KernelTypes) -> dict[int, int]:
    """This kernel's drop reason numbers to the `drops_*` field that counts them, from 1.

    Empty before Linux 5.17, which gives no reasons (include/net/dropreason-core.h).
    """
    prefix = "SKB_DROP_REASON_"
    return {
        value: _DROP_FIELDS[name.removeprefix(prefix)]
        for name, value in types.enumerators("skb_drop_reason").items()
        if name.removeprefix(prefix) in _DROP_FIELDS
    }


def _layout_asserts() -> str:
    checks = [f'_Static_assert(sizeof(struct flow_record)=={RECORD_BYTES},"size");']
    for name, _, offset in FIELDS:
        member = f"key.{name}" if offset < 40 else name
        checks.append(
            f'_Static_assert(__builtin_offsetof(struct flow_record,{member})=={offset},"{name}");'
        )
    return "".join(checks)


def compiler_flags(types: KernelTypes, max_flows: int, max_sockets: int) -> list[str]:
    """`-D` definitions for flows.bpf.c.

    Raises:
        NoKernelTypes: where the kernel lacks a member that the program reads.
    """
    numbers = {name: types.offset(*path) for name, path in _OFFSETS.items()}
    numbers |= {"MAX_FLOWS": max_flows, "MAX_SOCKETS": max_sockets}
    flags = [f"-D{name}={value}" for name, value in numbers.items()]
    return [*flags, f"-DRECORD_LAYOUT_ASSERTS={_layout_asserts()}"]
