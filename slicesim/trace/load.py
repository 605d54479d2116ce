"""Open a trace by its path, whatever format it is in."""

from __future__ import annotations

import os
from pathlib import Path

from slicesim.errors import UserError
from slicesim.trace.demand import is_demand
from slicesim.trace.table import Trace

_PARQUET_MAGIC = b"PAR1"


def load_trace(path: str | Path, where: str = "", model: str | None = None) -> Trace:
    """Open a Parquet trace, to be read by row group, or import a file of another known format.

    ``where`` is the place that named the path, for the message; ``model`` names the geometry for formats that do
    not record it (jsonl, csv). Raises UserError where there is no such file,
    where it is no trace, and where it holds no token.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise UserError(f"{where}: no such trace: {path}" if where else f"no such trace: {path}")
    if is_demand(path):
        raise UserError(f"{path}: a demand trace holds bytes, no routing: only slicesim run and sensitivity take it")
    trace = _open(path, model)
    _ = trace.header  # a file that is no trace is refused here rather than later
    if not any(len(block) for block in trace.blocks()):
        raise UserError(f"{path}: the trace holds no tokens")
    return trace


def is_parquet(path: Path) -> bool:
    """Tell by name or first bytes whether a file is, or ought to be, Parquet."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix == ".parquet" or file.read(4) == _PARQUET_MAGIC


def _open(path: Path, model: str | None) -> Trace:
    # Arrow, and the readers of other formats, are loaded only when a trace is.
    if is_parquet(path):
        from slicesim.trace.store import ParquetTrace

        return ParquetTrace(path)
    from slicesim.trace.importers import ImportOptions, import_trace

    return import_trace(path, ImportOptions(fallback_model=model))
