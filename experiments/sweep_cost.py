"""What a point of a sweep costs: in one process, in two, and on a dask cluster of two workers; and what a task costs.

    python experiments/sweep_cost.py [--points N] [--tokens T]

Every point has a cache of its own, so nothing is shared between points: the dearest kind of sweep. Workers are warmed
up by a first sweep, so that neither the start of processes nor compiling counts; the start is told by itself. The trace
is SYNTHETIC (a twin), which does not change what a token costs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from slicesim.cluster import Cluster
from slicesim.sweeps import prepare_sweep
from slicesim.sweeps.run import sweep
from slicesim.workers import Pool, Processes

HERE = Path(__file__).resolve().parent

SWEEP = """\
scenario: {scenario}
policies: [slicemoe]
set: {{trace.max_tokens: {tokens}, trace.split: all-decode}}
search:
  method: latin-hypercube
  points: {points}
  seed: {seed}
  keys:
    cache.capacity_gb: {{low: 1.2, high: 3.6}}
"""

#: Calls that do nothing, for the cost of handing one out.
EMPTY = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=2000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep(_file(folder, "warm-up", 2, chosen.tokens, seed=0), out=folder / "warm-up")
        print(f"{chosen.points} points of {chosen.tokens:,} tokens (SYNTHETIC trace), slicemoe, nothing shared\n")
        print(f"checking and preparing a point: {_preparing(folder, chosen):.1f} ms")
        one = _seconds(folder, "one process", chosen, Processes(1))
        two = _seconds(folder, "two processes", chosen, Processes(2), against=one)
        start = time.perf_counter()
        with Cluster("local:2") as cluster:
            cluster.slots  # noqa: B018 - connects
            print(f"starting a scheduler and two workers: {time.perf_counter() - start:.1f} s")
            dask = _seconds(folder, "local:2", chosen, cluster, against=one)
            print(f"\nhanding out a call: {_empty(Processes(2)):.2f} ms to processes, {_empty(cluster):.2f} ms by dask")
        print(f"local:2 takes {dask / two:.2f} x the time of two processes")


def _file(folder: Path, name: str, points: int, tokens: int, seed: int) -> Path:
    file = folder / f"{name}.yaml"
    scenario = HERE.parent / "hwconfigs" / "mobile.yaml"
    file.write_text(SWEEP.format(scenario=scenario, points=points, tokens=tokens, seed=seed), encoding="utf-8")
    return file


def _preparing(folder: Path, chosen: argparse.Namespace) -> float:
    """Milliseconds a point."""
    file = _file(folder, "preparing", chosen.points, chosen.tokens, seed=1)
    start = time.perf_counter()
    prepare_sweep(file, folder / "preparing")
    return (time.perf_counter() - start) / chosen.points * 1e3


def _seconds(folder: Path, name: str, chosen: argparse.Namespace, pool: Pool, against: float | None = None) -> float:
    """Seconds for all points on warm workers, printed with what follows from them."""
    prepare_sweep(_file(folder, f"{name} warm", 4, chosen.tokens, seed=2), folder / f"{name} warm").run_on(pool)
    prepared = prepare_sweep(_file(folder, name, chosen.points, chosen.tokens, seed=1), folder / name)
    start, busy = time.perf_counter(), time.process_time()
    prepared.run_on(pool)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    gain = f", {against / seconds:.2f} x one process" if against else ""
    rate = chosen.points / seconds
    print(f"{name}: {1e3 / rate:.1f} ms a point, {rate:.1f} points/s, {rate * 3600:,.0f} an hour{gain}")
    print(f"  of the processor's time, this process takes {busy / chosen.points * 1e3:.1f} ms a point")
    return seconds


def _empty(pool: Pool) -> float:
    """Milliseconds for one of many calls that do nothing."""
    calls = [(number,) for number in range(EMPTY)]
    list(pool.each(abs, calls[:8]))
    start = time.perf_counter()
    list(pool.each(abs, calls))
    return (time.perf_counter() - start) / EMPTY * 1e3


if __name__ == "__main__":
    main()
