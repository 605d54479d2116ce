"""Counts x coefficients: one row per step with its counts, times, energy and gate mass (semantics, section 6).

Every column of counts stands in ``tokens.parquet``, so that the energy columns can be worked out again from them and
from the coefficients in ``summary.json``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.decide.demand import (
    DROPPED,
    LSB_DENIED,
    LSB_FETCHED,
    LSB_HIT,
    LSB_REQUESTED,
    MSB_FETCHED,
    MSB_HIT,
    REROUTED,
    SUBSTITUTED,
    DecodeDemand,
    Demand,
    PrefillDemand,
    SliceSizes,
    has,
)
from slicesim.hardware import Hardware
from slicesim.quality import GateMass
from slicesim.schedule import Plan, StepTimes, Timeline
from slicesim.schedule.workload import EXPERT
from slicesim.trace import DECODE, PREFILL

Columns = dict[str, NDArray[Any]]


def account(
    demand: Demand, plan: Plan, timeline: Timeline, hardware: Hardware, sizes: SliceSizes, mass: GateMass
) -> Columns:
    """Return the rows of one demand table: one per decode token, or one for a prompt. Energy in pJ, time in ps."""
    times = StepTimes.of(plan, timeline)
    amounts = _amounts(plan)
    return {
        **_identity(demand),
        **_counts(demand, sizes),
        **amounts,
        "start_ps": timeline.step_start,
        **{f"{name}_ps": column for name, column in vars(times).items()},
        **_energy(amounts, times.latency, hardware),
        **{f"{name}_mass": column for name, column in vars(mass).items()},
    }


def _identity(demand: Demand) -> Columns:
    if isinstance(demand, PrefillDemand):
        one = {"request": demand.request, "token": -1, "phase": PREFILL, "prompt_tokens": demand.prompt_tokens}
        return {
            **{name: np.array([value], dtype=np.int64) for name, value in one.items()},
            "resident_bytes": np.array([demand.resident_bytes]),
            "strength": np.array([np.nan]),
        }
    steps = len(demand.request)
    return {
        "request": demand.request,
        "token": demand.token,
        "phase": np.full(steps, DECODE, dtype=np.int64),
        "prompt_tokens": np.zeros(steps, dtype=np.int64),
        "resident_bytes": demand.resident_bytes[:, -1],
        "strength": demand.strength,
    }


def _counts(demand: Demand, sizes: SliceSizes) -> Columns:
    """Count slices. A substitute's request stands beside the denied one, so requests = look-ups + denied."""
    if isinstance(demand, DecodeDemand):
        outcome = demand.outcome
        msb_bytes, lsb_bytes = sizes.msb_bytes[None, :, None], sizes.lsb_bytes[None, :, None]
    else:
        outcome = demand.outcome[None, None, :]
        msb_bytes, lsb_bytes = (size[demand.layer][None, None, :] for size in (sizes.msb_bytes, sizes.lsb_bytes))

    def count(*bits: int) -> NDArray[np.int64]:
        return np.asarray(has(outcome, *bits).sum(axis=(1, 2)), dtype=np.int64)

    def size(msb_bits: tuple[int, ...], lsb_bits: tuple[int, ...]) -> NDArray[np.int64]:
        return np.asarray((has(outcome, *msb_bits) * msb_bytes + has(outcome, *lsb_bits) * lsb_bytes).sum(axis=(1, 2)))

    every = np.full(len(outcome), outcome.shape[1] * outcome.shape[2], dtype=np.int64)
    return {
        "msb_requests": every + count(SUBSTITUTED),
        "lsb_requests": count(LSB_REQUESTED),
        "msb_hits": count(MSB_HIT),
        "lsb_hits": count(LSB_HIT),
        "msb_misses": count(MSB_FETCHED),
        "lsb_misses": count(LSB_FETCHED),
        "degraded": count(LSB_DENIED),
        "substituted": count(SUBSTITUTED),
        "dropped": count(DROPPED),
        "rerouted": count(REROUTED),
        "lookup_bytes": size((MSB_HIT, MSB_FETCHED), (LSB_HIT, LSB_FETCHED)),
        "missed_bytes": size((MSB_FETCHED,), (LSB_FETCHED,)),
        "topup_bytes": _topup_bytes(demand, sizes),
    }


def _topup_bytes(demand: Demand, sizes: SliceSizes) -> NDArray[np.int64]:
    if isinstance(demand, DecodeDemand):
        return np.zeros(len(demand.request), dtype=np.int64)
    size = np.where(demand.topup_is_lsb, sizes.lsb_bytes[demand.topup_layer], sizes.msb_bytes[demand.topup_layer])
    return np.array([size.sum()], dtype=np.int64)


def _amounts(plan: Plan) -> Columns:
    """Bytes, row activations and work per step, for experts and for all else."""
    work = plan.workload
    ops, reads = work.step_of_op(), work.step_of_read()
    is_expert = work.op_cause == EXPERT

    def total(step: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
        result = np.zeros(work.steps, dtype=np.int64)
        np.add.at(result, step, values)
        return result

    columns: Columns = {
        "flash_read_bytes": total(reads, work.read_bytes),
        "flash_reads": total(reads, np.ones_like(work.read_bytes)),
        "fill_activations": total(reads, plan.read_activations),
        "fill_bytes": total(reads, work.read_bytes),
    }
    for cause, chosen in (("expert", is_expert), ("non_expert", ~is_expert)):
        for name, values in (
            ("dram_read_bytes", work.op_read_bytes),
            ("dram_write_bytes", work.op_write_bytes),
            ("activations", plan.op_activations),
            ("mac_eighths", plan.op_eighths),
            ("dequantised_weights", work.op_weights),
        ):
            columns[f"{cause}_{name}"] = total(ops, np.where(chosen, values, 0))
    return columns


def _energy(amounts: Columns, elapsed_ps: NDArray[np.int64], hardware: Hardware) -> Columns:
    """Energy by tier, and by cause: experts (with all flash and fill traffic), all else, and background power."""
    tiers: dict[str, dict[str, Any]] = {}
    for cause in ("expert", "non_expert"):
        read, written = amounts[f"{cause}_dram_read_bytes"], amounts[f"{cause}_dram_write_bytes"]
        fills = cause == "expert"
        tiers[cause] = {
            "flash": hardware.flash.read_energy_pj(1.0) * amounts["flash_read_bytes"] * fills,
            "dram": hardware.dram.transfer_energy_pj(1.0, 0.0) * (read + written + amounts["fill_bytes"] * fills)
            + hardware.dram.transfer_energy_pj(0.0, 1.0)
            * (amounts[f"{cause}_activations"] + amounts["fill_activations"] * fills),
            "sram": hardware.sram.energy_pj(1.0, 1.0) * (read + written),
            "npu": hardware.npu.compute_energy_pj(1.0, 0.0) * amounts[f"{cause}_mac_eighths"]
            + hardware.npu.compute_energy_pj(0.0, 1.0) * amounts[f"{cause}_dequantised_weights"],
        }
    parts = (hardware.flash, hardware.dram, hardware.sram, hardware.npu)
    background = sum(part.background_energy_pj(1.0) for part in parts) * elapsed_ps
    by_tier = {tier: tiers["expert"][tier] + tiers["non_expert"][tier] for tier in ("flash", "dram", "sram", "npu")}
    by_cause = {cause: sum(tiers[cause].values()) for cause in tiers}
    energy = {**by_tier, "background": background, **by_cause}
    energy["total"] = by_cause["expert"] + by_cause["non_expert"] + background
    return {f"{name}_energy_pj": np.asarray(value, dtype=np.float64) for name, value in energy.items()}
