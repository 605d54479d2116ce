"""The whole way: scenario -> trace -> decide -> schedule -> account -> result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicesim.account import Columns, account
from slicesim.checks import (
    capacity_bytes,
    check_capacity,
    check_device,
    check_scores,
    check_trace_fits,
    cliff_warning,
    other_model_warning,
    slice_sizes,
)
from slicesim.decide import DecodeDemand, Demand, Request, SliceSizes, decide
from slicesim.errors import UserError
from slicesim.hardware import Hardware
from slicesim.models import ModelGeometry, int8_bytes, load_model
from slicesim.policies import Policy, build_policy
from slicesim.quality import GateMass
from slicesim.scenario import Scenario
from slicesim.schedule import Lowering, Plan, Planner, Shapes, SoftwareCosts, Timeline, engine
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
) -> Result:
    """Run one scenario and return its Result.

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

    return prepare(scenario, in_memory).run(progress)


def compare(
    config: str | Path,
    policies: Sequence[str],
    *,
    model: str | None = None,
    trace: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Run one scenario under several policies on the same trace; results in the order of ``policies``."""
    simulations = prepare_comparison(config, policies, model=model, trace=trace, set=set)
    return [simulation.run(progress) for simulation in simulations]


def prepare_comparison(
    config: str | Path,
    policies: Sequence[str],
    *,
    model: str | None = None,
    trace: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
) -> list[Simulation]:
    """Check all policies before the first one runs; the trace is read once."""
    shared: Trace | None = None
    simulations = []
    for policy in policies:
        scenario = Scenario.load(config, model=model, trace=trace, policy=policy, assignments=set)
        simulations.append(Simulation.prepare(scenario, shared))
        shared = simulations[0].trace
    return simulations


@dataclass(frozen=True)
class Simulation:
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
        settings = scenario.settings
        check_device(scenario)
        trace = trace or load_trace(settings.trace.path, scenario.where("trace", "path"), settings.model)
        model = load_model(settings.model, scenario.where("model"))
        check_trace_fits(scenario, trace, model)
        policy = build_policy(scenario, has_logits=trace.header.has_logits)
        check_scores(scenario, trace, policy)
        sizes = slice_sizes(scenario, trace, model, policy)
        check_capacity(scenario, trace, model, sizes)
        warnings = (*other_model_warning(trace, model), *cliff_warning(scenario, trace, policy, sizes))
        return cls(scenario, trace, model, policy, sizes, Hardware.of(settings.device), warnings)

    @property
    def tokens(self) -> int:
        """Trace tokens that a run goes through."""
        total = sum(self.trace.request_lengths().values())
        return min(total, self.scenario.settings.trace.max_tokens or total)

    def run(self, progress: Progress | None = None) -> Result:
        """Replay the trace and collect the result."""
        from slicesim.result import Result, Window

        settings = self.scenario.settings
        window = Window(settings.schedule.timeline_tokens)
        rows: list[Columns] = []
        done = 0
        for demand, plan, timeline in self.tables():
            mass = GateMass.of(demand, self.sizes, settings.amat)
            rows.append(account(demand, plan, timeline, self.hardware, self.sizes, mass))
            window.add(demand, plan, timeline)
            done += len(demand.token) if isinstance(demand, DecodeDemand) else demand.prompt_tokens
            if progress is not None:
                progress(done)
        if not rows:
            raise UserError(f"{self.trace.name}: the trace holds no tokens")
        return Result.collect(self.describe(), self.policy.constraint, rows, window)

    def tables(self) -> Iterator[tuple[Demand, Plan, Timeline]]:
        """Yield each demand table with its plan and timeline, on one clock."""
        schedule = self.scenario.settings.schedule
        clock = engine(schedule.engine, schedule.overlap)
        lower = Lowering(Shapes(self.model, self.sizes, self.trace.header.layers))
        planner = Planner(self.hardware, self.sizes, self.model)
        costs = SoftwareCosts(self.scenario.settings.software)
        for demand in decide(self.request()):
            try:
                plan = costs(planner(lower(demand)))
                timeline = clock.run(plan)
            except OverflowError:
                raise UserError(
                    "the simulated time passes 2^63 ps (107 days): look at device.flash and device.dram, "
                    "bandwidth_gbs and latency_us"
                ) from None
            yield demand, plan, timeline
        clock.finish()

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
