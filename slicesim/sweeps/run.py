"""Run a sweep: what decides alike is decided once, what is finished is not run again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from threading import Thread, current_thread, main_thread

import pandas as pd

from slicesim.errors import UserError
from slicesim.scenario import Scenario
from slicesim.simulation import Simulation, replay_together
from slicesim.sweeps.grid import Point, read_sweep
from slicesim.sweeps.store import Store
from slicesim.sweeps.table import row, table
from slicesim.trace import Trace, load_trace

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
    from joblib import Parallel, delayed  # type: ignore[import-untyped]
    from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]

    calls = (
        delayed(_in_worker)(
            os.getcwd(),
            [task.digest for task in batch],
            [task.point.scenario for task in batch],
            batch[0].simulation.trace.digest,
        )
        for batch in batches
    )
    try:
        yield from Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")(calls)
    except TerminatedWorkerError:
        raise UserError(
            "a worker process was killed (out of memory?): run again with fewer --jobs; finished points are kept"
        ) from None


def _in_worker(folder: str, digests: list[str], scenarios: list[Scenario], trace_digest: str) -> Finished:
    """Run a batch in another process, to which only plain data goes: it opens trace and strategies by itself.

    folder: from which relative paths are read; a worker may have been started in another one.
    """
    _settle()
    os.chdir(folder)
    settings = scenarios[0].settings
    trace = _trace(settings.trace.path, settings.model, trace_digest)
    simulations = [Simulation.prepare(scenario, trace) for scenario in scenarios]
    return list(zip(digests, _summaries(simulations), strict=True))


@cache
def _settle() -> None:
    """Make a worker process heed its parent alone.

    It leaves Ctrl-C to the parent, and ends when that is killed: joblib's workers would wait for work for minutes.
    """
    if current_thread() is main_thread():  # elsewhere no signals arrive
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=2)
def _trace(path: str, model: str, digest: str) -> Trace:
    """Open a trace once per process; the digest keeps a worker from using what the file held in an earlier sweep."""
    trace = load_trace(path, model=model)
    if trace.digest != digest:
        raise UserError(f"{path}: the trace was changed while the sweep runs")
    return trace


def _summaries(simulations: Sequence[Simulation], progress: Progress | None = None) -> list[str]:
    return [json.dumps(result.summary, allow_nan=False) for result in replay_together(simulations, progress)]
