"""Counts x coefficients: one row per step with its counts, times, energy and gate mass (semantics, section 6).

Every column of counts stands in ``tokens.parquet``, so that the energy columns can be worked out again from them and
from the coefficients in ``summary.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import jit
from slicesim.decide.demand import (
    DROPPED,
    LSB_AHEAD,
    LSB_DENIED,
    LSB_FETCHED,
    LSB_HIT,
    LSB_REQUESTED,
    MSB_AHEAD,
    MSB_FETCHED,
    MSB_HIT,
    REROUTED,
    SUBSTITUTED,
    DecodeDemand,
    Demand,
    PrefillDemand,
    SliceSizes,
)
from slicesim.hardware import Hardware
from slicesim.quality import GateMass
from slicesim.schedule import Plan, StepTimes, Timeline, Workload
from slicesim.schedule.timeline import sum_by_step
from slicesim.schedule.workload import EXPERT, NON_EXPERT
from slicesim.trace import DECODE, PREFILL

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Decided:
    """What one demand table says by itself, whatever the device: any number of hardware variants share it.

    columns: who and what, counts of slices, gate mass; amounts: bytes and work that do not depend on the device.
    """

    columns: Columns
    amounts: Columns

    @classmethod
    def of(cls, demand: Demand, work: Workload, sizes: SliceSizes, mass: GateMass) -> Decided:
        """Count a demand table and its workload."""
        masses = {f"{name}_mass": column for name, column in vars(mass).items()}
        columns = {**_identity(demand), **_counts(demand, sizes), **masses, **_visited(work)}
        return cls(columns, _moved(work))


def account(decided: Decided, plan: Plan, timeline: Timeline, hardware: Hardware) -> Columns:
    """Return the rows of one demand table: one per decode token, or one for a prompt. Energy in pJ, time in ps."""
    times = StepTimes.of(plan, timeline)
    amounts = decided.amounts | _work(plan)
    return {
        **decided.columns,
        **amounts,
        "start_ps": timeline.step_start,
        **{f"{name}_ps": column for name, column in vars(times).items()},
        **_energy(amounts, times, hardware),
    }


def _identity(demand: Demand) -> Columns:
    if isinstance(demand, PrefillDemand):
        one = {"request": demand.request, "token": -1, "phase": PREFILL, "prompt_tokens": demand.prompt_tokens}
        return {
            **{name: np.array([value], dtype=np.int64) for name, value in one.items()},
            "resident_bytes": np.array([demand.resident_bytes]),
            "strength": np.array([np.nan]),
            "decode_step": np.array([-1]),
        }
    steps = len(demand.request)
    return {
        "request": demand.request,
        "token": demand.token,
        "phase": np.full(steps, DECODE, dtype=np.int64),
        "prompt_tokens": np.zeros(steps, dtype=np.int64),
        "resident_bytes": demand.resident_bytes[:, -1],
        "strength": demand.strength,
        "decode_step": demand.step,
    }


#: Counts of slices, in the order of ``_count``'s columns.
COUNTS = (
    "msb_requests", "lsb_requests", "msb_hits", "lsb_hits", "msb_misses", "lsb_misses", "degraded", "substituted",
    "dropped", "rerouted", "msb_ahead_hits", "lsb_ahead_hits", "lookup_bytes", "missed_bytes",
)  # fmt: skip


def _counts(demand: Demand, sizes: SliceSizes) -> Columns:
    """Count slices. A substitute's request stands beside the denied one, so requests = look-ups + denied."""
    if isinstance(demand, DecodeDemand):
        outcome, msb_bytes, lsb_bytes = demand.outcome, sizes.msb_bytes, sizes.lsb_bytes
        ahead = demand.prefetched
    else:
        outcome = demand.outcome[None, :, None]
        msb_bytes, lsb_bytes = sizes.msb_bytes[demand.layer], sizes.lsb_bytes[demand.layer]
        ahead = np.zeros((1, 0, 0), dtype=np.int32)
    total = np.zeros((len(outcome), len(COUNTS)), dtype=np.int64)
    _count(outcome, msb_bytes, lsb_bytes, total)
    return {
        **dict(zip(COUNTS, total.T, strict=True)),
        "prefetched": np.asarray((ahead >= 0).sum(axis=(1, 2)), dtype=np.int64),
        "topup_bytes": _topup_bytes(demand, sizes),
    }


