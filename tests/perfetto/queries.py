"""What timeline.json must answer when it is asked in SQL, and the figure of the run that the answer must be.

The queries keep to what both Perfetto's trace processor and the strict reader (``chrome_trace.py``) know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from slicesim.result import Result

#: Bars with the names of their tracks.
BARS = "slice s JOIN thread_track t ON s.track_id = t.id JOIN thread USING (utid)"
DECODE = "s.category = 'decode'"
PS = "extract_arg(s.arg_set_id, 'args.duration_ps')"


class Query(NamedTuple):
    """One figure: SQL that gives a single number, and where a run has it. near: relative difference that is allowed."""

    name: str
    sql: str
    figure: Callable[[Result], float]
    near: float = 0.0

    def holds(self, answer: float | None, result: Result) -> bool:
        """Whether the answer is the figure."""
        return float(answer or 0) == pytest.approx(self.figure(result), rel=self.near, abs=0)


def _decode_rows(column: str) -> Callable[[Result], float]:
    return lambda result: int(result.tokens.loc[result.tokens["phase"] == "decode", column].sum())


def _shown_rows(column: str) -> Callable[[Result], float]:
    """Decode tokens and the first prompt, which the window holds."""

    def figure(result: Result) -> float:
        rows = result.tokens
        first = rows[rows["phase"] == "prefill"].head(1)
        return int(rows.loc[rows["phase"] == "decode", column].sum() + first[column].sum())

    return figure


def _sum(track: str, what: str = PS) -> str:
    return f"SELECT sum({what}) FROM {BARS} WHERE thread.name = '{track}' AND {DECODE}"


def _arg(name: str) -> str:
    return f"extract_arg(s.arg_set_id, 'args.{name}')"


def _flows(kind: str, more: str = "") -> str:
    return (
        "SELECT count(*) FROM flow f JOIN slice s ON f.slice_in = s.id JOIN slice o ON f.slice_out = o.id "
        f"WHERE {DECODE} AND extract_arg(f.arg_set_id, 'cat') = '{kind}' {more}"
    )


def _missing(kind: str) -> str:
    ways = f"'{kind} miss', 'MSB and LSB miss', '{kind} miss, {'LSB' if kind == 'MSB' else 'MSB'} prefetched'"
    return f"{_sum('NPU', '1')} AND {_arg('cache')} IN ({ways})"


def _parts(result: Result) -> int:
    """Operations of one expert, each of which waits for its own part of a slice."""
    return 3 if result.summary["scenario"]["schedule"]["pipeline"] == "matrix" else 1


def _area(counter: str) -> str:
    """GB/s times ns: bytes."""
    return (
        "SELECT sum(value * (later - ts)) FROM (SELECT c.ts, c.value, lead(c.ts) OVER (ORDER BY c.id) AS later "
        f"FROM counter c JOIN process_counter_track t ON c.track_id = t.id WHERE t.name = '{counter}')"
    )


def _last(counter: str) -> str:
    return (
        "SELECT c.value FROM counter c JOIN process_counter_track t ON c.track_id = t.id "
        f"WHERE t.name = '{counter}' ORDER BY c.id DESC LIMIT 1"
    )


def _misses(kind: str) -> Callable[[Result], float]:
    return lambda result: result.decode["misses"][kind]


#: A read's name is that of the operation that waits for it, and its slice: the two ends of a flow are the right ones.
_FITS = "AND (o.name = s.name || ' MSB' OR o.name = s.name || ' LSB')"
_FITS_AHEAD = "AND (o.name = 'prefetch ' || s.name || ' MSB' OR o.name = 'prefetch ' || s.name || ' LSB')"

#: Bytes on this device's DRAM, of both phases.
_HERE = f"SELECT sum({_arg('bytes')}) FROM {BARS} WHERE thread.name = 'DRAM' AND s.name NOT LIKE '%(another device)'"

QUERIES = (
    Query("tokens", _sum("token", "1"), lambda r: r.decode["tokens"]),
    Query("latency", _sum("token"), lambda r: r.decode["latency_ps"]["total"]),
    Query("latency in ns", _sum("token", "s.dur * 1000"), lambda r: r.decode["latency_ps"]["total"], near=1e-3),
    Query("flash stall", _sum("stall: flash"), lambda r: r.decode["time_ps"]["flash_stall"]),
    Query("DRAM stall", _sum("stall: DRAM"), lambda r: r.decode["time_ps"]["dram_stall"]),
    Query("exchange", _sum("interconnect"), lambda r: r.decode["time_ps"]["exchange"]),
    Query("NPU computes", _sum("NPU", _arg("busy_ps")), lambda r: r.decode["time_ps"]["npu"]),
    Query("flash busy", _sum("flash pipe"), _decode_rows("flash_busy_ps")),
    Query("DRAM busy", _sum("DRAM"), _decode_rows("dram_busy_ps"), near=1e-6),  # an exchange counts as 1 ps of it
    Query("flash bytes", _sum("flash pipe", _arg("bytes")), lambda r: r.decode["bytes"]["flash_read"]),
    Query(
        "DRAM bytes",
        _sum("DRAM", _arg("bytes")),
        lambda r: r.decode["bytes"]["dram_read"] + r.decode["bytes"]["dram_write"],
    ),
    Query("exchanged bytes", _sum("interconnect", _arg("bytes")), lambda r: r.decode["bytes"]["all_to_all"]),
    Query("flows are misses", _flows("miss", _FITS), lambda r: sum(r.decode["misses"].values())),
    Query("MSB misses", _flows("miss", "AND o.name LIKE '%MSB'"), _misses("msb")),
    Query("LSB misses", _flows("miss", "AND o.name LIKE '%LSB'"), _misses("lsb")),
    Query("operations that miss MSBs", _missing("MSB"), lambda r: _parts(r) * r.decode["misses"]["msb"]),
    Query("operations that miss LSBs", _missing("LSB"), lambda r: _parts(r) * r.decode["misses"]["lsb"]),
    Query("prefetches used", _flows("prefetch", _FITS_AHEAD), lambda r: r.decode["prefetched"]["used"]),
    Query("flash bandwidth", _area("flash bandwidth GB/s"), _shown_rows("flash_read_bytes"), near=2e-3),
    Query("DRAM bandwidth", f"SELECT ({_area('DRAM bandwidth GB/s')}) / ({_HERE})", lambda r: 1, near=2e-3),
    Query("cached at the end", _last("cache resident bytes"), lambda r: int(r.tokens["resident_bytes"].iloc[-1])),
)  # fmt: skip
