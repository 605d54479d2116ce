"""The rows of a run, one per step: added up as they come, kept in memory while they are few, in a file beyond that."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from slicesim.account import Columns
from slicesim.trace import DECODE, PREFILL

#: Steps kept in memory, and rows in one row group of the file.
STEPS_IN_MEMORY = 1 << 16


@dataclass
class PhaseTotals:
    """Sums over the steps of one phase. latency_ps: int64 [steps]; stalled: steps that waited for flash."""

    steps: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    stalled: int = 0
    _latency: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, columns: Columns) -> None:
        """Enter the rows of one table."""
        self.steps += len(columns["latency_ps"])
        self.stalled += int((columns["flash_stall_ps"] > 0).sum())
        self._latency.append(columns["latency_ps"])
        for name, column in columns.items():
            self.sums[name] = self.sums.get(name, 0) + column.sum().item()

    @property
    def latency_ps(self) -> NDArray[np.int64]:
        """Latency of every step."""
        return np.concatenate((np.zeros(0, dtype=np.int64), *self._latency))


@dataclass
class ActiveTotals:
    """Decode steps from ``start_step`` of their request on: what a constraint is held to."""

    start_step: int
    steps: int = 0
    misses: int = 0
    hits: int = 0
    strength_sum: float = 0.0
    strength_last: float | None = None

    def add(self, columns: Columns) -> None:
        """Enter the rows of one table of decode tokens."""
        active = columns["decode_step"] >= self.start_step
        if active.any():
            strength = columns["strength"][active]
            self.steps += int(active.sum())
            self.misses += int((columns["msb_misses"] + columns["lsb_misses"])[active].sum())
            self.hits += int((columns["msb_hits"] + columns["lsb_hits"])[active].sum())
            self.strength_sum += float(strength.sum())
            self.strength_last = float(strength[-1])


class Rows:
    """Takes the columns of one table after another (each of one phase alone)."""

    def __init__(self, start_step: int = 0) -> None:
        self.phases = {PREFILL: PhaseTotals(), DECODE: PhaseTotals()}
        self.active = ActiveTotals(start_step)
        self._parts: list[Columns] = []
        self._steps = 0
        self._spill: _Spill | None = None

    def __len__(self) -> int:
        """Return how many steps there are."""
        return sum(totals.steps for totals in self.phases.values())

    def add(self, columns: Columns) -> None:
        """Enter one table."""
        phase = int(columns["phase"][0])
        self.phases[phase].add(columns)
        if phase == DECODE:
            self.active.add(columns)
        self._parts.append(columns)
        self._steps += len(columns["phase"])
        if self._steps >= STEPS_IN_MEMORY:
            self._spill = self._spill or _Spill()
            self._spill.write(self._take())

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all rows (or some columns of them) as a DataFrame; ``phase`` is ``prefill`` or ``decode``."""
        frame: pd.DataFrame = pa.concat_tables(self._tables(columns)).to_pandas()
        return frame

    def _tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        if self._spill is not None:
            yield from self._spill.tables(columns)
        last = _table(self._parts)
        yield last if columns is None else last.select(columns)

    def frames(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield some columns of all rows, part by part."""
        return (table.to_pandas() for table in self._tables(columns))

    def binned(self, columns: Sequence[str], most: int) -> tuple[pd.DataFrame, int]:
        """Return sums of columns over equally many decode steps in a row, at most ``most`` such bins; and how many."""
        return bin_decode(self._tables(["phase", *columns]), self.phases[DECODE].steps, columns, most)

    def save(self, path: Path) -> None:
        """Write all rows as Parquet."""
        with pq.ParquetWriter(path, _table(self._parts).schema, compression="zstd") as writer:
            for table in self._tables():
                writer.write_table(table)

    def _take(self) -> pa.Table:
        table = _table(self._parts)
        self._parts, self._steps = [{name: column[:0] for name, column in self._parts[0].items()}], 0
        return table


class _Spill:
    """Rows in a Parquet file of their own, which goes when nobody needs it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slicesim-")
        self._path = Path(self._folder.name)
        self._count = 0

    def write(self, table: pa.Table) -> None:
        pq.write_table(table, self._path / f"{self._count:06d}.parquet", compression="lz4")
        self._count += 1

    def tables(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        for number in range(self._count):
            yield pq.read_table(self._path / f"{number:06d}.parquet", columns=columns)


def bin_decode(tables: Iterable[pa.Table], steps: int, columns: Sequence[str], most: int) -> tuple[pd.DataFrame, int]:
    """Return sums of columns over equally many decode steps in a row, at most ``most`` such bins; and how many.

    tables: all rows, with ``phase``; steps: decode steps in them.
    """
    width = max(1, -(-steps // most))
    sums = np.zeros((-(-steps // width), len(columns)))
    first = 0
    for table in tables:
        decode = table.filter(pc.equal(table["phase"], "decode"))
        number = (first + np.arange(len(decode))) // width
        for place, name in enumerate(columns):
            np.add.at(sums[:, place], number, decode[name].to_numpy())
        first += len(decode)
    return pd.DataFrame(sums, columns=list(columns)), width


def _table(parts: Sequence[Mapping[str, NDArray[Any]]]) -> pa.Table:
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    phases = pa.array(("prefill", "decode"))
    return pa.table({name: phases.take(pa.array(c)) if name == "phase" else pa.array(c) for name, c in columns.items()})
