"""The phone rows: Qwen3-30B-A3B decoding from flash on an OnePlus 15R, replayed as demand traces."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.demand_simulation import DemandSimulation
from slicesim.hardware.units import PS_PER_S
from slicesim.result import Result
from slicesim.scenario import Scenario
from slicesim.trace.demand import DemandHeader, DemandTrace
from slicesim.validation.reference import reference_rows
from slicesim.validation.rows import Kind, Row, Table

#: Q4_K_M: an expert is 3 x 884,736 bytes (Q4_K), with its down matrix in Q6_K in 24 of 48 layers: 2,856,960 on average.
#: O_DIRECT reads whole pages, so a matrix costs 956,416 (1,051 MiB a token without a cache / 384 experts / 3). The file
#: of 18,556 MB less 6,144 experts and the input embedding (175 MB) leaves 828 MB that each token reads.
_HEADER: Mapping[str, Any] = {
    "model": "Qwen3-30B-A3B",
    "layers": 48,
    "top_k": 8,
    "read_bytes": 956_416,
    "reads_per_expert": 3,
    "expert_bytes": 2_856_960,
    "non_expert_bytes": 828_000_000,
    "source": "BigMoeOnEdge commit 2d4f2b1, docs/bench-data/2026-07-20-cache-replay: spread over measured quantiles",
    "licence": "Apache-2.0",
}

#: Prime, so that every place is taken once.
_STRIDE = 97

QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class Figures:
    """Decode speed of one configuration: tokens over total time, quantiles of 1 / token time, seconds per token."""

    tokens_per_s: float
    rate_p5: float
    rate_p50: float
    rate_p95: float
    io_s: float
    compute_s: float
    mean_bytes: float

    @classmethod
    def measured(cls, row: Mapping[str, str]) -> Figures:
        """Read a row of phone_decode.csv."""
        return cls(**{name: float(row[name]) for name in cls.__dataclass_fields__})

    @classmethod
    def simulated(cls, result: Result, insert_latency_ps: float) -> Figures:
        """Read a run. I/O on the phone is the time of the batches of reads with the copies of what they bring: waiting
        for flash, and the insert latency of each layer that read."""
        tokens = result.tokens
        latency = tokens["latency_ps"].to_numpy() / PS_PER_S
        layers = np.minimum(tokens["flash_reads"].to_numpy(), 48)
        io = (tokens["flash_stall_ps"].to_numpy() + insert_latency_ps * layers) / PS_PER_S
        p5, p50, p95 = np.percentile(1 / latency, (5, 50, 95))
        return cls(
            tokens_per_s=len(tokens) / float(latency.sum()),
            rate_p5=float(p5),
            rate_p50=float(p50),
            rate_p95=float(p95),
            io_s=float(io.mean()),
            compute_s=float((latency - io).mean()),
            mean_bytes=float(tokens["flash_read_bytes"].mean()),
        )


def phone_rows() -> list[dict[str, str]]:
    """B1, B3 and B5, summarised."""
    return reference_rows("phone_decode")


def trace_of(
    row: Mapping[str, str], flash_read_bytes: NDArray[np.int64] | None = None, tokens: int = 256
) -> DemandTrace:
    """Return a row's load: the bytes given, or as many tokens spread over the quantiles of what was measured."""
    cached, made_up = row["cache_mib"] != "0", flash_read_bytes is None
    header = DemandHeader(**_HEADER, context=int(row["prompt_tokens"]), kept=cached, synthetic=made_up)
    read = spread_bytes(row, tokens) if flash_read_bytes is None else flash_read_bytes
    whole = header.layers * header.top_k * header.expert_size
    # Bytes read are pages, a little more than the experts: misses in experts, then what is left of a token's experts.
    missed = np.minimum(read / (header.reads_per_expert * header.read_bytes) * header.expert_size, whole)
    return DemandTrace.of(header, read, hit_bytes=np.round(whole - missed).astype(np.int64), name=row["id"])


