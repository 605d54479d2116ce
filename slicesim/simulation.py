"""The whole way: scenario -> trace -> decide -> schedule -> account -> result."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicesim.account import Decided, account
from slicesim.ahead import ahead
from slicesim.bound import FlashBound
from slicesim.checks import (
    all_resident_warning,
    capacity_bytes,
    check_capacity,
    check_device,
    check_flash,
    check_schedule,
    check_scores,
    check_trace_fits,
    cliff_warning,
    idle_prefetch_warning,
    other_model_warning,
    slice_sizes,
)
from slicesim.clock import Clock
from slicesim.decide import DecodeDemand, Demand, Request, SliceSizes, decide
from slicesim.decide.residency import Residency
from slicesim.decide.settle import settled
from slicesim.decide.visits import Visitor
from slicesim.errors import UserError
from slicesim.hardware import Hardware
from slicesim.models import ModelGeometry, int8_bytes, load_model
from slicesim.policies import Constraint, Policy, build_policy
from slicesim.policies.wishes import with_wishes
from slicesim.quality import GateMass
from slicesim.scenario import Scenario
from slicesim.schedule import LOWERING_KEYS, Lowering, Parallel, Plan, Shapes, Timeline, Workload
from slicesim.trace import Trace, load_trace
from slicesim.version import __version__

if TYPE_CHECKING:
    from slicesim.result import Result
    from slicesim.trace.demand import DemandTrace

#: Called after every demand table with the number of trace tokens done.
Progress = Callable[[int], None]


def simulate(
    config: str | Path | Scenario,
    *,
    model: str | None = None,
    trace: str | Path | Trace | DemandTrace | None = None,
    policy: str | None = None,
    set: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    headroom: bool = False,
) -> Result:
    """Run one scenario and return its Result.

    headroom: work out the lower bound on flash bytes too (``decode["optimum"]``), which takes about a second.
    config: a YAML file, or a Scenario; model, trace, policy and ``set`` (``{"cache.capacity_gb": 2.4}``) override it
    (they need a file). ``trace`` may also be a trace in memory. Raises UserError for whatever the user can put right.
    """
    in_memory = None if trace is None or isinstance(trace, (str, Path)) else trace
    if isinstance(config, Scenario):
        if model is not None or policy is not None or set or isinstance(trace, (str, Path)):
            raise UserError("simulate: overrides need the scenario's file, not a Scenario that is already built")
        scenario = config
    else:
        path = trace if isinstance(trace, (str, Path)) else None
        scenario = Scenario.load(config, model=model, trace=path, policy=policy, assignments=set)
    from slicesim.preparation import prepare  # which knows this module

    return prepare(scenario, in_memory).run(progress, headroom)


def compare(
    config: str | Path,
    policies: Sequence[str],
    *,
    model: str | None = None,
    trace: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Run one scenario under several policies on the same trace; results in the order of ``policies``.

    ``all`` stands for every preset that the trace allows. Each one bears its headroom (``decode["optimum"]``).
    """
    from slicesim.comparison import prepare  # which knows this module

    prepared = prepare(config, policies, model=model, trace=trace, set=set)
    return [simulation.run(progress, headroom=True) for simulation in prepared.simulations]


class Replay(ABC):
    """What can be put on a device's clock: a replay of routing, or of a recorded load (``DemandSimulation``)."""

    scenario: Scenario
    hardware: Hardware

    @property
    @abstractmethod
    def constraint(self) -> Constraint:
        """What holds its miss rate down."""

    @abstractmethod
    def decided(self, residency: Residency | None = None) -> Iterator[tuple[Demand, Workload, Decided]]:
        """Yield each demand table, what it asks of a device, and what it says by itself.

        residency: takes snapshots of the cache on the way, where there is one.
        """

    @abstractmethod
    def clock(self) -> Clock:
        """Return its device at time 0."""

    @abstractmethod
    def decision_key(self) -> str:
        """Return what its demand tables follow from."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the head of its summary."""

    @abstractmethod
    def flash_bound(self) -> FlashBound:
        """Return what bounds its flash bytes from the demand tables; raises UserError where nothing is decided."""

    def run(self, progress: Progress | None = None, headroom: bool = False) -> Result:
        """Replay the trace and collect the result, with its headroom where asked for."""
        (result,) = replay_together([self], progress, headroom)
        return result

    def tables(self) -> Iterator[tuple[Demand, Plan, Timeline]]:
        """Yield each demand table with its plan and timeline, on one clock."""
        clock = self.clock()
        for demand, work, _ in self.decided():
            yield demand, *clock.run(work)
        clock.finish()


