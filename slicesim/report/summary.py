"""The summary: what ``--json`` prints and ``summary.json`` holds (semantics, section 9)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from slicesim.hardware.units import PS_PER_S
from slicesim.policies import Constraint
from slicesim.trace import DECODE, PREFILL

TIERS = ("flash", "dram", "sram", "npu", "background")


def summarise(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the ``prefill`` and ``decode`` parts of the summary, from one row per step."""
    prefill, decode = rows[rows["phase"] == PREFILL], rows[rows["phase"] == DECODE]
    ttft = prefill["latency_ps"]
    return {
        "prefill": {
            "requests_with_prompt": len(prefill),
            "ttft_ps": _distribution(ttft) if len(prefill) else None,
            **_phase(prefill, int(prefill["prompt_tokens"].sum())),
        },
        "decode": {"stall_tokens": _stalled(decode), **_phase(decode, len(decode))},
    }


def constraint_report(rows: pd.DataFrame, constraint: Constraint) -> dict[str, Any]:
    """What a miss-rate constraint was asked for and what it reached, over the decode steps in which it was active."""
    report: dict[str, Any] = {"name": constraint.name or type(constraint).__name__}
    target = getattr(constraint, "target", None)
    if target is None:
        return report
    decode = rows[rows["phase"] == DECODE]
    seen = ["msb_misses", "lsb_misses", "msb_hits", "lsb_hits", "strength"]
    active = decode.loc[decode.groupby("request").cumcount() >= getattr(constraint, "start_step", 0), seen]
    misses = int(active[["msb_misses", "lsb_misses"]].to_numpy().sum())
    hits = int(active[["msb_hits", "lsb_hits"]].to_numpy().sum())
    rate = _share(misses, misses + hits)
    strength = active["strength"].to_numpy()
    return report | {
        "target": target,
        "active_tokens": len(active),
        "rate": rate,
        "met": None if rate is None else rate <= target,
        "strength_mean": float(strength.mean()) if len(strength) else None,
        "strength_last": float(strength[-1]) if len(strength) else None,
    }


def _phase(rows: pd.DataFrame, tokens: int) -> dict[str, Any]:
    total = rows.sum(numeric_only=True)

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
        },
        "latency_ps": {"total": latency, **_distribution(rows["latency_ps"])},
        "tokens_per_s": _share(tokens, seconds),
        "energy_pj": energy,
        "energy_pj_per_token": {name: _share(value, tokens) for name, value in energy.items()},
        "average_power_w": _share(energy["total"] * 1e-12, seconds),
        "energy_delay_product_j_s": energy["total"] * 1e-12 * seconds,
        "time_ps": {name: whole(f"{name}_ps") for name in ("npu", "dram_stall", "flash_stall")},
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


def _distribution(values: pd.Series[int]) -> dict[str, int | None]:
    names = ("mean", "p50", "p95", "p99")
    if not len(values):
        return dict.fromkeys(names)
    numbers = values.to_numpy()
    figures = (numbers.mean(), *np.percentile(numbers, (50, 95, 99)))
    return {name: round(float(figure)) for name, figure in zip(names, figures, strict=True)}


def _stalled(rows: pd.DataFrame) -> int:
    """Tokens that waited for flash."""
    return int((rows["flash_stall_ps"] > 0).sum())


def _share(part: float, whole: float) -> float | None:
    """A ratio, or None where there is nothing to divide by."""
    return float(part) / float(whole) if whole else None
