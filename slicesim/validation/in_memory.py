"""V5, V12, V13, V16: decoding with all weights in DRAM, as demand traces without flash reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slicesim.demand_simulation import DemandSimulation
from slicesim.hardware import Hardware
from slicesim.models import ModelGeometry, load_model
from slicesim.scenario import Scenario
from slicesim.trace.demand import DemandHeader, DemandTrace
from slicesim.validation.reference import reference_rows
from slicesim.validation.rows import Row, Table

#: Enough for a mean: tokens differ only by their KV cache.
TOKENS = 16

#: Computing is no bottleneck in these rows: all measured rates follow the bytes.
_GFLOPS = 1e6


def in_memory_table(config: Path) -> Table:
    """Run every row on ``config``'s device with the row's bandwidth and a processor that never limits."""
    rows = []
    for row in reference_rows("in_memory"):
        kind: Any = row["kind"]
        speed = tokens_per_s(config, row)
        rows.append(
            Row(f"{row['id']} {row['target']}", "tokens/s", float(row["tokens_per_s"]), speed, kind, row["note"])
        )
    text = (
        "Bytes of the model over the bandwidth that the client sustains, through the simulator (no flash reads, KV "
        "cache and first tiles included, computing free)."
    )
    return Table("Decoding in memory", text, rows)


def tokens_per_s(config: Path, row: Mapping[str, str]) -> float:
    """Simulate one row."""
    source = "slicesim/validation/in_memory.csv"
    bandwidth = float(row["peak_gbs"]) * float(row["share"])
    plain = {
        "kind": "as seen by the client",
        "capacity_gb": 64,
        "bandwidth_gbs": bandwidth,
        "energy_pj_per_bit": 0,
        "row_kib": 8,
        "activation_energy_pj": 0,
        "background_power_mw": 0,
    }
    dram = {key: v if isinstance(v, str) else {"value": v, "source": source} for key, v in plain.items()}
    cpu = {"gflops": {"value": _GFLOPS, "source": source}, "efficiency_tops_per_w": {"value": 1, "source": source}}
    sram = {"capacity_kib": {"value": 8192, "source": source}}
    scenario = Scenario.load(config, assignments={"device.dram": dram, "device.cpu": cpu, "device.sram": sram})
    model = geometry(row["geometry"])
    layers = len(model.moe_layers)
    header = DemandHeader(
        model=model.name,
        layers=layers,
        top_k=model.top_k,
        read_bytes=1,
        expert_bytes=round(float(row["experts_mb"]) * 1e6 / (layers * model.top_k)),
        non_expert_bytes=round(float(row["other_mb"]) * 1e6),
        source=source,
        licence="facts",
    )
    trace = DemandTrace.of(header, np.zeros(TOKENS, dtype=np.int64))
    result = DemandSimulation(scenario, trace, model, Hardware.of(scenario.settings.device), ()).run()
    return float(result.decode["tokens_per_s"])


def geometry(text: str) -> ModelGeometry:
    """A shipped model by name, or a dense one: its feed-forward block is the one expert of each layer."""
    if "/" not in text:
        return load_model(text)
    layers, hidden, inner, heads, kv_heads, head_dim, vocabulary = map(int, text.split("/"))
    attention = {"kind": "gqa", "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "source": "config.json"}
    return ModelGeometry.model_validate(
        {
            "name": "dense",
            "source": "config.json",
            "layers": layers,
            "hidden": hidden,
            "experts": 1,
            "top_k": 1,
            "expert_inner": inner,
            "attention": attention,
            "vocabulary": vocabulary,
            "gate": "softmax",
        }
    )
