"""What has been published of what the kernel counted, kept in the kernel beside the counts.

A collector that is killed leaves an interval behind, half published or not at all. The next one
publishes the rest with the same message ids, so that NATS keeps each message once.
"""

import ctypes
from dataclasses import astuple, dataclass, fields

from flowverdict_collector.kernel import read_value, write_value

__all__ = ["PROGRESS_WORDS", "Progress", "load", "store"]

PROGRESS_WORDS = 16
"""Size of the map's value, in 64-bit words; not all are used yet."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The last interval, and how far its messages have got.

    Attributes:
        run_id: 48 bits, which the header has as hexadecimal digits; 0 before the first interval.
        sequence: number of the last message of the interval before.
        start_ns, end_ns: the interval, UTC nanoseconds.
        ended_at_ns: its end on the monotonic clock.
        parts: its messages; 0 if all of it is stored and deleted from the kernel's map.
        stored: how many of them NATS has stored.
        part_records: records per message before other namespaces' are left out.
        lost_flow_updates, lost_sockets: since the start of the run, up to the interval's end.
        newly_lost_flow_updates, newly_lost_sockets: of these, in the interval.
        schema: of the records, as a number: 6 for flows.raw/6.
        skipped_runs, newly_skipped_runs: events that the kernel skipped, as above.
    """

    run_id: int = 0
    sequence: int = 0
    start_ns: int = 0
    end_ns: int = 0
    ended_at_ns: int = 0
    parts: int = 0
    stored: int = 0
    part_records: int = 0
    lost_flow_updates: int = 0
    lost_sockets: int = 0
    newly_lost_flow_updates: int = 0
    newly_lost_sockets: int = 0
    schema: int = 0
    skipped_runs: int = 0
    newly_skipped_runs: int = 0


_Words = ctypes.c_uint64 * PROGRESS_WORDS


def load(descriptor: int) -> Progress:
    """What the map with this descriptor holds."""
    words = read_value(descriptor, ctypes.c_uint32(0), _Words)
    return Progress(*words[: len(fields(Progress))])


def store(descriptor: int, progress: Progress) -> None:
    """Replace what the map holds, in one step."""
    write_value(descriptor, ctypes.c_uint32(0), _Words(*astuple(progress)))
