"""The two engines on devices beyond the paper's: memory by name, array by shape, CPU, a flash that warms up."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slicesim.scenario import Scenario
from slicesim.simulation import Simulation
from tests.devices import CONFIGS, cpu_client, from_memory, npu_by_macs, npu_by_shape, on_shipped_trace, warming
from tests.kit import EXPERT_BYTES, random_trace, simulation
from tests.parity.test_engines import PREFETCHES, assert_equal


@st.composite
def devices(draw: st.DrawFn) -> dict[str, Any]:
    by_memory = draw(st.booleans())
    share = draw(st.sampled_from((0.001, 0.01, 0.5))) if by_memory else None
    client = draw(st.sampled_from((npu_by_shape, cpu_client, npu_by_macs)))
    return {
        **client(share, layer_overhead_us=draw(st.sampled_from((0.0, 1.0, 7.5)))),
        **(from_memory(draw(st.sampled_from(("LPDDR4-3200", "DDR5-4800", "HBM2")))) if by_memory else {}),
        **(warming(hot=0.4, seconds=draw(st.sampled_from((1e-6, 1e-4)))) if draw(st.booleans()) else {}),
        "device__flash__latency_us": draw(st.sampled_from((0.5, 4.0))),
        "device__flash__lanes": draw(st.integers(1, 5)),
        "device__flash__queue_depth": {"value": draw(st.integers(1, 4)), "source": "test"},
        "device__flash__gap_us": {"value": draw(st.sampled_from((0.0, 1.0))), "source": "test"},
        "device__sram__capacity_kib": draw(st.sampled_from((0.1, 8192))),
    }


@given(
    device=devices(),
    mode=st.sampled_from((("serial", None), ("layer", None), *(("prefetch", choice) for choice in PREFETCHES[::2]))),
    policy=st.sampled_from(("dbsc", "slicemoe")),
    shape=st.tuples(st.integers(0, 50), st.integers(1, 2), st.integers(0, 6)),
    at_once=st.sampled_from((1, 3, 256)),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_cases(device, mode, policy, shape, at_once, monkeypatch):
    """Heat is carried from table to table."""
    monkeypatch.setattr(sys.modules["slicesim.decide.decide"], "TOKENS_PER_TABLE", at_once)
    overlap, prefetch = mode
    seed, requests, prompt = shape
    keys = {
        **device,
        "schedule__overlap": overlap,
        "cache__capacity_gb": 3 * EXPERT_BYTES / 1e9,
        **({} if prefetch is None else {"policy__prefetch": prefetch}),
    }
    trace = random_trace(seed, prompt + 8, requests=requests, prompt=prompt)
    assert_equal(*(simulation(trace, policy=policy, schedule__engine=name, **keys) for name in ("fast", "reference")))


def test_heat_does_not_depend_on_the_size_of_tables(monkeypatch):
    keys = {**warming(hot=0.4, seconds=1e-4), "cache__capacity_gb": 3 * EXPERT_BYTES / 1e9}
    rows = []
    for at_once in (2, 256):
        monkeypatch.setattr(sys.modules["slicesim.decide.decide"], "TOKENS_PER_TABLE", at_once)
        rows.append(simulation(random_trace(3, 30), **keys).run().tokens)
    assert rows[0].equals(rows[1])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_shipped_devices(config):
    """The prompt and a few tokens of the shipped trace."""
    keys = {"trace.max_tokens": 205}
    both = (
        Scenario.load(config, **on_shipped_trace(config), assignments={**keys, "schedule.engine": name})
        for name in ("fast", "reference")
    )
    assert_equal(*(Simulation.prepare(scenario) for scenario in both))
