"""Where the programs of flows.bpf.c attach."""

from dataclasses import dataclass

__all__ = ["HOOKS", "Hook"]


@dataclass(frozen=True, slots=True)
class Hook:
    """A raw tracepoint, the function attached to it, and what is lost without it.

    `required`: counts would be wrong without it, so the collector does not start.
    """

    tracepoint: str
    function: str
    counts: str
    required: bool


HOOKS = (
    Hook("inet_sock_set_state", "on_set_state", "opens and failed opens", True),
    Hook("tcp_probe", "on_segment", "segments, bytes and RTT", True),
    Hook("tcp_retransmit_skb", "on_retransmit", "retransmissions", True),
    Hook("tcp_destroy_sock", "on_destroy", "the last counts of a connection", True),
    Hook("tcp_retransmit_synack", "on_retransmit_synack", "SYN-ACK retransmissions", True),
    Hook("tcp_send_reset", "on_send_reset", "resets sent", False),
    Hook("tcp_receive_reset", "on_receive_reset", "resets received", False),
    Hook("kfree_skb", "on_drop", "packets dropped by this kernel", False),
)
"""In Linux since 4.16 or earlier (include/trace/events/tcp.h, sock.h, skb.h)."""
