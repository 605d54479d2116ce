"""The laws of semantics.md, section 8, on random small scenarios."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import DecodeDemand
from slicesim.hardware.units import PS_PER_S
from tests.kit import EXPERT_BYTES, LSB_BYTES, MSB_BYTES, random_trace, run, simulation

POLICIES = ("slicemoe", "dbsc", "lru-slices", "lru-high", "lru-low", "lfu-keep", "lfu-forget", "fifo", "random")
OFFLINE = ("static", "belady")
WARMUPS = ("none", "empty", "last-layer", "random", "random-slices", "pcw", "pcw-topup")

seeds = st.integers(0, 10_000)
policies = st.sampled_from(POLICIES + OFFLINE)
overlaps = st.sampled_from(("serial", "layer"))
few = settings(max_examples=25, deadline=None)


@given(seed=seeds, policy=policies, overlap=overlaps, experts=st.integers(2, 16), warmup=st.sampled_from(WARMUPS))
@settings(max_examples=60, deadline=None)
def test_counts_bytes_and_residency(seed, policy, overlap, experts, warmup):
    trace = random_trace(seed, 24, requests=2, prompt=6)
    simulated = simulation(
        trace,
        policy=policy,
        schedule__overlap=overlap,
        cache__capacity_gb=experts * EXPERT_BYTES / 1e9,
        policy__warmup={"name": warmup},
    )
    for demand, plan, timeline in simulated.tables():
        if isinstance(demand, DecodeDemand):
            assert (demand.resident_bytes <= experts * EXPERT_BYTES).all()
        assert (timeline.op_ready(plan) <= timeline.op_request).all()
        assert (timeline.op_request <= timeline.op_grant).all()
        assert (timeline.op_grant + plan.ops.stream_ps[plan.workload.op_kind] <= timeline.op_end).all()
        assert (timeline.read_start < timeline.read_pipe).all()
        assert (timeline.read_end <= timeline.read_write).all()
    result = simulated.run()
    sizes = (int(simulated.sizes.msb_bytes[0]), int(simulated.sizes.lsb_bytes[0]))
    for part in (result.prefill, result.decode):
        for kind in ("msb", "lsb"):
            lookups = part["hits"][kind] + part["misses"][kind]
            denied = (
                part["denied"]["degraded"]
                if kind == "lsb"
                else (part["denied"]["dropped"] + part["denied"]["substituted"])
            )
            assert part["requests"][kind] == lookups + denied
        fetched = part["misses"]["msb"] * sizes[0] + part["misses"]["lsb"] * sizes[1]
        assert part["bytes"]["flash_read"] == fetched + part["bytes"]["topup"]
        assert part["energy_pj"]["total"] == pytest.approx(
            sum(part["energy_pj"][tier] for tier in ("flash", "dram", "sram", "npu", "interconnect", "background")),
            rel=1e-12,
        )
        assert part["energy_pj"]["total"] == pytest.approx(
            sum(part["energy_pj"][cause] for cause in ("expert", "non_expert", "background")), rel=1e-12
        )
        assert sum(part["time_ps"].values()) == part["latency_ps"]["total"]
    assert result.decode["requests"]["msb"] == 2 * (24 - 6) * 2 * 2
    assert (result.tokens["flash_stall_ps"] >= 0).all()
    if warmup != "pcw-topup":
        assert result.prefill["bytes"]["topup"] == 0


@given(seed=seeds, policy=st.sampled_from(("slicemoe", "lru-high", "lru-low")), overlap=overlaps)
@few
def test_energy_is_derivable_from_the_files(seed, policy, overlap, tmp_path_factory):
    """Coefficients from summary.json x counts from tokens.parquet give the energy columns again."""
    folder = tmp_path_factory.mktemp("result") / "out"
    separate = {"value": 3.0, "source": "test"}
    result = run(
        random_trace(seed, 16, prompt=4),
        policy=policy,
        schedule__overlap=overlap,
        schedule__timeline_tokens=0,
        device__dram__activation_energy_pj=1200,
        device__dram__background_power_mw=180,
        device__flash__background_power_mw=5,
        device__npu={
            "macs_per_cycle": {"value": 64, "source": "test"},
            "clock_ghz": {"value": 1.0, "source": "test"},
            "gemv_utilisation": {"value": 0.5, "source": "test"},
            "gemm_utilisation": {"value": 1.0, "source": "test"},
            "bit_cost": "bricks",
            "mac_energy_pj": separate,
            "dequant_energy_pj_per_weight": separate,
            "background_power_mw": separate,
        },
        device__sram__read_energy_pj_per_byte=separate,
        device__sram__write_energy_pj_per_byte=separate,
        device__sram__leakage_power_mw=separate,
    )
    result.save(folder)
    rows = pd.read_parquet(folder / "tokens.parquet")
    device = json.loads((folder / "summary.json").read_text())["scenario"]["device"]

    def c(tier, key):
        return device[tier][key]["value"]

    moved = sum(rows[f"{cause}_dram_{way}_bytes"] for cause in ("expert", "non_expert") for way in ("read", "write"))
    activations = rows["expert_activations"] + rows["non_expert_activations"] + rows["fill_activations"]
    eighths = rows["expert_mac_eighths"] + rows["non_expert_mac_eighths"]
    dequantised = rows["expert_dequantised_weights"] + rows["non_expert_dequantised_weights"]
    power = 180 + 5 + 3 + 3
    again = {
        "flash": rows["flash_read_bytes"] * 8 * c("flash", "energy_pj_per_bit"),
        "dram": (moved + rows["fill_bytes"]) * 8 * c("dram", "energy_pj_per_bit") + activations * 1200,
        "sram": moved * (3.0 + 3.0),
        "npu": eighths / 8 * 3.0 + dequantised * 3.0,
        "background": rows["latency_ps"] * power * 1e-3,
    }
    for tier, value in again.items():
        np.testing.assert_allclose(rows[f"{tier}_energy_pj"], value, rtol=1e-9)


COEFFICIENTS = {
    "device.flash.bandwidth_gbs": "up",
    "device.flash.lane_bandwidth_gbs": "up",
    "device.flash.latency_us": "down",
    "device.flash.energy_pj_per_bit": "down",
    "device.flash.background_power_mw": "down",
    "device.dram.bandwidth_gbs": "up",
    "device.dram.energy_pj_per_bit": "down",
    "device.dram.activation_energy_pj": "down",
    "device.dram.background_power_mw": "down",
    "device.npu.clock_ghz": "up",
    "device.npu.macs_per_cycle": "up",
    "device.npu.gemv_utilisation": "up",
    "device.npu.gemm_utilisation": "up",
    "device.npu.efficiency_tops_per_w": "up",
}


@given(
    seed=seeds,
    key=st.sampled_from(sorted(COEFFICIENTS)),
    values=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    policy=st.sampled_from(("slicemoe", "lru-high")),
)
@settings(max_examples=60, deadline=None)
def test_a_better_device_is_never_slower_or_costlier(seed, key, values, policy):
    """Strict in serial overlap; background power ties energy to time, so it is set in every case."""
    trace = random_trace(seed, 12, prompt=4)
    low, high = sorted(values)
    worse, better = (low, high) if COEFFICIENTS[key] == "up" else (high, low)
    scale = 0.125 if "utilisation" in key else 1.0
    common = {"device.dram.background_power_mw": 100, "device.flash.latency_us": 2}

    def go(value):
        return run(trace, policy=policy, schedule__overlap="serial", **{**common, key: value * scale}).summary

    slow, fast = go(worse), go(better)
    for phase in ("prefill", "decode"):
        assert fast[phase]["latency_ps"]["total"] <= slow[phase]["latency_ps"]["total"]
        assert fast[phase]["energy_pj"]["total"] <= slow[phase]["energy_pj"]["total"] * (1 + 1e-12)


@given(seed=seeds, experts=st.lists(st.integers(2, 16), min_size=2, max_size=4, unique=True))
@few
def test_a_larger_cache_never_hurts_the_optimum(seed, experts):
    trace = random_trace(seed, 40)
    misses = [
        run(trace, policy="belady", cache__capacity_gb=n * EXPERT_BYTES / 1e9).decode["misses"]["msb"]
        for n in sorted(experts)
    ]
    assert misses == sorted(misses, reverse=True)


@given(seed=seeds, policy=st.sampled_from(POLICIES), experts=st.integers(2, 16))
@few
def test_belady_is_a_lower_bound_for_whole_experts(seed, policy, experts):
    trace = random_trace(seed, 40)
    keys = {"cache.capacity_gb": experts * EXPERT_BYTES / 1e9, "policy.precision": {"name": "uniform-high"}}
    keys["policy.constraint"] = {"name": "none"}
    best = run(trace, policy="belady", **keys).decode["misses"]["msb"]
    assert best <= run(trace, policy=policy, **keys).decode["misses"]["msb"]


@given(seed=seeds, policy=st.sampled_from(("dbsc", "lru-slices", "lru-high")))
@few
def test_strength_zero_is_stock_routing(seed, policy):
    trace = random_trace(seed, 30, prompt=5, logits=True)
    stock = run(trace, policy=policy)
    zero = run(trace, policy=policy, policy__routing={"name": "cache-prior", "strength": 0.0, "top_j": 2})
    assert zero.decode["rerouted"] == 0
    for key in ("requests", "hits", "misses", "latency_ps", "energy_pj", "quality"):
        assert stock.decode[key] == zero.decode[key]


@given(seed=seeds, strength=st.floats(0, 1), policy=st.sampled_from(("dbsc", "lru-high", "lru-low")))
@few
def test_everything_resident_gives_no_misses_and_stock_routing(seed, strength, policy):
    """16 experts fit: what a second, equal request wants is all there, for any strength."""
    once = random_trace(seed, 20, logits=True)
    block = once.block
    twice = type(once)(once.header, type(block)(*(np.concatenate((column, column)) for column in block)))
    twice.block.request[20:] = 1
    result = run(
        twice,
        policy=policy,
        cache__capacity_gb=16 * EXPERT_BYTES / 1e9,
        policy__routing={"name": "cache-prior", "strength": strength, "top_j": 0},
    )
    second = result.tokens[result.tokens["request"] == 1]
    if strength == 0 or policy != "dbsc":
        assert second["msb_misses"].sum() == 0 or strength > 0
    everything = run(twice, policy=policy, cache__capacity_gb=16 * EXPERT_BYTES / 1e9)
    after = everything.tokens[everything.tokens["request"] == 1]
    assert after[["msb_misses", "lsb_misses"]].to_numpy().sum() == 0


@given(seed=seeds, objects=st.integers(2, 3), policy=st.sampled_from(("lru-high", "lru-low")))
@few
def test_lru_below_the_cliff_hits_exactly_nothing(seed, objects, policy):
    """2 layers x top-2: fewer than (2 - 1) x 2 + 1 = 3 experts give 0 %; with 3, hits are possible."""
    size = EXPERT_BYTES if policy == "lru-high" else MSB_BYTES
    result = run(random_trace(seed, 60), policy=policy, cache__capacity_gb=objects * size / 1e9)
    if objects < 3:
        assert result.decode["hits"]["msb"] == 0
        assert any("LRU cliff" in warning for warning in result.summary["warnings"])


@given(seed=seeds, policy=st.sampled_from(("slicemoe", "random")), overlap=overlaps)
@settings(max_examples=4, deadline=None)
def test_same_scenario_and_seed_give_the_same_bytes(seed, policy, overlap, tmp_path_factory):
    folder = tmp_path_factory.mktemp("twice")
    trace = random_trace(seed, 20, prompt=5)
    for name in ("a", "b"):
        run(trace, policy=policy, schedule__overlap=overlap, seed=seed).save(folder / name)
    files = sorted(path.name for path in (folder / "a").iterdir())
    assert files == [
        "overview.png",
        "overview.svg",
        "residency.parquet",
        "summary.json",
        "timeline.json",
        "tokens.parquet",
    ]
    for name in files:
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes(), name


@given(seed=seeds, target=st.sampled_from((0.0, 0.02, 0.1, 0.3)), start=st.integers(0, 12))
@few
def test_the_budget_holds_but_for_first_ranked_experts(seed, target, start):
    """Per request: misses <= target x look-ups after every batch, or all misses beyond are first-ranked MSBs."""
    trace = random_trace(seed, 40, requests=2, prompt=5)
    simulated = simulation(
        trace, policy="slicemoe", policy__constraint={"name": "budget", "target": target, "start_step": start}
    )
    for demand, _, _ in simulated.tables():
        if isinstance(demand, DecodeDemand):
            denied = (demand.outcome & (32 | 64)) != 0
            assert not denied[:start].any()
            assert not (demand.outcome[:, :, 0] & 64).any(), "a first-ranked expert was dropped"
            misses = lookups = 0
            for token in demand.outcome[start:]:
                for batch in token:
                    new = sum(bool(o & 2) + bool(o & 16) for o in batch.tolist())
                    exempt = bool(batch[0] & 2)
                    misses += new
                    lookups += new + sum(bool(o & 1) + bool(o & 8) for o in batch.tolist())
                    assert misses <= target * lookups or new == exempt


@given(seed=seeds)
@few
def test_tokens_follow_one_another_without_gaps(seed):
    rows = run(random_trace(seed, 12, requests=2, prompt=4)).tokens
    ends = rows["start_ps"] + rows["latency_ps"]
    assert rows["start_ps"].iloc[0] == 0
    assert (rows["start_ps"].to_numpy()[1:] == ends.to_numpy()[:-1]).all()
    summary = run(random_trace(seed, 12, requests=2, prompt=4)).decode
    assert summary["tokens_per_s"] == pytest.approx(summary["tokens"] * PS_PER_S / summary["latency_ps"]["total"])


def test_slice_sizes_of_the_tiny_model():
    simulated = simulation(random_trace(0, 2))
    assert (simulated.sizes.msb_bytes[0], simulated.sizes.lsb_bytes[0]) == (MSB_BYTES, LSB_BYTES)
