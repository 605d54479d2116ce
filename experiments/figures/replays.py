"""Many runs of one trace: what decides alike is decided once, however many devices it is timed on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import CONFIG, ROOT, Subject

from slicesim.models import int8_bytes, load_model
from slicesim.result import Result
from slicesim.scenario import Scenario
from slicesim.simulation import Simulation, replay_together

HWCONFIGS = ROOT / "hwconfigs"

#: For sweeps of the cache: whatever they ask for must fit.
ROOMY_DRAM = {"device.dram.capacity_gb": 64}


@dataclass(frozen=True)
class Run:
    """One policy on one device. settings: keys of the scenario, dotted."""

    policy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Path = CONFIG


@dataclass(frozen=True)
class Device:
    """A device of the figures. settings: what differs from its file; projected: no such device was measured."""

    name: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    projected: bool = False

    @property
    def path(self) -> Path:
        """Return its file."""
        return HWCONFIGS / f"{self.config}.yaml"

    def load(self, settings: Mapping[str, Any] | None = None) -> Scenario:
        """Return its scenario."""
        return Scenario.load(self.path, assignments={**self.settings, **(settings or {})})


#: UFS 5.0 as projected: 10.8 GB/s of the link (JEDEC, October 2025), read at the same share of it as UFS 4.0 was.
UFS5 = {"device.flash.bandwidth_gbs": 9.2, "device.flash.lane_bandwidth_gbs": 5.4}

DEVICES = (
    Device("paper's phone", "mobile"),
    Device("mid-range phone", "phone-midrange"),
    Device("flagship phone 2024", "phone-flagship-2024"),
    Device("flagship phone 2026", "phone-flagship-2026", projected=True),
    Device("flagship 2026, UFS 5.0", "phone-flagship-2026", UFS5, projected=True),
    Device("Jetson Orin Nano", "jetson-orin-nano"),
    Device("Jetson AGX Orin", "jetson-agx-orin"),
    Device("Snapdragon X laptop", "laptop-snapdragon-x"),
    Device("Apple M3 Max", "apple-m3-max"),
)


def replay(subject: Subject, runs: Sequence[Run], *, headroom: bool = False) -> list[Result]:
    """Return the runs' results, in their order. headroom: with the bound on flash bytes."""
    simulations = [_prepare(subject, run) for run in runs]
    alike: dict[str, list[int]] = {}
    for number, simulation in enumerate(simulations):
        alike.setdefault(simulation.decision_key(), []).append(number)
    found: dict[int, Result] = {}
    for numbers in alike.values():
        found.update(zip(numbers, replay_together([simulations[n] for n in numbers], headroom=headroom), strict=True))
    return [found[number] for number in range(len(runs))]


def per_token(result: Result) -> dict[str, float]:
    """Return what the figures compare of decode: energy in mJ and latency in ms per token, on whatever device."""
    decode = result.decode
    energy = decode["energy_pj_per_token"]
    return {
        "miss_rate": decode["miss_rate"]["slices"],
        "energy_mj": energy["total"] * 1e-9,
        **{f"{tier}_mj": energy[tier] * 1e-9 for tier in ("flash", "dram", "npu", "background")},
        "latency_ms": decode["latency_ps"]["mean"] * 1e-9,
        "rel_mse": decode["quality"]["expected_rel_mse"],
    }


def _prepare(subject: Subject, run: Run) -> Simulation:
    keys = {"trace.layer_subset": subject.layer_share < 1, "schedule.timeline_tokens": 0, **run.settings}
    scenario = Scenario.load(run.config, model=subject.model, policy=run.policy, assignments=keys)
    return Simulation.prepare(scenario, subject.trace)


def expert_gb(model: str, high_bits: int = 8, group: int = 32) -> float:
    """Return the size of all routed experts at high precision, with scales and zero points, in GB."""
    geometry = load_model(model)
    bits = high_bits + (16 + high_bits) / group
    return float(geometry.experts * len(geometry.moe_layers) * geometry.expert_weights * bits / 8 * 1e-9)


def resident_gb(model: str, context: int) -> float:
    """Return what lies in DRAM besides the expert cache: non-expert weights at 8 bits and the KV cache, in GB."""
    geometry = load_model(model)
    return float((int8_bytes(geometry.non_expert_weights) + geometry.kv_cache_bytes(context)) * 1e-9)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
