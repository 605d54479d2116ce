"""Run a sweep: what decides alike is decided once, what is finished is not run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from slicesim.errors import UserError
from slicesim.report.front import front_plot
from slicesim.scenario import Scenario
from slicesim.simulation import Simulation, replay_together
from slicesim.sweeps.figures import figures
from slicesim.sweeps.file import Point, Sweep, read_sweep
from slicesim.sweeps.goals import Goals, Score
from slicesim.sweeps.search import Values
from slicesim.sweeps.store import FRONT, POINTS, TABLE, Store
from slicesim.sweeps.table import row, table
from slicesim.trace import Trace
from slicesim.workers import Pool, Processes, same_trace

#: Rows (points x tokens) that one replay keeps: bounds the memory, and what a kill can cost.
ROWS_AT_ONCE = 1_000_000


Progress = Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """What a sweep gave.

    keys: those that vary; found: points that were finished before; ran: points run now; refused: drawn points that are
    no valid scenario, why.
    """

    folder: Path
    keys: tuple[str, ...]
    goals: Goals
    frame: pd.DataFrame
    found: int
    ran: int
    refused: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """What the folder holds."""
        return (TABLE, f"{POINTS}/", *((FRONT,) if len(self.goals.objectives) > 1 else ()))


def sweep(
    path: str | Path,
    *,
    jobs: int = 1,
    out: str | Path | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run all points of a sweep file and return one row per point, also written to ``sweep.parquet``.

    jobs: processes at once; out: folder [default: results/NAME of the file], in which finished points are kept, so that
    a second call runs only what is missing; cluster: ``tcp://HOST:PORT`` of a dask scheduler, or ``local:N``, instead
    of jobs; progress: called with the number of points done. The table is the same wherever points are run. Raises
    UserError before the first point runs if any of them is not valid.
    """
    return prepare_sweep(path, out).run(jobs, progress, cluster).frame


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


#: A point that was drawn: ready to run, or why it is no valid scenario.
Drawn = Task | UserError


@dataclass(frozen=True)
class Plan:
    """A sweep's points, made ready round by round; each trace is opened once."""

    sweep: Sweep
    traces: dict[tuple[str, str], Trace] = field(default_factory=dict)

    def ready(self, asked: Sequence[Values]) -> list[Drawn]:
        """Lay values over the scenario; policies vary slowest. Raises UserError for the first bad point of a grid."""
        return [self._drawn(base, values) for base in range(len(self.sweep.bases)) for values in asked]

    def _drawn(self, base: int, values: Values) -> Drawn:
        try:
            point = self.sweep.point(self.sweep.bases[base], values)
            named = (point.scenario.settings.trace.path, point.scenario.settings.model)
            task = Task.of(point, self.traces.get(named))
        except UserError as fault:
            if not self.sweep.search.is_drawn:
                raise
            return fault
        self.traces[named] = task.simulation.trace
        return task


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep whose file and first round (all of it, but for a bayesian search) are checked; nothing is written yet.

    tasks: the valid points of the first round.
    """

    plan: Plan
    first: tuple[Drawn, ...]
    store: Store

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Points of the first round that are valid."""
        return tuple(task for task in self.first if isinstance(task, Task))

    @property
    def size(self) -> int:
        """Points of all rounds, those that turn out not to be valid among them."""
        return self.plan.sweep.size

    def run(self, jobs: int = 1, progress: Progress | None = None, cluster: str | None = None) -> Outcome:
        """Run what is missing and write the table. jobs: processes at once, or cluster: as for ``sweep``.

        progress: called with points done.
        """
        search, goals = self.plan.sweep.search, self.plan.sweep.goals
        with _pool(jobs, cluster) as pool, self.store.opened():
            work = _Work(self.store, pool, progress)
            rounds = search.rounds(goals)
            drawn: list[Drawn] = []
            while asked := rounds.ask():
                ready = self.plan.ready(asked) if drawn else list(self.first)
                work.finish([task for task in ready if isinstance(task, Task)])
                rounds.tell(self._score(one) for one in ready)
                drawn += ready
                work.tick(to=len(drawn))
            tasks = [task for task in drawn if isinstance(task, Task)]
            if search.is_drawn:  # the same point may be drawn twice
                tasks = list({task.digest: task for task in tasks}.values())
            rows = (row(task.point.values, task.digest, self.store.get(task.digest)) for task in tasks)
            frame = self.store.write_table(table(list(rows), goals))
            with_front = len(goals.objectives) > 1
            self.store.write_front((lambda path: front_plot(frame, goals, path)) if with_front else None)
        refused = tuple(dict.fromkeys(str(fault) for fault in drawn if isinstance(fault, UserError)))
        return Outcome(self.store.folder, self.plan.sweep.keys, goals, frame, work.found, work.ran, refused)

    def _score(self, one: Drawn) -> Score | None:
        """Judge a finished point."""
        if not isinstance(one, Task):
            return None
        return self.plan.sweep.goals.score(figures(self.store.get(one.digest)))


