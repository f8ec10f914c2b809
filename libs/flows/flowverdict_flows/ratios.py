"""The two retransmission ratios, each defined here and nowhere else.

Services compute them with `Ratio.of` or `pairs.ratios_of`; Prometheus' rules, Grafana's panels and
InfluxDB's queries are written from the same fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CONNECT_RETRANSMISSION_RATIO", "RATIOS", "RETRANSMISSION_RATIO", "Ratio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A quotient of sums of fields of an enriched row.

    Attributes:
        name: in code, documentation and InfluxDB.
        title: for display.
        numerator, denominator: fields that are added up, over rows and time, before dividing.
        at_most: a limit on the quotient; None if there is none.
        meaning: what it says, for the documents.
        kernel_fields: where the kernel keeps the values it is computed from.
    """

    name: str
    title: str
    numerator: tuple[str, ...]
    denominator: tuple[str, ...]
    at_most: float | None
    meaning: str
    kernel_fields: str

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field it is computed from."""
        return (*self.numerator, *self.denominator)

    def of(self, counts: Mapping[str, int]) -> float | None:
        """The ratio of sums by field; None if the denominator is zero."""
        below = sum(counts[name] for name in self.denominator)
        if not below:
            return None
        value = sum(counts[name] for name in self.numerator) / below
        return value if self.at_most is None else min(self.at_most, value)


RETRANSMISSION_RATIO = Ratio(
    name="retransmission_ratio",
    title="Retransmission ratio",
    numerator=("retransmitted_data_segments",),
    denominator=("data_segments_sent",),
    at_most=1.0,
    meaning="Retransmitted data segments as a share of all data segments sent. SYN and SYN-ACK "
    "count in neither. A retransmitted FIN counts in the numerator only, so the ratio is capped "
    "at 1.",
    kernel_fields="`tcp_sock.total_retrans` outside SYN_SENT, `tcp_sock.data_segs_out`",
)

CONNECT_RETRANSMISSION_RATIO = Ratio(
    name="connect_retransmission_ratio",
    title="Connect retransmission ratio",
    numerator=("retransmitted_syns", "retransmitted_synacks"),
    denominator=("opens", "failed_opens"),
    at_most=None,
    meaning="Retransmitted SYN and SYN-ACK segments per connection attempt, whether it succeeded "
    "or failed. It exceeds 1 if attempts take several retransmissions each.",
    kernel_fields="`tcp_sock.total_retrans` in SYN_SENT, the tracepoint `tcp_retransmit_synack`, "
    "the tracepoint `inet_sock_set_state`",
)

RATIOS = (RETRANSMISSION_RATIO, CONNECT_RETRANSMISSION_RATIO)
