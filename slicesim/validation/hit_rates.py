"""Hit rates that a phone counted, against a replay of the routing that it recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from slicesim.scenario import Scenario
from slicesim.simulation import Simulation
from slicesim.validation.rows import Row, Table


class Recording(NamedTuple):
    """A file of BigMoeOnEdge, its model, the cache of the phone, and what it counted (percent)."""

    file: str
    model: str
    top_k: int
    cache_mib: int
    overall: float
    decode: float | None


RECORDINGS = (
    Recording("qwen", "qwen3-30b-a3b", 6, 4000, 74.9, 80.3),
    Recording("gptoss", "gpt-oss-120b", 2, 3000, 32.3, None),
)


def hit_rate_table(config: Path, data: Path | None) -> Table:
    """A global LRU over whole experts with the recorded sizes, on ``config``'s device (which does not matter)."""
    rows: list[Row] = []
    for recording in RECORDINGS:
        path = None if data is None else data / "traces" / "bigmoe-on-edge" / f"{recording.file}.route.csv"
        overall, decode = (None, None) if path is None or not path.is_file() else _rates(config, recording, path)
        name = f"{recording.model}, {recording.cache_mib} MiB"
        rows.append(Row(name, "hits, prefill and decode, %", recording.overall, overall, "predicted", needs_data=True))
        if recording.decode is not None:
            rows.append(Row(name, "hits, decode, %", recording.decode, decode, "predicted", needs_data=True))
    text = "BigMoeOnEdge `route_trace` files, replayed through a global LRU; no parameters."
    return Table("Hit rates", text, rows)


def _rates(config: Path, recording: Recording, path: Path) -> tuple[float, float]:
    keys: dict[str, Any] = {
        "trace.top_k": recording.top_k,
        "cache.object_bytes": "trace",
        "cache.capacity_gb": recording.cache_mib * 2**20 / 1e9,
    }
    scenario = Scenario.load(config, model=recording.model, trace=path, policy="lru-high", assignments=keys)
    result = Simulation.prepare(scenario).run()
    phases = (result.prefill, result.decode)
    hits, misses = (sum(part[kind]["msb"] for part in phases) for kind in ("hits", "misses"))
    return 100 * hits / (hits + misses), 100 * (1 - result.decode["miss_rate"]["msb"])