@jit
def _count(outcome, msb_bytes, lsb_bytes, total):
    """Enter COUNTS of every step; outcome: [steps, layers or rows, slots], sizes: [layers or rows]."""
    for step in range(len(outcome)):
        lsb_requests = msb_hits = lsb_hits = msb_misses = lsb_misses = degraded = substituted = dropped = rerouted = 0
        msb_ahead = lsb_ahead = looked_up = missed = 0
        for place in range(outcome.shape[1]):
            for slot in range(outcome.shape[2]):
                what = np.int64(outcome[step, place, slot])
                msb_hit, msb_miss = what & MSB_HIT != 0, what & MSB_FETCHED != 0
                lsb_hit, lsb_miss = what & LSB_HIT != 0, what & LSB_FETCHED != 0
                msb_hits, msb_misses = msb_hits + msb_hit, msb_misses + msb_miss
                lsb_hits, lsb_misses = lsb_hits + lsb_hit, lsb_misses + lsb_miss
                lsb_requests += what & LSB_REQUESTED != 0
                degraded += what & LSB_DENIED != 0
                substituted += what & SUBSTITUTED != 0
                dropped += what & DROPPED != 0
                rerouted += what & REROUTED != 0
                msb_ahead += what & MSB_AHEAD != 0
                lsb_ahead += what & LSB_AHEAD != 0
                missed_here = msb_miss * msb_bytes[place] + lsb_miss * lsb_bytes[place]
                missed += missed_here
                looked_up += missed_here + msb_hit * msb_bytes[place] + lsb_hit * lsb_bytes[place]
        counts = (
            outcome.shape[1] * outcome.shape[2] + substituted, lsb_requests, msb_hits, lsb_hits, msb_misses, lsb_misses,
            degraded, substituted, dropped, rerouted, msb_ahead, lsb_ahead, looked_up, missed,
        )  # fmt: skip
        for column in range(len(counts)):
            total[step, column] = counts[column]


def _visited(work: Workload) -> Columns:
    """Devices that tokens had their experts on, and those of them away from home, over all layers; 0 on one device."""
    visits = np.zeros((work.steps, 2), dtype=np.int64) if work.visits is None else work.visits
    return {"device_visits": visits[:, 0], "remote_visits": visits[:, 1]}


def _topup_bytes(demand: Demand, sizes: SliceSizes) -> NDArray[np.int64]:
    if isinstance(demand, DecodeDemand):
        return np.zeros(len(demand.request), dtype=np.int64)
    size = np.where(demand.topup_is_lsb, sizes.lsb_bytes[demand.topup_layer], sizes.msb_bytes[demand.topup_layer])
    return np.array([size.sum()], dtype=np.int64)


def _moved(work: Workload) -> Columns:
    """Bytes moved and weights dequantised per step: flash reads, and DRAM traffic for experts and for all else."""
    kinds, sizes = work.kinds.columns, work.read_sizes.reshape(-1)
    alike = np.zeros(sizes.size, dtype=np.int64)
    (read_bytes, reads), _ = sum_by_step(work.step_read(), work.read_kind, (sizes, alike + 1), alike)
    per_op = {
        "dram_read_bytes": kinds.read_bytes,
        "dram_write_bytes": kinds.write_bytes,
        "dequantised_weights": kinds.weights,
    }
    exchanged = np.zeros_like(read_bytes)
    if work.visits is not None:
        exchanges: Any = kinds.exchanged_bytes
        (exchanged,), _ = sum_by_step(work.step_op(), work.op_kind, [exchanges], np.zeros_like(exchanges))
    return {
        "flash_read_bytes": read_bytes, "flash_reads": reads, "fill_bytes": read_bytes, "all_to_all_bytes": exchanged,
        **_by_cause(work, per_op),
    }  # fmt: skip


def _work(plan: Plan) -> Columns:
    """Row activations and MACs per step, which depend on the device's rows and on what narrow weights cost it."""
    work, ops = plan.workload, plan.ops
    rows = plan.reads.activations
    (activations,), _ = sum_by_step(work.step_read(), work.read_kind, (rows,), np.zeros_like(rows))
    per_op = {"activations": ops.activations, "mac_eighths": ops.eighths}
    return {"fill_activations": activations, **_by_cause(work, per_op)}


def _by_cause(work: Workload, per_op: dict[str, Any]) -> Columns:
    """Sum columns [kinds of operations] by step, for experts and for all else."""
    cause: Any = work.kinds.columns.cause
    totals = sum_by_step(work.step_op(), work.op_kind, list(per_op.values()), cause)
    return {
        f"{name}_{what}": column
        for name, number in (("expert", EXPERT), ("non_expert", NON_EXPERT))
        for what, column in zip(per_op, totals[number], strict=True)
    }


def _energy(amounts: Columns, times: StepTimes, hardware: Hardware) -> Columns:
    """Energy by tier, and by cause: experts (with all flash and fill traffic), all else, and background power."""
    tiers: dict[str, dict[str, Any]] = {}
    links = hardware.interconnect
    link_pj_per_byte = 0.0 if links is None else links.energy_pj(1.0)
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
            "interconnect": link_pj_per_byte * amounts["all_to_all_bytes"] * fills,
        }
    parts = (hardware.flash, hardware.sram, hardware.npu)
    dram_busy = np.minimum(times.dram_busy, times.latency)  # prefetches of a step may end after it
    background = hardware.devices * (
        sum(part.background_energy_pj(1.0) for part in parts) * times.latency
        + hardware.dram.background_energy_pj(1.0, 0.0) * dram_busy
        + hardware.dram.background_energy_pj(0.0, 1.0) * (times.latency - dram_busy)
    )
    by_tier = {tier: tiers["expert"][tier] + tiers["non_expert"][tier] for tier in tiers["expert"]}
    by_cause = {cause: sum(tiers[cause].values()) for cause in tiers}
    energy = {**by_tier, "background": background, **by_cause}
    energy["total"] = by_cause["expert"] + by_cause["non_expert"] + background
    return {f"{name}_energy_pj": np.asarray(value, dtype=np.float64) for name, value in energy.items()}
