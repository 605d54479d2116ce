"""The bound beside the policies that it is a bound for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.simulation import simulate
from tests.kit import EXPERT_BYTES, MOBILE, random_trace, run, simulation

ONLINE = ("lru-high", "lfu-keep", "fifo", "random")


def flash_and_bound(trace, policy, **assignments):
    decode = simulation(trace, policy=policy, **assignments).run(headroom=True).decode
    return decode["bytes"]["flash_read"], decode["optimum"]


@given(seed=st.integers(0, 10_000), experts=st.integers(2, 16))
@settings(max_examples=15, deadline=None)
def test_bound_then_belady_then_all_others(seed, experts):
    """Whole experts, all of one size: Belady is exact there, insertion forced."""
    trace = random_trace(seed, 30)
    size = {"cache__capacity_gb": experts * EXPERT_BYTES / 1e9}
    belady, optimum = flash_and_bound(trace, "belady", **size)
    assert optimum["flash_read_bytes_bound"] <= belady
    for policy in ONLINE:
        read, own = flash_and_bound(trace, policy, **size)
        assert own["flash_read_bytes_bound"] == optimum["flash_read_bytes_bound"]  # the look-ups are the same
        assert belady <= read
        assert own["headroom"] == read / own["flash_read_bytes_bound"]


@given(
    seed=st.integers(0, 10_000),
    policy=st.sampled_from(("lru-slices", "dbsc", "slicemoe", "belady-slices", "lru-high")),
    experts=st.integers(2, 16),
    warmup=st.sampled_from(("none", "empty", "random-slices", "pcw", "pcw-topup")),
    scope=st.sampled_from(("global", "layer")),
    reset=st.sampled_from(("never", "request")),
)
@settings(max_examples=60, deadline=None)
def test_no_run_reads_less_than_its_bound(seed, policy, experts, warmup, scope, reset):
    """Prompts, top-ups, denied requests, one cache for each layer, a cache that is emptied."""
    trace = random_trace(seed, 20, requests=3, prompt=seed % 7)
    read, optimum = flash_and_bound(
        trace,
        policy,
        cache__capacity_gb=(3 * (scope == "layer") + 1) * experts * EXPERT_BYTES / 1e9,
        cache__scope=scope,
        cache__reset=reset,
        policy__warmup={"name": warmup},
    )
    assert optimum["flash_read_bytes_bound"] <= read
    assert optimum["headroom"] is None or optimum["headroom"] >= 1


def test_cold_look_ups_alone_where_everything_fits():
    """All 2 x 8 experts fit: each slice that is looked up is read once, and the bound is that."""
    trace = random_trace(5, 40)
    read, optimum = flash_and_bound(trace, "dbsc", cache__capacity_gb=16 * EXPERT_BYTES / 1e9)
    assert read == optimum["flash_read_bytes_bound"]
    assert optimum["headroom"] == 1


def test_only_where_asked_for():
    trace = random_trace(1, 10)
    assert "optimum" not in run(trace).decode
    assert "optimum" in simulation(trace).run(headroom=True).decode


def test_a_larger_cache_has_a_lower_bound():
    trace = random_trace(2, 60)
    bounds = [
        flash_and_bound(trace, "dbsc", cache__capacity_gb=experts * EXPERT_BYTES / 1e9)[1]["flash_read_bytes_bound"]
        for experts in (3, 6, 9, 12)
    ]
    assert bounds == sorted(bounds, reverse=True)


def test_real_routing_is_bounded_within_two_per_cent(shared_data):
    """8,327 tokens of law texts: Belady is exact for whole experts, and its order over slices is a policy."""
    law = shared_data / "traces" / "deepseek-v2-lite" / "law.npz"
    for policy in ("belady", "belady-slices"):
        result = simulate(MOBILE, trace=law, policy=policy, set={"trace.split": "all-decode"}, headroom=True)
        assert 1 <= result.decode["optimum"]["headroom"] < 1.02
