"""Every fault of a trace file, by row or line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slicesim.errors import UserError
from slicesim.trace.fault_list import FaultList, FaultyTraceError
from slicesim.trace.importers import ImportOptions, import_trace
from slicesim.trace.load import is_parquet
from slicesim.trace.order import OrderCheck
from slicesim.trace.store import ParquetTrace
from slicesim.trace.table import ABSENT, TraceBlock, faults


def validate_trace(path: str | Path, options: ImportOptions | None = None) -> list[str]:
    """Return the faults of a trace, one line each: at most 20, and a count of the rest.

    Parquet faults name the row (from 0; a row is one token and layer), others the line of the source. A fault
    of the file's form (a truncated file, an unknown layer, a list of the wrong length) ends the search.
    Raises UserError where there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such trace: {path}")
    found = FaultList()
    try:
        if is_parquet(path):
            _search(ParquetTrace(path), found)
        else:
            import_trace(path, options or ImportOptions())
    except FaultyTraceError as error:
        return error.found.lines()
    except UserError as error:
        found.add(str(error))
    return found.lines()


def _search(trace: ParquetTrace, found: FaultList) -> None:
    header = trace.header
    order = OrderCheck()
    tokens = 0
    for block, rows in trace.numbered_blocks():
        first_row = np.where(rows == ABSENT, np.iinfo(np.int64).max, rows).min(axis=1)
        here: list[tuple[int, str]] = []
        for token, layer, message in faults(header, block):
            row = int(rows[token, layer] if rows[token, layer] != ABSENT else first_row[token])
            here.append((row, f"{_place(block, token)}, layer {header.layers[layer]}: {message}"))
        for token, message in order.faults(block):
            here.append((int(first_row[token]), f"{_place(block, token)}: {message}"))
        for row, text in sorted(here):
            found.add(f"{trace.path}: row {row}: {text}")
        tokens += len(block)
    if not tokens:
        found.add(f"{trace.path}: the trace holds no tokens")


def _place(block: TraceBlock, token: int) -> str:
    return f"request {block.request[token]}, token {block.token[token]}"
