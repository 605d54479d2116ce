"""How far policies are from the lower bound on flash bytes, on recorded routing: the table of docs/bound.md.

    python experiments/headroom.py PATH/TO/law.npz PATH/TO/summary.npz

One row per trace, bit pair and cache: flash MB per decode token and, in brackets, how many times the bound that is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import slicesim

POLICIES = ("lru-high", "lru-slices", "dbsc", "belady", "belady-slices")
CONFIG = Path(__file__).resolve().parents[1] / "hwconfigs" / "mobile.yaml"


def main(traces: list[str]) -> None:
    """Print the table."""
    print(f"| trace, bits, cache | {' | '.join(POLICIES)} |\n|---|{'---|' * len(POLICIES)}")
    for trace in traces:
        for high, low in ((8, 4), (6, 3)):
            for capacity in (1.8, 2.4, 3.6):
                keys = {"amat.high_bits": high, "amat.low_bits": low, "cache.capacity_gb": capacity}
                split = {"trace.split": "all-decode"}
                results = slicesim.compare(CONFIG, POLICIES, trace=trace, set=keys | split)
                cells = [_cell(result.decode) for result in results]
                print(f"| {Path(trace).stem}, {high}/{low}, {capacity} GB | {' | '.join(cells)} |", flush=True)


def _cell(decode: dict) -> str:
    read = decode["bytes"]["flash_read"] / decode["tokens"]
    return f"{read / 1e6:.1f} ({decode['optimum']['headroom']:.3f}x)"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
