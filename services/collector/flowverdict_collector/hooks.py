"""Where the programs of flows.bpf.c attach."""

from dataclasses import dataclass

from flowverdict_runtime.ebpf import REQUIRED_TRACEPOINTS

__all__ = ["HOOKS", "LOOKUP_HOOKS", "NAMESPACE_HOOK", "READ_HOOK", "SWITCH", "Hook"]


@dataclass(frozen=True, slots=True)
class Hook:
    """A raw tracepoint, the function attached to it, and what it counts."""

    tracepoint: str
    function: str
    counts: str

    @property
    def required(self) -> bool:
        """Whether counts would be wrong without it, so that the collector does not start."""
        return self.tracepoint in REQUIRED_TRACEPOINTS or self in LOOKUP_HOOKS


HOOKS = (
    Hook("inet_sock_set_state", "on_set_state", "opens and failed opens"),
    Hook("tcp_probe", "on_segment", "segments, bytes and RTT"),
    Hook("tcp_retransmit_skb", "on_retransmit", "retransmissions"),
    Hook("tcp_destroy_sock", "on_destroy", "the last counts of a connection"),
    Hook("tcp_retransmit_synack", "on_retransmit_synack", "SYN-ACK retransmissions"),
    Hook("tcp_send_reset", "on_send_reset", "resets sent"),
    Hook("tcp_receive_reset", "on_receive_reset", "resets received"),
    Hook("kfree_skb", "on_drop", "packets dropped by this kernel"),
)
"""In Linux since 4.16 or earlier (include/trace/events/tcp.h, sock.h, skb.h)."""

READ_HOOK = Hook("tcp_rcv_space_adjust", "on_read", "half-closed connections before their end")
"""Where the rest of what connections count cannot be added at the end of an interval."""

LOOKUP_HOOKS = (
    Hook("net_dev_queue", "on_packet_sent", "DNS lookups"),
    Hook("netif_receive_skb", "on_packet_received", "answers to DNS lookups"),
)
"""If DNS lookups are counted: one without the other would show none answered. Older than HOOKS
(include/trace/events/net.h)."""

SWITCH = "sched_switch"
NAMESPACE_HOOK = Hook(SWITCH, "on_switch", "only this node's network namespaces")
"""In a container only, until it is known that no other node uses this kernel."""
