"""The NATS headers of flow messages: which node and interval they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flowverdict_contracts import MalformedMessage, kernel_reports
from flowverdict_contracts.kernel_reports import KernelReport

__all__ = ["SENT", "TOLERATED_SECONDS", "IntervalHeader", "schema_of", "sent_ns"]

SENT = "Flowverdict-Sent"
"""The header with the sender's time when it sent the message, UTC nanoseconds."""

TOLERATED_SECONDS = 5
"""By how much a clock may be wrong."""
_PACKING = "columns"
_LIMIT = 1 << 63
_LONGEST_TIME = 20


def schema_of(headers: Mapping[str, str] | None) -> str:
    """The schema that a message's headers name; "none" if they name none."""
    return (headers or {}).get("Flowverdict-Schema", "none")


def sent_ns(headers: Mapping[str, str] | None) -> int | None:
    """When a message was sent, by its sender's clock; None if it does not say."""
    text = (headers or {}).get(SENT, "")
    is_number = text.isascii() and text.isdigit() and len(text) < _LONGEST_TIME
    return int(text) if is_number else None


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
        piece: what NATS does not take in one message once it is enriched is sent in several,
            numbered by the first row of each.
        lost_flow_updates: counts lost because the kernel's flow map was full.
        lost_sockets: sockets not tracked because the kernel's socket map was full.
        skipped_runs: events that the kernel skipped, because it was just counting another.
        clock_behind_ns: how far the node's clock was behind that of NATS, by which the interval has
            been dated since; negative if it was ahead. 0 if the node's own clock dates it.
        names_bytes: how many bytes at a raw message's end are names that were looked up.
        owners_bytes: how many bytes after those say which pods are on the node's own network.
        is_packed: whether a raw message's records are in columns (`byte_columns`).
        kernel_reports: what the node's kernel log has said in the interval.
    """

    node: str
    run_id: str
    sequence: int
    start_ns: int
    end_ns: int
    part: int = 1
    parts: int = 1
    piece: int = 0
    lost_flow_updates: int = 0
    lost_sockets: int = 0
    skipped_runs: int = 0
    clock_behind_ns: int = 0
    names_bytes: int = 0
    owners_bytes: int = 0
    is_packed: bool = False
    kernel_reports: tuple[KernelReport, ...] = ()

    def check_not_ahead(self, stored_ns: int) -> None:
        """Reject an interval that ends after its message was stored.

        Raises:
            MalformedMessage: if it ends more than five seconds later.
        """
        ahead_seconds = (self.end_ns - stored_ns) / 1e9
        if ahead_seconds > TOLERATED_SECONDS:
            raise MalformedMessage(
                f"the clock of node {self.node} is {ahead_seconds:.0f} s ahead of NATS"
            )

    def dated_by_nats(self, behind_ns: int) -> "IntervalHeader":
        """The same interval by the clock of NATS, which the node's is behind by that much."""
        start_ns, end_ns = (max(0, each + behind_ns) for each in (self.start_ns, self.end_ns))
        return replace(self, start_ns=start_ns, end_ns=end_ns, clock_behind_ns=behind_ns)

    @property
    def message_id(self) -> str:
        """`Nats-Msg-Id`: the same for every copy of this message."""
        piece = f".{self.piece}" if self.piece else ""
        return f"{self.node}/{self.run_id}/{self.sequence}{piece}"

    def encode(self, schema: str) -> dict[str, str]:
        """The NATS headers of a message whose body is of `schema`."""
        fields = {
            "Nats-Msg-Id": self.message_id,
            "Flowverdict-Schema": schema,
            "Flowverdict-Node": self.node,
            "Flowverdict-Interval": f"{self.start_ns}-{self.end_ns}",
            "Flowverdict-Part": f"{self.part}/{self.parts}",
            "Flowverdict-Lost": f"{self.lost_flow_updates}/{self.lost_sockets}",
        }
        if self.skipped_runs:
            fields["Flowverdict-Skipped"] = str(self.skipped_runs)
        if self.clock_behind_ns:
            fields["Flowverdict-Clock-Behind"] = str(self.clock_behind_ns)
        if self.names_bytes:
            fields["Flowverdict-Names"] = str(self.names_bytes)
        if self.owners_bytes:
            fields["Flowverdict-Owners"] = str(self.owners_bytes)
        if self.is_packed:
            fields["Flowverdict-Packed"] = _PACKING
        if self.kernel_reports:
            fields["Flowverdict-Kernel-Log"] = kernel_reports.encode(self.kernel_reports)
        return fields

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
            node, run_id, number = headers["Nats-Msg-Id"].rsplit("/", 2)
            sequence, _, piece = number.partition(".")
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
                piece=int(piece or 0),
                lost_flow_updates=int(updates),
                lost_sockets=int(sockets or 0),
                skipped_runs=int(headers.get("Flowverdict-Skipped", "0")),
                clock_behind_ns=int(headers.get("Flowverdict-Clock-Behind", "0")),
                names_bytes=int(headers.get("Flowverdict-Names", "0")),
                owners_bytes=int(headers.get("Flowverdict-Owners", "0")),
                is_packed="Flowverdict-Packed" in headers,
                kernel_reports=kernel_reports.decode(headers.get("Flowverdict-Kernel-Log", "[]")),
            )
        except KeyError as missing:
            raise MalformedMessage(f"header {missing.args[0]} is missing") from None
        except ValueError as wrong:
            raise MalformedMessage(f"a header is malformed: {wrong}") from None
        if headers.get("Flowverdict-Packed", _PACKING) != _PACKING:
            raise MalformedMessage(f"records are packed as {headers['Flowverdict-Packed']!r}")
        if not header.node or node != header.node:
            raise MalformedMessage(f"message id names node {node!r}, header {header.node!r}")
        if not 0 <= header.start_ns <= header.end_ns < 1 << 63:
            raise MalformedMessage(f"interval {start}-{end} is invalid")
        if abs(header.clock_behind_ns) >= _LIMIT:
            raise MalformedMessage("the clock's difference is out of range")
        lost_counts = (header.lost_flow_updates, header.lost_sockets, header.skipped_runs)
        sizes = (header.piece, header.names_bytes, header.owners_bytes)
        numbers = (header.sequence, header.part, header.parts, *sizes, *lost_counts)
        if not 1 <= header.part <= header.parts or not all(0 <= each < _LIMIT for each in numbers):
            raise MalformedMessage("sequence, part or loss is out of range")
        return header
