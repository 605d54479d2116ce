"""Do scenario, trace, model and policy go together? Asked before the first token, answered in one line."""

from __future__ import annotations

import difflib
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import numpy as np

from slicesim.curves.cliff import cliff_bytes
from slicesim.decide import Request, SliceSizes
from slicesim.errors import UserError
from slicesim.hardware import Hardware
from slicesim.hardware.memories import MEMORIES
from slicesim.models import ModelGeometry, int8_bytes, slice_bytes
from slicesim.policies import Policy
from slicesim.scenario import Scenario
from slicesim.scenario.device import MemoryDram
from slicesim.trace import Trace


def check_device(scenario: Scenario) -> None:
    """Refuse a memory that is not in the table, and an SRAM below one tile."""
    device = scenario.settings.device
    if isinstance(device.dram, MemoryDram) and device.dram.memory.lower() not in MEMORIES:
        names = [name.upper() for name in MEMORIES]
        close = difflib.get_close_matches(device.dram.memory.upper(), names, n=1, cutoff=0.5)
        advice = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
        raise scenario.error("device", "dram", "memory", message=f"no memory {device.dram.memory!r} ({advice})")
    tile, capacity = Hardware.of(device).sram.tile_bytes, device.sram.capacity_kib.value
    if tile > capacity * 1024:
        message = f"{capacity:g} KiB hold less than what {device.compute} works on at once ({tile / 1024:g} KiB)"
        raise scenario.error("device", "sram", "capacity_kib", message=message)


def check_schedule(scenario: Scenario) -> None:
    """Refuse a prompt that is streamed where nothing is read ahead."""
    schedule = scenario.settings.schedule
    if schedule.prefill == "stream" and schedule.overlap != "prefetch":
        raise scenario.error(
            "schedule", "prefill",
            message=f"stream reads ahead, which needs schedule.overlap=prefetch (it is {schedule.overlap})",
        )  # fmt: skip


def capacity_bytes(scenario: Scenario) -> int:
    """The expert cache in bytes."""
    return round(scenario.settings.cache.capacity_gb * 1e9)


def check_trace_fits(scenario: Scenario, trace: Trace, model: ModelGeometry) -> None:
    """Refuse a trace of another geometry; layer subsets and another top-k must be declared."""
    header, section = trace.header, scenario.settings.trace
    recorded = f"{trace.name} was recorded on {header.model}"

    def misfit(what: str, advice: str) -> UserError:
        return scenario.error("trace", "path", message=f"{recorded}: {what}; {advice}")

    other_model = f"choose the trace's model, or another trace (model is {model.name})"
    or_other = "" if model.name.lower() in header.model.lower() else f"; or {other_model}"
    if header.experts != model.experts:
        raise misfit(f"{header.experts} experts per layer, the model has {model.experts}", other_model)
    foreign = [layer for layer in header.layers if layer not in model.moe_layers]
    if foreign:
        raise misfit(f"its layer {foreign[0]} is no MoE layer of the model", other_model)
    if len(header.layers) < len(model.moe_layers) and not section.layer_subset:
        raise misfit(
            f"it covers {len(header.layers)} of the model's {len(model.moe_layers)} MoE layers",
            f"set trace.layer_subset=true to replay those alone{or_other}",
        )
    if section.top_k is not None and section.top_k != header.top_k:
        raise scenario.error("trace", "top_k", message=f"is {section.top_k}, but {trace.name} holds top-{header.top_k}")
    if header.top_k != model.top_k and section.top_k is None:
        raise misfit(
            f"top-{header.top_k}, the model routes top-{model.top_k}",
            f"set trace.top_k={header.top_k} to replay it as recorded{or_other}",
        )


def check_scores(scenario: Scenario, trace: Trace, policy: Policy) -> None:
    """Refuse a threshold on scores that it is not meant for (semantics, section 10)."""
    kind = trace.header.score_kind
    if kind == "logits":
        raise scenario.error(
            "trace", "path", message=f"{trace.name} holds logits as scores; import it with their softmax"
        )
    if kind == "renormalised" and policy.precision.raw_scores_only:
        raise scenario.error(
            "policy", "precision",
            message=f"the threshold is meant for raw softmax scores, but {trace.name} holds renormalised ones; "
            "set policy.precision.on_renormalised=true to compare with those",
        )  # fmt: skip


def slice_sizes(scenario: Scenario, trace: Trace, model: ModelGeometry, policy: Policy) -> SliceSizes:
    """Bytes and bits of what the cache holds: from the geometry, or as the trace recorded them."""
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


