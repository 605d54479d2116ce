"""A run's result folder, read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from slicesim.errors import UserError
from slicesim.report.folder import SUMMARY
from slicesim.report.intervals import COLUMNS, STEPS, Intervals, intervals, sum_by_request
from slicesim.report.tables import Summary
from slicesim.rows import bin_decode

#: What the summary of a run holds, and no other one.
_PARTS = ("scenario", "policy", "model", "trace", "warnings", "prefill", "decode")

_EVENT = ["track", "order", "name", "start_us", "duration_us"]


def read_summary(place: Path) -> Summary:
    """Return a run's figures. place: a result folder, or a summary itself, such as a sweep's ``points/DIGEST.json``.

    Raises UserError where there is none, or one of another command.
    """
    path = place / SUMMARY if place.is_dir() else place
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{place}: no result here ({SUMMARY}); slicesim run writes one") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error})") from None
    if not (
        isinstance(summary, dict) and isinstance(summary.get("decode"), dict) and all(p in summary for p in _PARTS)
    ):
        raise UserError(f"{place}: is not the result of slicesim run; reports and differences are of single runs")
    return summary


@contextmanager
def whole_results(*places: Path) -> Iterator[None]:
    """Turn what happens with figures that are missing, or of another kind, into one line.

    A result is written by a program, so nothing checks each of its figures; but people edit files, and disks fail.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, pa.ArrowException) as error:
        named = " or ".join(map(str, places))
        raise UserError(f"{named}: is no whole result of this version of slicesim ({error!r}); run it again") from error


@dataclass(frozen=True)
class ResidencyMap:
    """Snapshots of a cache. row, request, token: int64 [snapshots]; slices: uint8 [snapshots, layers, experts]."""

    row: NDArray[np.int64]
    request: NDArray[np.int64]
    token: NDArray[np.int64]
    slices: NDArray[np.uint8]


@dataclass(frozen=True)
class SavedRun:
    """One result folder. summary: its figures; sums: of ``sum_by_request``."""

    folder: Path
    summary: Summary
    sums: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> SavedRun:
        """Read what every result has; raises UserError where it is none, or broken."""
        if not folder.is_dir():
            raise UserError(f"{folder}: no such result folder; slicesim run writes one")
        summary = read_summary(folder)
        columns = ["phase", "request", *COLUMNS]
        frames = (table.to_pandas() for table in _tables(folder / "tokens.parquet", columns))
        return cls(folder, summary, sum_by_request(frames))

    @property
    def intervals(self) -> Intervals:
        """95 % bootstrap intervals over requests."""
        return intervals(self.sums)

    @property
    def steps_by_request(self) -> list[int]:
        """Decode tokens of each request, in the order of the run."""
        decoded = self.sums[self.sums.index.get_level_values("phase") == "decode"]
        return [int(count) for count in decoded[STEPS]]

    def binned(self, columns: Sequence[str], most: int) -> tuple[pd.DataFrame, int]:
        """Return sums over bins of decode tokens, as ``Rows.binned``."""
        tables = _tables(self.folder / "tokens.parquet", ["phase", *columns])
        return bin_decode(tables, sum(self.steps_by_request), columns, most)

    def residency(self) -> ResidencyMap | None:
        """Return the snapshots of the cache; older results have none."""
        path = self.folder / "residency.parquet"
        if not path.exists():
            return None
        layers = len(self.summary["trace"]["layers"])
        keys = ["row", "request", "token"]
        table = pa.concat_tables(_tables(path, [*keys, "slices"]))
        first = table.select(keys).to_pandas().iloc[::layers]
        cells = np.stack(table["slices"].to_pandas().to_numpy()).astype(np.uint8)
        return ResidencyMap(
            first["row"].to_numpy(),
            first["request"].to_numpy(),
            first["token"].to_numpy(),
            cells.reshape(len(first), layers, -1),
        )

    def events(self) -> pd.DataFrame:
        """Return the timeline's bars: track, order (of the track), name, start_us, duration_us."""
        path = self.folder / "timeline.json"
        if not path.exists():
            return pd.DataFrame(columns=_EVENT)
        try:
            entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is not a timeline ({error})") from None
        named = {entry["tid"]: entry["args"]["name"] for entry in entries if entry["name"] == "thread_name"}
        order = {e["tid"]: e["args"]["sort_index"] for e in entries if e["name"] == "thread_sort_index"}
        rows = [
            (named[entry["tid"]], order.get(entry["tid"], entry["tid"]), entry["name"], entry["ts"], entry["dur"])
            for entry in entries
            if entry["ph"] == "X"
        ]
        return pd.DataFrame(rows, columns=_EVENT)


def _tables(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns, one row group after another."""
    if not path.is_file():
        raise UserError(f"{path}: is missing; the result is not whole")
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=columns).select(columns)
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({(str(error) or type(error).__name__).splitlines()[0]})") from None
