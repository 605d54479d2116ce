"""Hand-over to decode: what stays, in which order, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import PrefillDemand
from slicesim.decide.cache import look_up_all
from slicesim.policies import LSB, MSB
from slicesim.policies.slices import SliceState
from slicesim.policies.warmup import Pcw, PcwTopUp, RandomExperts, RandomSlices
from tests.kit import EXPERT_BYTES, make_trace, random_trace, run, simulation

SIZES = {MSB: 3, LSB: 2}
RNG = np.random.default_rng(0)


def state(
    experts: int, capacity: int, counts: dict[int, tuple[int, int, float]], resident: dict[int, str]
) -> SliceState:
    """One layer; counts: expert -> (selections, critical ones, score sum); resident: expert -> "m" or "ml"."""
    slices = SliceState.empty(np.full((1, experts, 2), [SIZES[MSB], SIZES[LSB]]), capacity)
    for expert, (selections, critical, score) in counts.items():
        slices.prompt_count[2 * expert : 2 * expert + 2] = selections, critical
        slices.prompt_score[2 * expert : 2 * expert + 2] = score
    for expert, kinds in resident.items():
        entries = 2 * expert + np.arange(len(kinds))
        look_up_all(slices.slices, slices.caches, slices.clock, entries, np.full(len(kinds), 0.1))
    slices.priority[:] = RNG.random(2 * experts)
    return slices


def test_pcw_sorts_by_hotness():
    """Without count: expert 3. LSB by critical count: 1 (one), 0 (two). MSB by count: 1 (4), 0 and 2 (5, score)."""
    slices = state(4, 100, {0: (5, 2, 0.9), 1: (4, 1, 3.0), 2: (5, 0, 0.5)}, {0: "ml", 1: "ml", 2: "m", 3: "m"})
    keep, read, recency = Pcw().hand_over(slices)
    assert recency.tolist() == [6, 3, 1, 2, 4, 0]
    assert sorted(keep.tolist()) == sorted(recency.tolist())
    assert not len(read)


def test_pcw_top_up_reads_what_is_hotter_than_what_it_drops():
    """Room for 8 B: the MSBs of 0 and of 2 take 6; the MSB of 1 comes next, before any LSB, and does not fit."""
    slices = state(4, 8, {0: (5, 2, 0.9), 1: (1, 1, 3.0), 2: (4, 0, 0.5)}, {0: "m", 1: "ml"})
    keep, read, recency = PcwTopUp().hand_over(slices)
    assert keep.tolist() == [0]
    assert read.tolist() == [4]
    assert recency.tolist() == [4, 0]


def test_pcw_streams_out_cold_slices_first():
    slices = state(3, 100, {0: (5, 0, 0.9), 1: (4, 3, 3.0), 2: (4, 1, 0.5)}, {0: "ml", 1: "ml", 2: "ml"})
    entries = np.flatnonzero(slices.resident)
    order = entries[np.lexsort(Pcw().score(slices, entries, None)[::-1])]
    assert order.tolist() == [1, 5, 3, 4, 2, 0]


@given(seed=st.integers(0, 999), capacity=st.integers(5, 60))
@settings(max_examples=50, deadline=None)
def test_random_subsets_fit_and_hold_no_orphan(seed, capacity):
    rng = np.random.default_rng(seed)
    counts = {expert: (int(rng.integers(1, 9)), 1, 1.0) for expert in range(0, 12, 2)}
    slices = state(12, capacity, counts, dict.fromkeys(range(12), "ml"))
    slices.priority[:] = rng.random(24)
    for warmup in (RandomExperts(), RandomSlices()):
        keep = warmup.hand_over(slices).keep
        assert slices.size_bytes[keep].sum() <= capacity
        assert set((keep // 2).tolist()) <= set(counts), "only streamed experts stay"
        assert all(entry - 1 in keep for entry in keep if entry % 2 == LSB)


def test_random_draws_every_expert_alike():
    """Room for 3 of 6 experts: each stays in about half of 2,000 draws."""
    slices = state(6, 15, dict.fromkeys(range(6), (1, 1, 1.0)), dict.fromkeys(range(6), "ml"))
    stays = np.zeros(6)
    for _ in range(2000):
        slices.priority[:] = RNG.random(12)
        stays[np.unique(RandomExperts().hand_over(slices).keep // 2)] += 1
    assert stays / 2000 == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("warmup", ["empty", "last-layer", "random", "random-slices", "pcw", "pcw-topup", "none"])
def test_prefill_reads_each_missing_slice_once(warmup):
    trace = random_trace(3, 20, prompt=10)
    demands = [
        d for d, _, _ in simulation(trace, policy__warmup={"name": warmup}).tables() if isinstance(d, PrefillDemand)
    ]
    assert len(demands) == 1
    pairs = list(zip(demands[0].layer.tolist(), demands[0].expert.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    result = run(trace, policy__warmup={"name": warmup})
    assert result.prefill["misses"] == {"msb": len(pairs), "lsb": len(pairs)}


def test_last_layer_keeps_the_last_layer_and_pcw_the_hot_experts():
    """Layer 1 asks experts 0 and 1 five times; layer 2 asks ten experts once or more; room for two experts."""
    ids = [[[0, 1], [2 * t % 8, (2 * t + 1) % 8]] for t in range(5)] + [[[0, 1], [0, 1]]] * 2
    trace = make_trace(ids, [[[0.6, 0.3]] * 2] * 7, prompt=5)
    first = {}
    for warmup in ("last-layer", "pcw"):
        keys = {"policy.warmup": {"name": warmup}, "cache.capacity_gb": 2.2 * EXPERT_BYTES / 1e9}
        rows = run(trace, **keys).tokens
        first[warmup] = int(rows[rows["phase"] == "decode"].iloc[0]["msb_hits"])
    assert first["pcw"] >= 2 > first["last-layer"]


def test_top_up_is_paid_in_prefill():
    """From a cold start PCW's streaming keeps the hottest slices already; later requests find leftovers in the way."""
    trace = random_trace(5, 20, requests=4, prompt=10)
    plain, topped = (run(trace, policy__warmup={"name": name}) for name in ("pcw", "pcw-topup"))
    assert plain.prefill["bytes"]["topup"] == 0
    assert topped.prefill["bytes"]["topup"] > 0
    assert topped.prefill["energy_pj"]["flash"] > plain.prefill["energy_pj"]["flash"]
    assert topped.prefill["ttft_ps"]["mean"] > plain.prefill["ttft_ps"]["mean"]