def replay_together(
    simulations: Sequence[Replay], progress: Progress | None = None, headroom: bool = False
) -> Iterator[Result]:
    """Replay simulations whose decisions are the same (one ``decision_key``): decide once, time each one by itself.

    Yields the results in the given order, once all are through. Demand tables are passed on one by one, none is kept;
    the rows that each simulation has of its own are, about 160 bytes for a token, or in a file where they are many.
    Raises UserError where a simulated time is too long to count.
    """
    if len(simulations) > 1 and len({simulation.decision_key() for simulation in simulations}) > 1:
        raise ValueError("simulations that decide differently cannot be replayed together")
    from slicesim.result import Result, Window
    from slicesim.rows import Rows

    first = simulations[0]
    clocks = [simulation.clock() for simulation in simulations]
    windows = [Window(simulation.scenario.settings.schedule.timeline_tokens) for simulation in simulations]
    rows = [Rows(getattr(simulation.constraint, "start_step", 0)) for simulation in simulations]
    bound = first.flash_bound() if headroom else None
    residency = Residency() if any(window.tokens_left for window in windows) else None
    done = 0
    for demand, work, decided in first.decided(residency):
        if bound is not None:
            bound.add(demand)
        for clock, window, own in zip(clocks, windows, rows, strict=True):
            plan, timeline = clock.run(work)
            own.add(account(decided, plan, timeline, clock.hardware))
            window.add(demand, plan, timeline)
        done += len(demand.token) if isinstance(demand, DecodeDemand) else demand.prompt_tokens
        if progress is not None:
            progress(done)
    if not done:
        raise UserError(f"{first.scenario.settings.trace.path}: the trace holds no tokens")
    for clock in clocks:
        clock.finish()
    bound_bytes = None if bound is None else bound.decode_bytes()[0]
    for simulation, window in zip(simulations, windows, strict=True):
        yield Result.collect(simulation.describe(), simulation.constraint, rows.pop(0), window, bound_bytes, residency)


