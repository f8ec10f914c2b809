"""Records as columns of bytes, without those that are zero in every record.

Most fields of a flow are zero in an interval, and of the others the higher bytes. Without them a
recorded run is a seventh of its size, for less time than a compressor takes. All records of a
message have one size, a multiple of 8 bytes.

    number of records       4 bytes, little-endian
    which bytes follow      one bit for each byte of a record, from the lowest bit of the first on
    those bytes             each as a column: that of the first record, of the second …

This module does not need numpy, so that the collector stays small; `raw_records` unpacks.
"""

__all__ = ["COUNT_BYTES", "pack"]

COUNT_BYTES = 4
"""What the number of records takes."""


def pack(records: bytes, record_bytes: int) -> bytes:
    """Records, one after the other, as columns."""
    count = len(records) // record_bytes
    columns = [records[at::record_bytes] for at in range(record_bytes)]
    nothing = bytes(count)
    kept = [at for at, column in enumerate(columns) if column != nothing]
    mask = sum(1 << at for at in kept).to_bytes(record_bytes // 8, "little")
    return b"".join([count.to_bytes(COUNT_BYTES, "little"), mask, *(columns[at] for at in kept)])
