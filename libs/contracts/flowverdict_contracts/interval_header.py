"""The NATS headers of flow messages: which node and interval they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass

from flowverdict_contracts import MalformedMessage

__all__ = ["IntervalHeader", "schema_of"]

_TOLERATED_SECONDS = 5
_LIMIT = 1 << 63


def schema_of(headers: Mapping[str, str] | None) -> str:
    """The schema that a message's headers name; "none" if they name none."""
    return (headers or {}).get("Flowverdict-Schema", "none")


@dataclass(frozen=True, slots=True)
class IntervalHeader:
    """The contents of a flow message's NATS headers, raw or enriched.

    Attributes:
        node: Kubernetes name of the node.
        run_id: changes when counting on the node begins anew: when a collector starts that finds
            nothing pinned in the kernel.
        sequence: number of the message in that run, from 1.
        start_ns, end_ns: the interval, UTC nanoseconds; `end_ns` is not part of it.
        part, parts: an interval with many flows is sent as several messages, numbered from 1.
        lost_flow_updates: counts lost because the kernel's flow map was full.
        lost_sockets: sockets not tracked because the kernel's socket map was full.
    """

    node: str
    run_id: str
    sequence: int
    start_ns: int
    end_ns: int
    part: int = 1
    parts: int = 1
    lost_flow_updates: int = 0
    lost_sockets: int = 0

    def check_not_ahead(self, stored_ns: int) -> None:
        """Reject an interval that ends after its message was stored.

        Raises:
            MalformedMessage: if it ends more than five seconds later.
        """
        ahead_seconds = (self.end_ns - stored_ns) / 1e9
        if ahead_seconds > _TOLERATED_SECONDS:
            raise MalformedMessage(
                f"the clock of node {self.node} is {ahead_seconds:.0f} s ahead of NATS"
            )

    @property
    def message_id(self) -> str:
        """`Nats-Msg-Id`: the same for every copy of this message."""
        return f"{self.node}/{self.run_id}/{self.sequence}"

    def encode(self, schema: str) -> dict[str, str]:
        """The NATS headers of a message whose body is of `schema`."""
        return {
            "Nats-Msg-Id": self.message_id,
            "Flowverdict-Schema": schema,
            "Flowverdict-Node": self.node,
            "Flowverdict-Interval": f"{self.start_ns}-{self.end_ns}",
            "Flowverdict-Part": f"{self.part}/{self.parts}",
            "Flowverdict-Lost": f"{self.lost_flow_updates}/{self.lost_sockets}",
        }

    @classmethod
    def decode(cls, headers: Mapping[str, str] | None, *schemas: str) -> "IntervalHeader":
        """The header encoded in `headers`.

        Raises:
            MalformedMessage: if one is missing or invalid, or the schema is none of `schemas`.
        """
        headers = headers or {}
        found = schema_of(headers)
        if found not in schemas:
            readable = " and ".join(map(repr, schemas))
            raise MalformedMessage(f"schema is {found!r}, this version reads {readable}")
        try:
            node, run_id, sequence = headers["Nats-Msg-Id"].rsplit("/", 2)
            start, end = headers["Flowverdict-Interval"].split("-")
            part, parts = headers["Flowverdict-Part"].split("/")
            # Before flows.raw/2 both losses were one number.
            lost = headers.get("Flowverdict-Lost") or headers["Flowverdict-Rows-Lost"]
            updates, _, sockets = lost.partition("/")
            header = cls(
                node=headers["Flowverdict-Node"],
                run_id=run_id,
                sequence=int(sequence),
                start_ns=int(start),
                end_ns=int(end),
                part=int(part),
                parts=int(parts),
                lost_flow_updates=int(updates),
                lost_sockets=int(sockets or 0),
            )
        except KeyError as missing:
            raise MalformedMessage(f"header {missing.args[0]} is missing") from None
        except ValueError as wrong:
            raise MalformedMessage(f"a header is malformed: {wrong}") from None
        if not header.node or node != header.node:
            raise MalformedMessage(f"message id names node {node!r}, header {header.node!r}")
        if not 0 <= header.start_ns <= header.end_ns < 1 << 63:
            raise MalformedMessage(f"interval {start}-{end} is invalid")
        lost_counts = (header.lost_flow_updates, header.lost_sockets)
        numbers = (header.sequence, header.part, header.parts, *lost_counts)
        if not 1 <= header.part <= header.parts or not all(0 <= each < _LIMIT for each in numbers):
            raise MalformedMessage("sequence, part or loss is out of range")
        return header
