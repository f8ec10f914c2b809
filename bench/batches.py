"""Enriched batches, column by column."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.enriched import ARROW_SCHEMA, completed

__all__ = ["batch_of"]


def batch_of(
    columns: Mapping[str, pa.Array],
    numbers: Mapping[str, npt.NDArray[np.int64] | npt.NDArray[np.float64]],
) -> pa.RecordBatch:
    """An enriched batch of some columns as they are, and of numbers without their fractions."""
    converted = {
        name: pa.array(values.astype(np.int64)).cast(ARROW_SCHEMA.field(name).type)
        for name, values in numbers.items()
    }
    return completed(pa.RecordBatch.from_pydict({**columns, **converted}))