@dataclass(frozen=True)
class Simulation(Replay):
    """A scenario with everything that it names loaded and checked against each other."""

    scenario: Scenario
    trace: Trace
    model: ModelGeometry
    policy: Policy
    sizes: SliceSizes
    hardware: Hardware
    warnings: tuple[str, ...]

    @classmethod
    def prepare(cls, scenario: Scenario, trace: Trace | None = None) -> Simulation:
        """Load what the scenario names; raises UserError where the parts do not fit together."""
        scenario = with_wishes(scenario)
        settings = scenario.settings
        check_device(scenario)
        check_schedule(scenario)
        trace = trace or load_trace(settings.trace.path, scenario.where("trace", "path"), settings.model)
        model = load_model(settings.model, scenario.where("model"))
        check_trace_fits(scenario, trace, model)
        policy = build_policy(scenario, has_logits=trace.header.has_logits)
        check_scores(scenario, trace, policy)
        policy = settled(policy, scenario, trace)
        sizes = slice_sizes(scenario, trace, model, policy)
        check_capacity(scenario, trace, model, sizes, policy)
        check_flash(scenario, model, sizes)
        simulation = cls(scenario, trace, model, policy, sizes, Hardware.of(settings.device), ())
        warnings = (
            *scenario.notes,
            *other_model_warning(trace, model),
            *cliff_warning(simulation.request()),
            *all_resident_warning(policy),
            *idle_prefetch_warning(policy, sizes),
        )
        return replace(simulation, warnings=warnings)

    @property
    def tokens(self) -> int:
        """Trace tokens that a run goes through."""
        total = sum(self.trace.request_lengths().values())
        return min(total, self.scenario.settings.trace.max_tokens or total)

    @property
    def constraint(self) -> Constraint:
        """What holds the miss rate down."""
        return self.policy.constraint

    def clock(self) -> Clock:
        """Return the device at time 0."""
        return Clock(self.scenario, self.hardware, self.sizes, self.model)

    def decided(self, residency: Residency | None = None) -> Iterator[tuple[Demand, Workload, Decided]]:
        """Yield each demand table, what it asks of a device, and what it says by itself."""
        shapes = Shapes(self.model, self.sizes, self.trace.header.layers)
        lower = Lowering(shapes, self.scenario.settings.schedule)
        spread = self._spread()
        decision = decide(self.request(), residency)
        tables = ((demand, spread(demand, lower(demand))) for demand in decision)
        for demand, work in ahead(tables) if decision.is_compiled else tables:
            mass = GateMass.of(demand, self.sizes, self.scenario.settings.amat)
            yield demand, work, Decided.of(demand, work, self.sizes, mass)

    def _spread(self) -> Callable[[Demand, Workload], Workload]:
        """Return what a demand table's workload becomes on several devices; on one it stays as it is."""
        links, section = self.hardware.interconnect, self.scenario.settings.trace
        if links is None:
            return lambda demand, work: work
        visit = Visitor(self.policy.placement, links.devices, self.trace, section.split, section.max_tokens)
        parallel = Parallel(visit.placed.device, self.model.hidden)
        return lambda demand, work: parallel(work, visit(demand))

    def flash_bound(self) -> FlashBound:
        """Return what bounds its flash bytes from the demand tables."""
        return FlashBound(self.request())

    def identity(self) -> dict[str, Any]:
        """Return all that the figures follow from, as plain data: values and contents, no paths and no sources."""
        settings = self.scenario.settings.model_dump(mode="json", exclude_none=True)
        settings["trace"].pop("path")
        return {
            **settings,
            "device": _figures(settings["device"]),
            "slicesim_version": __version__,
            "trace_sha256": self.trace.digest,
            "model": self.model.model_dump(mode="json"),
            "policy": {"label": self.policy.label, **self.policy.describe(), "code_sha256": self.policy.code_digests()},
            "policy_files_sha256": self.policy.file_digests(),
        }

    def decision_key(self) -> str:
        """Return what decide and lowering see of the identity: simulations of one key share their demand tables."""
        seen = self.identity()
        seen["lowering"] = {key: seen["schedule"].get(key) for key in LOWERING_KEYS}
        seen["devices"] = self.hardware.devices
        for unseen in ("device", "schedule", "software"):
            seen.pop(unseen, None)
        return json.dumps(seen, sort_keys=True)

    def describe(self) -> dict[str, Any]:
        """Return the head of the summary: version, resolved scenario, trace."""
        settings, header = self.scenario.settings, self.trace.header
        resolved = settings.model_dump(mode="json", exclude_none=True)
        resolved["policy"] = self.policy.describe()
        return {
            "slicesim_version": __version__,
            "scenario": resolved,
            "policy": self.policy.label,
            "model": {
                "name": self.model.name,
                "expert_weights": self.model.expert_weights,
                "msb_bytes": self.sizes.msb_bytes.tolist(),
                "lsb_bytes": self.sizes.lsb_bytes.tolist(),
                "non_expert_bytes": int8_bytes(self.model.non_expert_weights),
            },
            "trace": {
                "path": self.trace.name,
                "sha256": self.trace.digest,
                "tokens": self.tokens,
                **header.model_dump(mode="json", exclude_none=True, exclude={"expert_bytes"}),
            },
            "warnings": list(self.warnings),
        }

    def request(self) -> Request:
        """Return what the decision plane is asked."""
        settings = self.scenario.settings
        return Request(
            trace=self.trace,
            split=settings.trace.split,
            max_tokens=settings.trace.max_tokens,
            policy=self.policy,
            sizes=self.sizes,
            capacity_bytes=capacity_bytes(self.scenario),
            scope_layers=settings.cache.scope == "layer",
            reset_each_request=settings.cache.reset == "request",
            seed=settings.seed,
        )


def _figures(part: Any) -> Any:
    """Reduce the coefficients of a device to their values."""
    if not isinstance(part, dict):
        return part
    return part["value"] if "value" in part else {key: _figures(value) for key, value in part.items()}