def check_capacity(scenario: Scenario, trace: Trace, model: ModelGeometry, sizes: SliceSizes, policy: Policy) -> None:
    """Refuse a cache below one batch, and what does not fit DRAM.

    A policy that keeps all is not asked, but where several devices share the experts.
    """
    settings = scenario.settings
    if policy.eviction.keeps_all:
        if policy.placement.shares:
            _check_share(scenario, trace, model, sizes)
        return
    capacity = capacity_bytes(scenario)
    per_layer = settings.cache.scope == "layer" or policy.eviction.partitioned
    caches = len(trace.header.layers) if per_layer else 1
    batch = trace.header.top_k * int((sizes.msb_bytes + sizes.lsb_bytes).max())
    if capacity // caches < batch:
        shares = f" in {caches} equal shares" if caches > 1 else ""
        raise scenario.error(
            "cache", "capacity_gb",
            message=f"{settings.cache.capacity_gb:g} GB{shares} holds less than one batch of {trace.header.top_k} "
            f"experts ({_gb(batch)} GB); give at least {_gb(caches * batch)}",
        )  # fmt: skip
    context = max(trace.request_lengths().values(), default=0)
    resident = int8_bytes(model.non_expert_weights) + model.kv_cache_bytes(context)
    available = round(settings.device.dram.capacity_gb.value * 1e9)
    if resident + caches * batch > available:
        raise scenario.error(
            "device", "dram", "capacity_gb",
            message=f"{_gb(available)} GB do not hold non-expert weights and KV cache ({_gb(resident)} GB) and one "
            f"batch of experts; give at least {_gb(resident + caches * batch)}, or choose a smaller model",
        )  # fmt: skip
    if resident + capacity > available:
        raise scenario.error(
            "cache", "capacity_gb",
            message=f"the expert cache ({settings.cache.capacity_gb:g} GB), non-expert weights and KV cache "
            f"({_gb(resident)} GB) exceed the device's DRAM ({_gb(available)} GB); "
            f"give at most {_gb(available - resident, ROUND_FLOOR)}",
        )  # fmt: skip


def _check_share(scenario: Scenario, trace: Trace, model: ModelGeometry, sizes: SliceSizes) -> None:
    """Refuse a DRAM that does not hold one device's share of the experts beside all that is not an expert."""
    device = scenario.settings.device
    share = -(-model.experts // Hardware.of(device).devices) * int((sizes.msb_bytes + sizes.lsb_bytes).max())
    context = max(trace.request_lengths().values(), default=0)
    needed = len(model.moe_layers) * share + int8_bytes(model.non_expert_weights) + model.kv_cache_bytes(context)
    if needed > device.dram.capacity_gb.value * 1e9:
        raise scenario.error(
            "device", "dram", "capacity_gb",
            message=f"one device's experts, non-expert weights and KV cache need {_gb(needed)} GB; give at least that, "
            "or more devices",
        )  # fmt: skip


def check_flash(scenario: Scenario, model: ModelGeometry, sizes: SliceSizes) -> None:
    """Refuse a flash that does not hold all experts."""
    stored = len(model.moe_layers) * model.experts * int((sizes.msb_bytes + sizes.lsb_bytes).max())
    if stored > scenario.settings.device.flash.capacity_gb.value * 1e9:
        raise scenario.error(
            "device", "flash", "capacity_gb", message=f"the model's experts need {_gb(stored)} GB of flash"
        )


def _gb(size: int, rounding: str = ROUND_CEILING) -> str:
    """Write a size in decimal GB with four digits, rounded so that the figure is safe to follow."""
    return f"{Context(prec=4, rounding=rounding).create_decimal(size).scaleb(-9).normalize():f}"


def other_model_warning(trace: Trace, model: ModelGeometry) -> tuple[str, ...]:
    """Say when the trace fits by its geometry but bears another model's name."""
    if model.name.lower() in trace.header.model.lower():
        return ()
    return (f"{trace.name} was recorded on {trace.header.model}, the model is {model.name}",)


def idle_prefetch_warning(policy: Policy, sizes: SliceSizes) -> tuple[str, ...]:
    """Say when a prefetch budget is too small for a single slice."""
    least = int(min(size[size > 0].min() for size in (sizes.msb_bytes, sizes.lsb_bytes) if (size > 0).any()))
    budget = policy.prefetch.budget_bytes
    if not policy.prefetch.layers_ahead or budget >= least:
        return ()
    return (
        f"prefetch {policy.prefetch.name}: a budget of {budget / 1e6:g} MB per batch holds no slice "
        f"({least / 1e6:.1f} MB): nothing is read ahead; raise policy.prefetch.budget_mb",
    )


def all_resident_warning(policy: Policy) -> tuple[str, ...]:
    """Say when the cache is not the one that the scenario gives."""
    if not policy.eviction.keeps_all:
        return ()
    ignored = "cache.capacity_gb" + ("" if policy.placement.shares else " and the size of DRAM")
    return (f"everything is resident: the policy ignores {ignored}",)


def cliff_warning(request: Request) -> tuple[str, ...]:
    """A global LRU that holds fewer than (layers - 1) x K + 1 experts hits nothing in decode (semantics, section 4)."""
    layers, top_k = len(request.trace.header.layers), request.trace.header.top_k
    fits = request.capacity_bytes // int(request.sizes.msb_bytes.min())
    name = request.policy.eviction.name
    if name not in ("lru", "dbsc") or request.per_layer or fits >= layers * top_k:
        return ()
    cliff = cliff_bytes(request)
    effect = "hits little" if cliff is None or request.capacity_bytes >= cliff else "hits exactly nothing in decode"
    return (
        f"LRU cliff: the cache holds {fits} objects, one token wants {layers * top_k}; "
        f"below {(layers - 1) * top_k + 1} a global {name.upper()} {effect}",
    )
