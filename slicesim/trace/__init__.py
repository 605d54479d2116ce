"""Routing traces: their table, file format, importers, statistics and synthesis."""

from slicesim.trace.load import load_trace
from slicesim.trace.store import ParquetTrace, write_trace
from slicesim.trace.table import DECODE, PREFILL, MemoryTrace, Trace, TraceBlock, TraceHeader

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
