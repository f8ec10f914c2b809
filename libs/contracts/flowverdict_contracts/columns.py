"""Raw flow records as numpy columns."""

import numpy as np
import numpy.typing as npt

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.raw import FIELDS, RECORD_BYTES, ROLES

__all__ = ["COUNTS", "RECORD", "decode"]

RECORD = np.dtype(
    {
        "names": [name for name, _, _ in FIELDS],
        # "V16", not "S16": numpy strips trailing zeros from byte strings.
        "formats": ["V16" if kind == "16s" else f"<{kind}" for _, kind, _ in FIELDS],
        "offsets": [offset for _, _, offset in FIELDS],
        "itemsize": RECORD_BYTES,
    }
)

COUNTS = tuple(
    name
    for name, _, _ in FIELDS[FIELDS.index(("bytes_sent", "u8", 40)) :]
    if name not in ("rtt_us", "rtt_variation_us", "mss", "role")
)
"""The fields that add up over flows and intervals."""


def decode(body: bytes) -> npt.NDArray[np.void]:
    """The records of a raw message's body, dtype `RECORD`, one element a flow.

    Raises:
        MalformedMessage: where the length is not a multiple of a record's, or a role is not one.
    """
    if len(body) % RECORD_BYTES:
        raise MalformedMessage(
            f"{len(body)} bytes are not a whole number of {RECORD_BYTES}-byte records"
        )
    records = np.frombuffer(body, dtype=RECORD)
    if records.size and int(records["role"].max()) >= len(ROLES):
        raise MalformedMessage(f"role {int(records['role'].max())} is unknown")
    return records
