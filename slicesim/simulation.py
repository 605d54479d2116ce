"""The whole way: scenario -> trace -> decide -> schedule -> account -> result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slicesim.account import Columns, account
from slicesim.decide import DecodeDemand, Demand, Request, SliceSizes, decide
from slicesim.errors import UserError
from slicesim.hardware import Hardware
from slicesim.models import ModelGeometry, int8_bytes, load_model, slice_bytes
from slicesim.policies import Policy, build_policy
from slicesim.quality import GateMass
from slicesim.scenario import Scenario
from slicesim.schedule import Plan, ReferenceEngine, Shapes, Timeline, build_plan, build_workload
from slicesim.trace import Trace, load_trace
from slicesim.version import __version__

if TYPE_CHECKING:
    from slicesim.result import Result

#: Called after every demand table with the number of trace tokens done.
Progress = Callable[[int], None]


def simulate(
    config: str | Path | Scenario,
    *,
    model: str | None = None,
    trace: str | Path | Trace | None = None,
    policy: str | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - the command line's word
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
    return Simulation.prepare(scenario, in_memory).run(progress)


def compare(
    config: str | Path,
    policies: Sequence[str],
    *,
    model: str | None = None,
    trace: str | Path | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002
    progress: Progress | None = None,
) -> list[Result]:
    """Run one scenario under several policies on the same trace; results in the order of ``policies``."""
    simulations = [
        Simulation.prepare(Scenario.load(config, model=model, trace=trace, policy=policy, assignments=set))
        for policy in policies
    ]
    return [simulation.run(progress) for simulation in simulations]


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
        trace = trace or load_trace(settings.trace.path, where=scenario.where("trace", "path"))
        model = load_model(settings.model, scenario.where("model"))
        _check_trace_fits(scenario, trace, model)
        policy = build_policy(scenario, has_logits=trace.header.has_logits)
        _check_scores(scenario, trace, policy)
        sizes = _slice_sizes(scenario, trace, model, policy)
        _check_capacity(scenario, trace, model, sizes)
        warnings = _cliff_warning(scenario, trace, policy, sizes)
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
        if not any(len(columns["token"]) for columns in rows):
            raise UserError(f"{self.trace.name}: the trace holds no tokens")
        return Result.collect(self.describe(), rows, window)

    def tables(self) -> Iterator[tuple[Demand, Plan, Timeline]]:
        """Yield each demand table with its plan and timeline, on one clock."""
        engine = ReferenceEngine(self.scenario.settings.schedule.overlap)
        shapes = Shapes(self.model, self.sizes, self.trace.header.layers)
        for demand in decide(self._request()):
            plan = build_plan(build_workload(demand, shapes), self.hardware, self.sizes)
            yield demand, plan, engine.run(plan)

    def describe(self) -> dict[str, Any]:
        """Return the head of the summary: version, resolved scenario, trace."""
        settings, header = self.scenario.settings, self.trace.header
        resolved = settings.model_dump(mode="json", exclude_none=True)
        resolved["policy"] = self.policy.describe()
        return {
            "slicesim_version": __version__,
            "scenario": resolved,
            "policy": self.policy.label,
            "constraint": self.policy.constraint.name,
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

    def _request(self) -> Request:
        settings = self.scenario.settings
        return Request(
            trace=self.trace,
            split=settings.trace.split,
            max_tokens=settings.trace.max_tokens,
            policy=self.policy,
            sizes=self.sizes,
            capacity_bytes=_capacity_bytes(self.scenario),
            scope_layers=settings.cache.scope == "layer",
            reset_each_request=settings.cache.reset == "request",
            seed=settings.seed,
        )


def _capacity_bytes(scenario: Scenario) -> int:
    return round(scenario.settings.cache.capacity_gb * 1e9)


def _check_trace_fits(scenario: Scenario, trace: Trace, model: ModelGeometry) -> None:
    header, section = trace.header, scenario.settings.trace
    recorded = f"{trace.name} was recorded on {header.model}"

    def misfit(what: str, advice: str) -> UserError:
        return scenario.error("trace", "path", message=f"{recorded}: {what}; {advice}")

    other_model = f"choose the trace's model, or another trace (model is {model.name})"
    if header.experts != model.experts:
        raise misfit(f"{header.experts} experts per layer, the model has {model.experts}", other_model)
    foreign = [layer for layer in header.layers if layer not in model.moe_layers]
    if foreign:
        raise misfit(f"its layer {foreign[0]} is no MoE layer of the model", other_model)
    if len(header.layers) < len(model.moe_layers) and not section.layer_subset:
        raise misfit(
            f"it covers {len(header.layers)} of the model's {len(model.moe_layers)} MoE layers",
            "set trace.layer_subset=true to replay those alone",
        )
    if section.top_k is not None and section.top_k != header.top_k:
        raise scenario.error("trace", "top_k", message=f"is {section.top_k}, but {trace.name} holds top-{header.top_k}")
    if header.top_k != model.top_k and section.top_k is None:
        raise misfit(
            f"top-{header.top_k}, the model routes top-{model.top_k}",
            f"set trace.top_k={header.top_k} to replay it as recorded",
        )


def _check_scores(scenario: Scenario, trace: Trace, policy: Policy) -> None:
    kind = trace.header.score_kind
    if kind == "logits":
        raise scenario.error(
            "trace", "path", message=f"{trace.name} holds logits as scores; import it with their softmax"
        )
    if kind == "renormalised" and not policy.precision.on_renormalised:
        raise scenario.error(
            "policy", "precision",
            message=f"the threshold is meant for raw softmax scores, but {trace.name} holds renormalised ones; "
            "set policy.precision.on_renormalised=true to compare with those",
        )  # fmt: skip


def _slice_sizes(scenario: Scenario, trace: Trace, model: ModelGeometry, policy: Policy) -> SliceSizes:
    amat, layers = scenario.settings.amat, len(trace.header.layers)
    objects = policy.precision.objects
    msb, lsb = slice_bytes(model.expert_weights, amat.high_bits, amat.low_bits, amat.group)
    layouts = {
        "slices": (msb, lsb, amat.low_bits, amat.high_bits - amat.low_bits),
        "whole": (msb + lsb, 0, amat.high_bits, 0),
        "msb": (msb, 0, amat.low_bits, 0),
    }
    msb_size, lsb_size, msb_bits, lsb_bits = layouts[objects]
    msb_bytes = np.full(layers, msb_size, dtype=np.int64)
    if scenario.settings.cache.object_bytes == "trace":
        recorded = trace.header.expert_bytes
        if recorded is None:
            message = f"{trace.name} brings no sizes of its own; use geometry"
            raise scenario.error("cache", "object_bytes", message=message)
        if objects != "whole":
            message = "recorded sizes are of whole experts; choose a policy that caches whole experts (lru-high)"
            raise scenario.error("cache", "object_bytes", message=message)
        msb_bytes = np.array(recorded, dtype=np.int64)
    return SliceSizes(msb_bytes, np.full(layers, lsb_size, dtype=np.int64), msb_bits, lsb_bits)


def _check_capacity(scenario: Scenario, trace: Trace, model: ModelGeometry, sizes: SliceSizes) -> None:
    settings = scenario.settings
    capacity = _capacity_bytes(scenario)
    share = capacity // (len(trace.header.layers) if settings.cache.scope == "layer" else 1)
    batch = trace.header.top_k * int((sizes.msb_bytes + sizes.lsb_bytes).max())
    if share < batch:
        per_layer = " for each layer" if settings.cache.scope == "layer" else ""
        need = batch * (capacity // share if share else len(trace.header.layers)) / 1e9
        raise scenario.error(
            "cache", "capacity_gb",
            message=f"{share / 1e9:g} GB{per_layer} is less than one batch of {trace.header.top_k} experts "
            f"({batch / 1e9:.4f} GB); give at least {need:.4f}",
        )  # fmt: skip
    context = max(trace.request_lengths().values(), default=0)
    resident = int8_bytes(model.non_expert_weights) + model.kv_cache_bytes(context)
    available = round(settings.device.dram.capacity_gb.value * 1e9)
    if resident + capacity > available:
        raise scenario.error(
            "cache", "capacity_gb",
            message=f"the expert cache ({capacity / 1e9:g} GB), non-expert weights and KV cache ({resident / 1e9:.2f} GB) "
            f"exceed the device's DRAM ({available / 1e9:g} GB); give at most {max(0, available - resident) / 1e9:.2f}",
        )  # fmt: skip
    stored = len(model.moe_layers) * model.experts * int((sizes.msb_bytes + sizes.lsb_bytes).max())
    if stored > settings.device.flash.capacity_gb.value * 1e9:
        raise scenario.error(
            "device", "flash", "capacity_gb", message=f"the model's experts need {stored / 1e9:.1f} GB of flash"
        )


def _cliff_warning(scenario: Scenario, trace: Trace, policy: Policy, sizes: SliceSizes) -> tuple[str, ...]:
    """A global LRU that holds fewer than (layers - 1) x K + 1 experts hits nothing in decode (semantics, section 4)."""
    layers, top_k = len(trace.header.layers), trace.header.top_k
    fits = _capacity_bytes(scenario) // int(sizes.msb_bytes.min())
    cliff = (layers - 1) * top_k + 1
    if policy.eviction.name not in ("lru", "dbsc") or scenario.settings.cache.scope == "layer" or fits >= layers * top_k:
        return ()
    effect = "hits exactly nothing in decode" if fits < cliff else "hits little"
    return (
        f"LRU cliff: the cache holds {fits} objects, one token wants {layers * top_k}; "
        f"below {cliff} a global {policy.eviction.name.upper()} {effect}",
    )
