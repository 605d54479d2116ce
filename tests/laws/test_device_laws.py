"""A better coefficient never makes a whole run slower or costlier, in ``serial``, on every form of device.

Left out: the shape of an array. A larger one takes longer to fill and to drain, so a small product can be slower on it.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devices import cpu_client, from_memory, npu_by_macs, npu_by_shape, section, warming
from tests.kit import random_trace, run

FLASH = {
    "device.flash.bandwidth_gbs": "up",
    "device.flash.lane_bandwidth_gbs": "up",
    "device.flash.latency_us": "down",
    "device.flash.gap_us": "down",
    "device.flash.lanes": "up",
    "device.flash.queue_depth": "up",
    "device.flash.queues": "up",
    "device.flash.hot_share": "up",
    "device.flash.hot_time_constant_s": "up",
    "device.flash.energy_pj_per_bit": "down",
    "device.flash.background_power_mw": "down",
}
DRAM = {
    "device.dram.channels": "time",
    "device.dram.energy_pj_per_bit": "down",
    "device.dram.activation_energy_pj": "down",
    "device.dram.background_power_mw": "down",
}
SRAM = {
    "device.sram.capacity_kib": "up",
    "device.sram.read_energy_pj_per_byte": "down",
    "device.sram.write_energy_pj_per_byte": "down",
    "device.sram.leakage_power_mw": "down",
}
CLIENT = {
    "client_share": "up",
    "layer_overhead_us": "down",
    "dequant_ps_per_weight": "down",
    "mac_energy_pj": "down",
    "dequant_energy_pj_per_weight": "down",
    "background_power_mw": "down",
}
FORMS = {
    "npu shape": (npu_by_shape, {"clock_ghz": "up", **CLIENT}),
    "npu macs": (npu_by_macs, {"clock_ghz": "up", "macs_per_cycle": "up", "gemv_utilisation": "up", **CLIENT}),
    "cpu": (cpu_client, {"gflops": "up", **CLIENT}),
}

#: Where a coefficient starts; it is multiplied by 1 to 8.
START = {
    "channels": 1,
    "lanes": 1,
    "queue_depth": 1,
    "queues": 1,
    "bandwidth_gbs": 0.25,
    "lane_bandwidth_gbs": 0.125,
    "hot_share": 0.125,
    "hot_time_constant_s": 1e-5,
    "client_share": 0.125,
    "gemv_utilisation": 0.125,
    "capacity_kib": 0.0625,
    "clock_ghz": 0.02,
    "macs_per_cycle": 8,
    "dequant_ps_per_weight": 500.0,
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Assignments of the worse and of the better device, and whether energy is compared too."""
    form = draw(st.sampled_from(sorted(FORMS)))
    make, own = FORMS[form]
    name = form.split()[0]
    keys = {**FLASH, **DRAM, **SRAM, **{f"device.{name}.{key}": better for key, better in own.items()}}
    key = draw(st.sampled_from(sorted(keys)))
    low, high = sorted((draw(st.integers(1, 8)), draw(st.integers(1, 8))))
    worse, better = (high, low) if keys[key] == "down" else (low, high)
    base = {
        **make(0.02, layer_overhead_us=1.0, dequant_ps_per_weight=100.0),
        **from_memory(energy_pj_per_bit=6.0, activation_energy_pj=1200.0, background_power_mw=50.0),
        **warming(),
        "device__flash__gap_us": section(gap_us=2.0)["gap_us"],
        "device__flash__queue_depth": section(depth=4)["depth"],
        "device__flash__queues": section(queues=1)["queues"],
        "device__flash__latency_us": 2.0,
        "device__flash__lanes": 3,
        "device__flash__background_power_mw": 5.0,
    }
    base = {name.replace("__", "."): value for name, value in base.items()}
    scale = START.get(key.rpartition(".")[2], 1.0)
    both = tuple(_with(base, key, scale * factor) for factor in (worse, better))
    return both[0], both[1], keys[key] != "time"


def _with(base: dict[str, Any], key: str, value: float) -> dict[str, Any]:
    """Set one coefficient, in a section that is given whole or beside it."""
    parent, _, leaf = key.rpartition(".")
    new = {"value": value, "source": "test"}
    return {**base, parent: {**base[parent], leaf: new}} if parent in base else {**base, key: new}


@given(case=cases(), seed=st.integers(0, 1000), policy=st.sampled_from(("slicemoe", "lru-high")))
@settings(max_examples=150, deadline=None)
def test_a_better_device_is_never_slower_or_costlier(case, seed, policy):
    """Durations are whole picoseconds, rounded up: 2 ps for each of some hundred reads."""
    worse, better, energy_too = case
    trace = random_trace(seed, 12, prompt=4)
    slow, fast = (
        run(trace, policy=policy, **{"schedule.overlap": "serial", **keys}).summary for keys in (worse, better)
    )
    for phase in ("prefill", "decode"):
        assert fast[phase]["latency_ps"]["total"] <= slow[phase]["latency_ps"]["total"] + 2000
        if energy_too:
            assert fast[phase]["energy_pj"]["total"] <= slow[phase]["energy_pj"]["total"] * (1 + 1e-6)


@pytest.mark.parametrize("state", ["standby", "power-down", "self-refresh"])
def test_a_deeper_idle_state_costs_less(state):
    """Rows open cost most, then standby, power-down, self-refresh: with the same times."""
    keys = {key.replace("__", "."): value for key, value in {**npu_by_macs(0.5), **from_memory()}.items()}
    states = ["standby", "power-down", "self-refresh"]
    energies = []
    for idle in states[: states.index(state) + 1]:
        dram = {**keys["device.dram"], "idle_state": idle}
        energies.append(run(random_trace(0, 12), **{**keys, "device.dram": dram}).decode["energy_pj"]["background"])
    assert energies == sorted(energies, reverse=True)
    assert len(set(energies)) == len(energies)
