"""All figures of the paper, and the table: what ``make figures`` runs.

    python experiments/figures/all.py [--real FOLDER] [--out FOLDER] [--quick]

One process after another would replay much again: here the figures share twins and what was found at equal quality.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import disputed
import equal_quality
import gaps
import kit
import pareto
import table
import tiers
import truncations
import warmup

FIGURES = {
    "pareto": pareto.main,
    "equal_quality": equal_quality.main,
    "warmup": warmup.main,
    "truncations": truncations.main,
    "tiers": tiers.main,
    "disputed": disputed.main,
    "gaps": gaps.main,
    "table": table.main,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one after another."""
    kit.read_arguments(__doc__, arguments)
    for name, draw in FIGURES.items():
        begun = time.perf_counter()
        draw(arguments)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    kit.run(main)
