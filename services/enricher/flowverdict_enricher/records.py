"""What raw records say about the ends of their connections."""

import numpy as np
import numpy.typing as npt

__all__ = ["Records", "Rows", "are_new", "ends_of", "packed"]

Records = npt.NDArray[np.void]
"""Of dtype `raw_records.RECORD`."""
Rows = npt.NDArray[np.intp]
"""Positions of some of them."""

_END = np.dtype([("address", "V16"), ("port", "<u2")])


def are_new(records: Records) -> npt.NDArray[np.bool_]:
    """Which rows are about an attempt to connect: it succeeded, failed, or only sent its SYN."""
    found = np.zeros(len(records), np.bool_)
    for name in ("opens", "failed_opens", "cancelled_opens", "retransmitted_syns"):
        found |= records[name] > 0
    silent = np.ones(len(records), np.bool_)
    for name in ("segments_received", "data_segments_sent", "retransmitted_segments"):
        silent &= records[name] == 0
    is_syn: npt.NDArray[np.bool_] = silent & (records["segments_sent"] > 0)
    return found | is_syn


def ends_of(records: Records, rows: Rows, end: str) -> list[bytes]:
    """Address and port at one end of the rows, packed."""
    found = np.empty(len(rows), _END)
    found["address"], found["port"] = records[end][rows], records[f"{end}_port"][rows]
    return packed(found)


def packed(values: Records) -> list[bytes]:
    """Each element as its bytes."""
    each: list[bytes] = values.view(f"V{values.itemsize}").tolist()
    return each
