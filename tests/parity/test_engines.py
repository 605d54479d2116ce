"""The fast engine against the reference: the same picosecond for every event, in every mode (semantics, section 5)."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slicesim.scenario import Scenario
from slicesim.schedule import Timeline
from slicesim.simulation import Simulation
from slicesim.trace import MemoryTrace, load_trace
from tests.kit import EXPERT_BYTES, MOBILE, random_trace, simulation


def timelines(simulated: Simulation) -> list[Timeline]:
    """All of them, late prefetches filled in."""
    return [timeline for _, _, timeline in simulated.tables()]


def assert_equal(fast: Simulation, reference: Simulation) -> None:
    pairs = list(zip(timelines(fast), timelines(reference), strict=True))
    for left, right in pairs:
        for name, column in vars(left).items():
            np.testing.assert_array_equal(column, vars(right)[name], err_msg=name)
    pd.testing.assert_frame_equal(fast.run().tokens, reference.run().tokens, check_exact=True)


@st.composite
def devices(draw: st.DrawFn) -> dict[str, Any]:
    """Coarse rates and latencies, so that events of different servers often fall on one instant."""
    flash = draw(st.sampled_from((0.1, 0.25, 0.5, 1.0, 2.0)))
    return {
        "device__flash__bandwidth_gbs": flash,
        "device__flash__lane_bandwidth_gbs": flash * draw(st.sampled_from((0.25, 0.5, 1.0))),
        "device__flash__latency_us": draw(st.sampled_from((1e-6, 0.5, 1.0, 4.0))),
        "device__flash__lanes": draw(st.integers(1, 5)),
        "device__dram__bandwidth_gbs": draw(st.sampled_from((0.25, 0.5, 1.0, 4.0))),
        "device__npu__macs_per_cycle": draw(st.sampled_from((8, 64, 4096))),
        "device__sram__tile_kib": draw(st.sampled_from((0.25, 1, 64))),
    }


PREFETCHES = [
    {"name": name, "depth": depth, "budget_mb": budget}
    for name in ("previous-token", "oracle")
    for depth, budget in ((1, 0.004), (1, 0.03), (3, 0.05))
]


@given(
    device=devices(),
    mode=st.sampled_from((("serial", None), ("layer", None), *(("prefetch", choice) for choice in PREFETCHES))),
    policy=st.sampled_from(("dbsc", "slicemoe", "lru-high", "lfu-keep")),
    experts=st.integers(2, 12),
    scope=st.sampled_from(("global", "layer")),
    shape=st.tuples(st.integers(0, 50), st.integers(1, 3), st.integers(0, 6), st.booleans()),
    warmup=st.sampled_from(("last-layer", "pcw-topup", "empty")),
    at_once=st.sampled_from((1, 3, 256)),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_cases(device, mode, policy, experts, scope, shape, warmup, at_once, monkeypatch):
    """Small tables of one or three tokens carry late prefetches from plan to plan."""
    monkeypatch.setattr(sys.modules["slicesim.decide.decide"], "TOKENS_PER_TABLE", at_once)
    overlap, prefetch = mode
    seed, requests, prompt, logits = shape
    trace = random_trace(seed, prompt + 8, requests=requests, prompt=prompt, logits=logits)
    keys = {
        **device,
        "schedule__overlap": overlap,
        "policy__warmup": {"name": warmup},
        "cache__scope": scope,
        "cache__capacity_gb": max(experts, 4 if scope == "layer" else 2) * EXPERT_BYTES / 1e9,
        **({} if prefetch is None else {"policy__prefetch": prefetch}),
    }
    assert_equal(*(simulation(trace, policy=policy, schedule__engine=name, **keys) for name in ("fast", "reference")))


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("overlap", ["serial", "layer", "prefetch"])
@pytest.mark.parametrize("policy", ["slicemoe", "dbsc"])
def test_real_routing(policy, overlap, lanes, shared_data):
    trace = load_trace(shared_data / "traces" / "deepseek-v2-lite" / "law.npz")
    part = MemoryTrace(trace.header, trace.block.part(0, 300))
    keys: dict[str, Any] = {"trace.split": 0.3, "schedule.overlap": overlap, "device.flash.lanes": lanes}
    if overlap == "prefetch":
        keys |= {"policy.prefetch": {"name": "previous-token", "depth": 2, "budget_mb": 30.0}}
    both = (
        Scenario.load(MOBILE, policy=policy, assignments={**keys, "schedule.engine": name})
        for name in ("fast", "reference")
    )
    assert_equal(*(Simulation.prepare(scenario, part) for scenario in both))
