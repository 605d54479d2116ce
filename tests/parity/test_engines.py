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
from tests.kit import EXPERT_BYTES, MOBILE, random_trace, simulation, tiny_model


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


#: How experts and reads are cut.
CUTS = st.fixed_dictionaries(
    {
        "schedule__pipeline": st.sampled_from(("expert", "matrix")),
        "schedule__read_kib": st.sampled_from((None, 0.25, 0.5, 64)),
    }
)

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
    cuts=CUTS,
    prefill=st.sampled_from(("layer", "stream")),
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_cases(device, mode, policy, experts, scope, shape, warmup, at_once, cuts, prefill, monkeypatch):
    """Small tables of one or three tokens carry late prefetches from plan to plan."""
    monkeypatch.setattr(sys.modules["slicesim.decide.decide"], "TOKENS_PER_TABLE", at_once)
    overlap, prefetch = mode
    seed, requests, prompt, logits = shape
    trace = random_trace(seed, prompt + 8, requests=requests, prompt=prompt, logits=logits)
    keys = {
        **device,
        **cuts,
        "schedule__overlap": overlap,
        "schedule__prefill": prefill if overlap == "prefetch" else "layer",
        "policy__warmup": {"name": warmup},
        "cache__scope": scope,
        "cache__capacity_gb": max(experts, 4 if scope == "layer" else 2) * EXPERT_BYTES / 1e9,
        **({} if prefetch is None else {"policy__prefetch": prefetch}),
    }
    assert_equal(*(simulation(trace, policy=policy, schedule__engine=name, **keys) for name in ("fast", "reference")))


@pytest.mark.parametrize("name", ["popularity", "adaptive", "activation-matching", "next-logits"])
@given(
    device=devices(), seed=st.integers(0, 50), budget=st.sampled_from((0.004, 0.03)), cuts=CUTS, logits=st.booleans()
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_guesses_that_are_often_wrong(name, device, seed, budget, cuts, logits, monkeypatch):
    monkeypatch.setattr(sys.modules["slicesim.decide.decide"], "TOKENS_PER_TABLE", 3)
    trace = random_trace(seed, 12, requests=2, prompt=4, logits=logits, model=tiny_model("tiny-deep"))
    choice = {"name": name, "depth": 3, "budget_mb": budget, **({"accuracy": 0.5} if name == "next-logits" else {})}
    keys = {
        **device,
        **cuts,
        "schedule__overlap": "prefetch",
        "schedule__prefill": "stream",
        "policy__prefetch": choice,
    }
    both = (simulation(trace, "tiny-deep", "dbsc", schedule__engine=e, **keys) for e in ("fast", "reference"))
    assert_equal(*both)


@pytest.mark.parametrize("policy", ["dbsc", "slicemoe"])
@given(device=devices(), seed=st.integers(0, 50), cuts=CUTS)
@settings(max_examples=25, deadline=None)
def test_who_never_reads_ahead_is_timed_alike_in_layer_and_prefetch(policy, device, seed, cuts):
    """So a comparison may run all policies under ``prefetch``."""
    trace = random_trace(seed, 12, requests=2, prompt=4)
    keys = {**device, **cuts, "policy__warmup": {"name": "pcw-topup"}}
    both = [timelines(simulation(trace, policy=policy, schedule__overlap=o, **keys)) for o in ("layer", "prefetch")]
    for left, right in zip(*both, strict=True):
        for name, column in vars(left).items():
            np.testing.assert_array_equal(column, vars(right)[name], err_msg=name)


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
