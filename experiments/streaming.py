"""A trace larger than memory: tokens made on the fly, rows written as they come; prints speed and peak memory.

    .venv/bin/python experiments/streaming.py [TOKENS]     (10 million by default; routing is SYNTHETIC)

Requests are stretches of 1,000 tokens, drawn from a pool that is made once from the shipped profile.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slicesim.scenario import Scenario
from slicesim.simulation import Simulation
from slicesim.trace import TraceBlock, TraceHeader
from slicesim.trace.synth import synthesise

ROOT = Path(__file__).resolve().parents[1]
POOL, REQUEST = 4000, 1000


class Endless:
    """A trace that is nowhere stored."""

    name = "made on the fly"
    digest = "none"

    def __init__(self, tokens: int) -> None:
        pool = synthesise(ROOT / "traces" / "deepseek-v2-lite-twin.yaml", tokens=POOL, seed=0, prompt_fraction=0.0)
        self.header: TraceHeader = pool.header.model_copy(update={"has_logits": False})
        self.pool = pool.block
        self.requests = tokens // REQUEST

    def request_lengths(self) -> dict[int, int]:
        """All are equally long."""
        return dict.fromkeys(range(self.requests), REQUEST)

    def blocks(self) -> Iterator[TraceBlock]:
        """One block per request."""
        rng = np.random.default_rng(1)
        for request in range(self.requests):
            part = self.pool.part(start := int(rng.integers(POOL - REQUEST)), start + REQUEST)
            yield TraceBlock(np.full(REQUEST, request), np.arange(REQUEST), part.phase, part.ids, part.scores)


def main() -> None:
    """Replay and save."""
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    keys = {"trace.split": "all-decode"}
    scenario = Scenario.load(ROOT / "hwconfigs" / "mobile.yaml", policy="slicemoe", assignments=keys)
    simulated = Simulation.prepare(scenario, Endless(tokens))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = simulated.run()
        result.save(Path(folder) / "result")
        size = sum(file.stat().st_size for file in (Path(folder) / "result").iterdir())
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    done = result.decode["tokens"]
    print(f"{done:,} tokens (SYNTHETIC) in {seconds:.0f} s, saved: {done / seconds:,.0f} tokens/s; ", end="")
    print(f"peak memory {peak:,.0f} MiB, result {size / 2**20:,.0f} MiB on disk")


if __name__ == "__main__":
    main()
