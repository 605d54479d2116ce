"""Routing traces: their table, file format, importers, statistics and synthesis."""

from typing import TYPE_CHECKING, Any

from slicesim.trace.load import load_trace
from slicesim.trace.table import DECODE, PREFILL, MemoryTrace, Trace, TraceBlock, TraceHeader

if TYPE_CHECKING:
    from slicesim.trace.store import ParquetTrace, write_trace

__all__ = [
    "DECODE",
    "PREFILL",
    "MemoryTrace",
    "ParquetTrace",
    "Trace",
    "TraceBlock",
    "TraceHeader",
    "load_trace",
    "write_trace",
]


def __getattr__(name: str) -> Any:
    """Load the file format, and Arrow with it, when it is first asked for."""
    if name in ("ParquetTrace", "write_trace"):
        from slicesim.trace import store

        return getattr(store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
