"""The summary: what ``--json`` prints and ``summary.json`` holds (semantics, section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.hardware.units import PS_PER_S
from slicesim.policies import Constraint
from slicesim.rows import ActiveTotals, PhaseTotals
from slicesim.trace import DECODE, PREFILL

TIERS = ("flash", "dram", "sram", "npu", "interconnect", "background")


def summarise(phases: Mapping[int, PhaseTotals]) -> dict[str, Any]:
    """Return the ``prefill`` and ``decode`` parts of the summary."""
    prefill, decode = phases[PREFILL], phases[DECODE]
    return {
        "prefill": {
            "requests_with_prompt": prefill.steps,
            "ttft_ps": _distribution(prefill.latency_ps) if prefill.steps else None,
            **_phase(prefill, int(prefill.sums.get("prompt_tokens", 0))),
        },
        "decode": {"stall_tokens": decode.stalled, **_phase(decode, decode.steps)},
    }


def constraint_report(active: ActiveTotals, constraint: Constraint) -> dict[str, Any]:
    """What a miss-rate constraint was asked for and what it reached, over the decode steps in which it was active."""
    report: dict[str, Any] = {"name": constraint.name or type(constraint).__name__}
    target = getattr(constraint, "target", None)
    if target is None:
        return report
    rate = _share(active.misses, active.misses + active.hits)
    return report | {
        "target": target,
        "active_tokens": active.steps,
        "rate": rate,
        "met": None if rate is None else rate <= target,
        "strength_mean": _share(active.strength_sum, active.steps),
        "strength_last": active.strength_last,
    }


def optimum_report(decode: Mapping[str, Any], bound_bytes: int) -> dict[str, Any]:
    """Bytes that any cache reads from flash at least for these look-ups, and how many times as many were read."""
    return {
        "flash_read_bytes_bound": bound_bytes,
        "headroom": _share(decode["bytes"]["flash_read"], bound_bytes),
    }


def _phase(totals: PhaseTotals, tokens: int) -> dict[str, Any]:
    total = totals.sums

    def whole(name: str) -> int:
        return int(total.get(name, 0))

    hits = {kind: whole(f"{kind}_hits") for kind in ("msb", "lsb")}
    misses = {kind: whole(f"{kind}_misses") for kind in ("msb", "lsb")}
    latency = whole("latency_ps")
    energy = {name: float(total.get(f"{name}_energy_pj", 0.0)) for name in ("total", *TIERS, "expert", "non_expert")}
    seconds = latency / PS_PER_S
    npu_traffic = sum(
        whole(f"{cause}_dram_{way}_bytes") for cause in ("expert", "non_expert") for way in ("read", "write")
    )
    return {
        "tokens": tokens,
        "requests": {kind: whole(f"{kind}_requests") for kind in ("msb", "lsb")},
        "hits": hits,
        "misses": misses,
        "denied": {name: whole(name) for name in ("degraded", "substituted", "dropped")},
        "rerouted": whole("rerouted"),
        "prefetched": {
            "slices": whole("prefetched"),
            "used": whole("msb_ahead_hits") + whole("lsb_ahead_hits"),
        },
        "miss_rate": {
            "slices": _share(misses["msb"] + misses["lsb"], sum(misses.values()) + sum(hits.values())),
            "msb": _share(misses["msb"], misses["msb"] + hits["msb"]),
            "lsb": _share(misses["lsb"], misses["lsb"] + hits["lsb"]),
            "bytes": _share(whole("missed_bytes"), whole("lookup_bytes")),
        },
        "bytes": {
            "flash_read": whole("flash_read_bytes"),
            "dram_read": whole("expert_dram_read_bytes") + whole("non_expert_dram_read_bytes"),
            "dram_write": whole("expert_dram_write_bytes") + whole("non_expert_dram_write_bytes") + whole("fill_bytes"),
            "sram_read": npu_traffic,
            "sram_write": npu_traffic,
            "topup": whole("topup_bytes"),
            "all_to_all": whole("all_to_all_bytes"),
        },
        "remote_visits": _share(whole("remote_visits"), whole("device_visits")),
        "latency_ps": {"total": latency, **_distribution(totals.latency_ps)},
        "tokens_per_s": _share(tokens, seconds),
        "energy_pj": energy,
        "energy_pj_per_token": {name: _share(value, tokens) for name, value in energy.items()},
        "average_power_w": _share(energy["total"] * 1e-12, seconds),
        "energy_delay_product_j_s": energy["total"] * 1e-12 * seconds,
        "time_ps": {name: whole(f"{name}_ps") for name in ("npu", "dram_stall", "flash_stall", "exchange")},
        "utilisation": {
            name: _share(whole(f"{column}_ps"), latency)
            for name, column in (("flash", "flash_busy"), ("dram", "dram_busy"), ("npu", "npu"))
        },
        "quality": {
            "high_mass": _share(total.get("high_mass", 0.0), total.get("total_mass", 0.0)),
            "low_mass": _share(total.get("low_mass", 0.0), total.get("total_mass", 0.0)),
            "substituted_mass": _share(total.get("substituted_mass", 0.0), total.get("total_mass", 0.0)),
            "dropped_mass": _share(total.get("dropped_mass", 0.0), total.get("total_mass", 0.0)),
            "expected_rel_mse": _share(total.get("error_mass", 0.0), total.get("total_mass", 0.0)),
        },
    }


def _distribution(values: NDArray[np.int64]) -> dict[str, int | None]:
    names = ("mean", "p50", "p95", "p99")
    if not len(values):
        return dict.fromkeys(names)
    figures = (values.mean(), *np.percentile(values, (50, 95, 99)))
    return {name: round(float(figure)) for name, figure in zip(names, figures, strict=True)}


def _share(part: float, whole: float) -> float | None:
    """A ratio, or None where there is nothing to divide by."""
    return float(part) / float(whole) if whole else None
