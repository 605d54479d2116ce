"""All figures, of the paper and beyond it, and the table: what ``make figures`` runs.

    python experiments/figures/all.py [--real FOLDER] [--out FOLDER] [--quick]

The figures of a group share twins, and what was found at equal quality; each group has a process of its own.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import beyond_bandwidth
import beyond_critical
import beyond_devices
import beyond_equal_error
import beyond_own_policy
import disputed
import equal_quality
import gaps
import kit
import pareto
import table
import tiers
import truncations
import warmup
import warmup_equal

GROUPS = (
    (equal_quality, tiers, disputed, gaps),
    (pareto, warmup, warmup_equal, truncations),
    (beyond_own_policy, beyond_equal_error, beyond_critical, beyond_devices, beyond_bandwidth),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw everything, then write the table; where quick, in this process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if kit.read_arguments(__doc__, given).quick:
        for group in range(len(GROUPS)):
            _draw(group, given)
    else:
        with ProcessPoolExecutor(len(GROUPS), multiprocessing.get_context("spawn")) as pool:
            for done in [pool.submit(_draw, group, given) for group in range(len(GROUPS))]:
                done.result()
    table.main(given)


def _draw(group: int, arguments: Sequence[str]) -> None:
    """Draw the figures of one group, one after another."""
    for figure in GROUPS[group]:
        begun = time.perf_counter()
        figure.main(arguments)
        print(f"{figure.__name__}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    kit.run(main)
