"""Which slices are in the cache, now and then during a replay: what the report's map is drawn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from slicesim.policies import LSB, MSB
from slicesim.policies.slices import SliceState

#: Bits of a cell of the map.
MSB_RESIDENT, LSB_RESIDENT = 1, 2

#: More snapshots are never held; where they are this many, every second one goes.
MOST = 64


class Snapshot(NamedTuple):
    """The cache after a row of the result: row counts prompts and decode tokens, token is -1 for a prompt.

    slices: uint8 [layers, experts], bits MSB_RESIDENT and LSB_RESIDENT.
    """

    row: int
    request: int
    token: int
    slices: NDArray[np.uint8]


class Residency:
    """Takes a snapshot after every ``stride`` rows, from the first on, and one at the end.

    The stride doubles whenever MOST are held, so that they stay evenly spread and few however long the trace is.
    """

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self._stride = 1
        self._rows = 0

    @property
    def rows_left(self) -> int:
        """Rows up to and with the next snapshot."""
        return -self._rows % self._stride + 1

    def passed(self, rows: int, request: int, token: int, state: SliceState) -> None:
        """Count rows that are done, at most ``rows_left``; request and token: of the last one."""
        due = rows == self.rows_left
        self._rows += rows
        if due:
            self._take(request, token, state)
            if len(self.snapshots) == MOST:
                self.snapshots = self.snapshots[::2]
                self._stride *= 2

    def end(self, request: int, token: int, state: SliceState) -> None:
        """Take the last row's snapshot, where there is none yet."""
        if self.snapshots and self.snapshots[-1].row != self._rows - 1:
            self._take(request, token, state)

    def _take(self, request: int, token: int, state: SliceState) -> None:
        there = state.resident.reshape(-1, state.experts, 2)
        slices = (there[..., MSB] * MSB_RESIDENT | there[..., LSB] * LSB_RESIDENT).astype(np.uint8)
        self.snapshots.append(Snapshot(self._rows - 1, request, token, slices))

    def save(self, path: Path, layers: list[int]) -> None:
        """Write one row per snapshot and layer as Parquet. layers: the model's numbers of them."""
        taken = self.snapshots
        experts = taken[0].slices.shape[1]
        columns = {
            "row": np.repeat([shot.row for shot in taken], len(layers)),
            "request": np.repeat([shot.request for shot in taken], len(layers)),
            "token": np.repeat([shot.token for shot in taken], len(layers)),
            "layer": np.tile(np.array(layers, dtype=np.int16), len(taken)),
        }
        cells = pa.array(np.concatenate([shot.slices.reshape(-1) for shot in taken]))
        table = pa.table({**columns, "slices": pa.FixedSizeListArray.from_arrays(cells, experts)})
        about = {"slicesim-residency": json.dumps({"msb": MSB_RESIDENT, "lsb": LSB_RESIDENT})}
        pq.write_table(table.replace_schema_metadata(about), path, compression="zstd")
