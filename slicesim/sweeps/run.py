"""Run a sweep: what decides alike is decided once, what is finished is not run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from slicesim.errors import UserError
from slicesim.scenario import Scenario
from slicesim.simulation import Simulation, replay_together
from slicesim.sweeps.grid import Point, read_sweep
from slicesim.sweeps.store import Store
from slicesim.sweeps.table import row, table
from slicesim.trace import Trace
from slicesim.workers import in_processes, same_trace

#: Rows (points x tokens) that one replay keeps: bounds the memory, and what a kill can cost.
ROWS_AT_ONCE = 1_000_000


Progress = Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """What a sweep gave. keys: of the grid; found: points that were finished before; ran: points run now."""

    folder: Path
    keys: tuple[str, ...]
    frame: pd.DataFrame
    found: int
    ran: int


def sweep(
    path: str | Path, *, jobs: int = 1, out: str | Path | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """Run all points of a sweep file and return one row per point, also written to ``sweep.parquet``.

    jobs: processes at once; out: folder [default: results/NAME of the file], in which finished points are kept, so that
    a second call runs only what is missing; progress: called with the number of points done. Raises UserError before
    the first point runs if any of them is not valid.
    """
    return prepare_sweep(path, out).run(jobs, progress).frame


@dataclass(frozen=True)
class Task:
    """A point that is ready to run, and the digest that it is stored under."""

    point: Point
    simulation: Simulation
    digest: str

    @classmethod
    def of(cls, point: Point, trace: Trace | None) -> Task:
        """Load what a point names; raises UserError where its parts do not go together."""
        simulation = Simulation.prepare(point.scenario, trace)
        identity = json.dumps(simulation.identity(), sort_keys=True)
        return cls(point, simulation, hashlib.sha256(identity.encode()).hexdigest()[:32])


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep of which every point has been checked; nothing is written yet."""

    keys: tuple[str, ...]
    tasks: tuple[Task, ...]
    store: Store

    def run(self, jobs: int = 1, progress: Progress | None = None) -> Outcome:
        """Run what is missing, ``jobs`` processes at once, and write the table. progress: called with points done."""
        if jobs < 1:
            raise UserError(f"jobs must be at least 1, is {jobs}")
        with self.store.opened():
            missing = {task.digest: task for task in self.tasks if not self.store.has(task.digest)}
            found = done = sum(task.digest not in missing for task in self.tasks)

            def tick(more: int) -> None:
                if progress is not None:
                    progress(done + more)

            tick(0)
            for finished in _run(_batches(list(missing.values()), jobs), jobs, tick):
                for digest, summary in finished:
                    self.store.put(digest, summary)
                done += len(finished)
                tick(0)
            rows = [row(task.point.values, task.digest, self.store.get(task.digest)) for task in self.tasks]
            frame = self.store.write_table(table(rows))
        return Outcome(self.store.folder, self.keys, frame, found, len(self.tasks) - found)


def prepare_sweep(path: str | Path, out: str | Path | None = None) -> PreparedSweep:
    """Check a sweep file, all its points and the folder for the results. Raises UserError for the first mistake."""
    plan = read_sweep(path)
    store = Store(Path(out) if out is not None else Path("results") / plan.path.stem)
    traces: dict[tuple[str, str], Trace] = {}  # each one is opened once
    tasks = []
    for point in plan.points:
        settings = point.scenario.settings
        named = (settings.trace.path, settings.model)
        tasks.append(Task.of(point, traces.get(named)))
        traces[named] = tasks[-1].simulation.trace
    return PreparedSweep(plan.keys, tuple(tasks), store)


def _batches(tasks: Sequence[Task], jobs: int) -> list[list[Task]]:
    """Put together what shares its demand tables, in parts that fit the memory and give every job something to do."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.simulation.decision_key(), []).append(task)
    share = len(tasks) if len(groups) >= jobs else -(-len(tasks) // jobs)
    batches = []
    for group in groups.values():
        size = max(1, min(share, ROWS_AT_ONCE // group[0].simulation.tokens))
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return batches


Finished = list[tuple[str, str]]


def _run(batches: list[list[Task]], jobs: int, within: Progress) -> Iterator[Finished]:
    """Yield (digest, summary as JSON) of the points of each batch, as they finish.

    within: called with the points' worth of work done in the batch at hand, where it runs in this process.
    """
    if jobs == 1 or len(batches) <= 1:
        for batch in batches:
            simulations = [task.simulation for task in batch]
            whole, points = simulations[0].tokens, len(batch)

            def tick(tokens: int, whole: int = whole, points: int = points) -> None:
                within(points * tokens // whole)

            yield list(zip((task.digest for task in batch), _summaries(simulations, tick), strict=True))
        return
    calls = (
        (
            [task.digest for task in batch],
            [task.point.scenario for task in batch],
            batch[0].simulation.trace.digest,
        )
        for batch in batches
    )
    yield from in_processes(_in_worker, calls, jobs, kept="; finished points are kept")


def _in_worker(digests: list[str], scenarios: list[Scenario], trace_digest: str) -> Finished:
    """Run a batch in another process."""
    settings = scenarios[0].settings
    trace = same_trace(settings.trace.path, settings.model, trace_digest)
    simulations = [Simulation.prepare(scenario, trace) for scenario in scenarios]
    return list(zip(digests, _summaries(simulations), strict=True))


def _summaries(simulations: Sequence[Simulation], progress: Progress | None = None) -> list[str]:
    return [json.dumps(result.summary, allow_nan=False) for result in replay_together(simulations, progress)]