def spread_bytes(row: Mapping[str, str], tokens: int) -> NDArray[np.int64]:
    """Bytes of each token: evenly over the measured quantiles, straight lines between them, scaled to the mean.

    Large and small tokens alternate in a fixed order, as they did on the phone in one of its own.
    """
    levels = (np.arange(tokens) * _STRIDE % tokens + 0.5) / tokens
    known = [float(row[f"bytes_q{q}"]) for q in QUANTILES]
    values = np.interp(levels, np.array(QUANTILES) / 100, known)
    return np.asarray(np.round(values * float(row["mean_bytes"]) / values.mean()), dtype=np.int64)


def replay(config: Path, trace: DemandTrace, changes: Mapping[str, Any] | None = None) -> Figures:
    """Run a load on the phone; ``changes`` are made as ``--set`` makes them."""
    scenario = Scenario.load(config, model="qwen3-30b-a3b", assignments={"trace.path": trace.name, **(changes or {})})
    software = scenario.settings.software
    insert_ps = software.insert_latency_us.value * 1e6 if software is not None and trace.header.kept else 0.0
    return Figures.simulated(DemandSimulation.prepare(scenario, trace).run(), insert_ps)


#: Figures of a row: field of Figures, what it is, and whether it is asked for in the table of logs too.
_SHOWN = (
    ("tokens_per_s", "tokens/s, mean"),
    ("rate_p50", "1 / token time, median"),
    ("rate_p5", "1 / token time, p5"),
    ("rate_p95", "1 / token time, p95"),
    ("io_s", "I/O, s/token"),
    ("compute_s", "computing, s/token"),
)


def phone_table(config: Path) -> Table:
    """The three rows, from what ships."""
    rows: list[Row] = []
    for facts in phone_rows():
        rows += _rows(facts["id"], facts, replay(config, trace_of(facts)))
    text = (
        "OnePlus 15R, Qwen3-30B-A3B Q4_K_M, 256 tokens, 4 lanes, serial I/O, no cache (B1), 2000 MiB (B3), 4000 MiB "
        "(B5). Bytes per token are given: spread over the quantiles that were measured. Fitted on B1, B3 and the "
        "flash table: `flash.bandwidth_gbs`, `flash.gap_us`, `cpu.gflops`, `software.insert_latency_us`, "
        "`software.insert_bandwidth_gbs` (`experiments/fit_phone.py`). B5 is a prediction."
    )
    return Table("Decoding from flash on a phone", text, rows)


def phone_log_table(config: Path, data: Path | None) -> Table:
    """The same rows with the phone's own sequence of bytes per token, where the logs are at hand."""
    rows: list[Row] = []
    for facts in phone_rows():
        log = None if data is None else data / "reference" / "phone-oneplus15r" / f"{_LOGS[facts['id']]}.csv"
        figures = None if log is None or not log.is_file() else replay(config, trace_of(facts, _bytes(log)))
        rows += _rows(f"{facts['id']} log", facts, figures)
    text = "The recorded sequence of bytes, token by token (its files do not ship)."
    return Table("The same, from the per-token logs", text, rows)


_LOGS = {"B1": "qwen_stream", "B3": "qwen_c2000_l4", "B5": "qwen_c4000_l4"}


def _bytes(log: Path) -> NDArray[np.int64]:
    with log.open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return np.array([int(row["read_bytes"]) for row in rows], dtype=np.int64)


def _rows(name: str, facts: Mapping[str, str], simulated: Figures | None) -> list[Row]:
    measured = Figures.measured(facts)
    kind: Kind = "predicted" if facts["id"] == "B5" else "fitted"
    bytes_read = None if simulated is None else simulated.mean_bytes / 1e6
    needs_data = name.endswith("log")
    given = Row(name, "flash read, MB/token", measured.mean_bytes / 1e6, bytes_read, "input", needs_data=needs_data)
    return [
        *(
            Row(
                name, what, getattr(measured, key), None if simulated is None else getattr(simulated, key), kind,
                needs_data=needs_data,
            )
            for key, what in _SHOWN
        ),
        given,
    ]  # fmt: skip