def prepare_sweep(path: str | Path, out: str | Path | None = None) -> PreparedSweep:
    """Check a sweep file, its first points and the folder for the results. Raises UserError for the first mistake.

    Points of a grid must all be valid, of those that are drawn at least one.
    """
    sweep = read_sweep(path)
    store = Store(Path(out) if out is not None else Path("results") / sweep.path.stem)
    plan = Plan(sweep)
    first = tuple(plan.ready(sweep.search.rounds(sweep.goals).ask()))
    prepared = PreparedSweep(plan, first, store)
    if not prepared.tasks:
        raise next(fault for fault in first if isinstance(fault, UserError))
    return prepared


def _pool(jobs: int, cluster: str | None) -> AbstractContextManager[Pool]:
    if cluster is None:
        if jobs < 1:
            raise UserError(f"jobs must be at least 1, is {jobs}")
        return nullcontext(Processes(jobs))
    if jobs != 1:
        raise UserError("jobs and cluster do not go together: a cluster has as many workers as were started")
    from slicesim.cluster import Cluster

    return Cluster(cluster)


class _Work:
    """Points of all rounds as they are finished. found: in the store before; ran: now."""

    def __init__(self, store: Store, pool: Pool, progress: Progress | None) -> None:
        self._store, self._pool, self._progress = store, pool, progress
        self._seen: set[str] = set()
        self._done = self.found = self.ran = 0

    def tick(self, more: int = 0, to: int | None = None) -> None:
        """Say how many points are done."""
        self._done = self._done if to is None else to
        if self._progress is not None:
            self._progress(self._done + more)

    def finish(self, tasks: Sequence[Task]) -> None:
        """Run what the store does not have, each point once."""
        new = {task.digest: task for task in tasks if task.digest not in self._seen}
        missing = [task for digest, task in new.items() if not self._store.has(digest)]
        self._seen.update(new)
        self.found += len(new) - len(missing)
        self.tick(to=self._done + len(tasks) - len(missing))
        for finished in _run(missing, self._pool, self.tick):
            for digest, summary in finished:
                self._store.put(digest, summary)
            self.ran += len(finished)
            self.tick(to=self._done + len(finished))


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


def _run(tasks: Sequence[Task], pool: Pool, within: Progress) -> Iterator[Finished]:
    """Yield (digest, summary as JSON) of the points of each batch, as they finish.

    within: called with the points' worth of work done in the batch at hand, where it runs in this process.
    """
    if not tasks:
        return
    batches = _batches(tasks, pool.slots)
    if pool.is_here and min(pool.slots, len(batches)) == 1:
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
    yield from pool.each(_in_worker, calls, kept="; finished points are kept")


def _in_worker(digests: list[str], scenarios: list[Scenario], trace_digest: str) -> Finished:
    """Run a batch in another process."""
    settings = scenarios[0].settings
    trace = same_trace(settings.trace.path, settings.model, trace_digest)
    simulations = [Simulation.prepare(scenario, trace) for scenario in scenarios]
    return list(zip(digests, _summaries(simulations), strict=True))


def _summaries(simulations: Sequence[Simulation], progress: Progress | None = None) -> list[str]:
    return [json.dumps(result.summary, allow_nan=False) for result in replay_together(simulations, progress)]
