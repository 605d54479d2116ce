"""List strategies, and others that libcachesim knows, against libcachesim and against plain replays.

libcachesim serves equal objects one by one: a trace of one layer and top-1 asks the same of slicesim. Left out of the
equal counts: ``lecar`` (random numbers; bounded below) and ``lfu-keep`` and ``lfu-aged`` (it has no such policy). Its
LFUDA is none: it gives other counts than its own GDSF for equal objects, for which both have one formula, and takes
minutes for what GDSF does at once; ``lfuda`` is held to GDSF. Capacities: SLRU's is a multiple of its four segments
(libcachesim cuts shares down to whole objects), and S3-FIFO's small queue holds two objects or more (at one,
libcachesim admits nothing).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import DecodeDemand
from slicesim.decide.decide import Decision
from slicesim.decide.demand import MSB_FETCHED, MSB_HIT, has
from slicesim.trace import DECODE, load_trace
from tests.curves.samples import make_trace, policy, request_of, sizes_of
from tests.kit import EXPERT_BYTES, LSB_BYTES, MSB_BYTES, random_trace, simulation
from tests.parity.naive_replay import Setup
from tests.parity.plain_lists import STRATEGIES, ListedReplay
from tests.parity.test_decisions import EXPERTS, LAYERS, assert_equal, budgets, caches, plain_tokens, traces

TWINS = {
    "lru-high": "LRU",
    "fifo": "FIFO",
    "lfu-forget": "LFU",
    "clock": "Clock",
    "sieve": "Sieve",
    "slru": "SLRU",
    "two-q": "TwoQ",
    "arc": "ARC",
    "s3-fifo": "S3FIFO",
    "gdsf": "GDSF",
    "lfuda": "GDSF",
}


def zipf(seed: int, requests: int, objects: int) -> list[int]:
    weights = 1 / np.arange(1, objects + 1)
    return np.random.default_rng(seed).choice(objects, size=requests, p=weights / weights.sum()).tolist()


@cache
def routing(shared_data) -> list[int]:
    """(layer, expert) of 100 tokens of recorded DeepSeek-V2-Lite, as one stream."""
    block = load_trace(shared_data / "traces" / "deepseek-v2-lite" / "law.npz").block.part(0, 100)
    return (np.arange(26)[:, None] * 64 + block.ids).reshape(-1).tolist()


def our_misses(preset: str, stream: list[int], capacity: int) -> int:
    count, objects = len(stream), max(stream) + 1
    ids, ones = np.array(stream).reshape(-1, 1, 1), np.ones((count, 1, 1))
    trace = make_trace(ids, ones, [0] * count, [DECODE] * count, experts=objects)
    demands = list(Decision(request_of(trace, policy(preset), sizes_of(1, 0, 1), capacity_bytes=capacity)))
    misses = sum(int(has(demand.outcome, MSB_FETCHED).sum()) for demand in demands)
    assert misses + sum(int(has(demand.outcome, MSB_HIT).sum()) for demand in demands) == count
    return misses


def their_misses(name: str, stream: list[int], capacity: int, **keys: object) -> int:
    libcachesim = pytest.importorskip("libcachesim")
    theirs, request = getattr(libcachesim, name)(cache_size=capacity, **keys), libcachesim.Request()
    misses = 0
    for item in stream:
        request.obj_id, request.obj_size = item + 1, 1
        misses += not theirs.get(request)
    return misses


@pytest.mark.parametrize(("preset", "name"), TWINS.items())
def test_libcachesim_counts_the_same(preset, name):
    for seed, objects, capacity in ((1, 100, 20), (2, 200, 40), (3, 64, 24), (4, 64, 60)):
        stream = zipf(seed, 3000, objects)
        assert our_misses(preset, stream, capacity) == their_misses(name, stream, capacity)


@pytest.mark.parametrize(("preset", "name"), TWINS.items())
def test_libcachesim_counts_the_same_on_recorded_routing(preset, name, shared_data):
    stream = routing(shared_data)
    for capacity in (160, 252, 800):
        assert our_misses(preset, stream, capacity) == their_misses(name, stream, capacity)


def test_libcachesim_knows_the_same_optimum(tmp_path):
    """Belady needs a trace file with the time of each object's next request."""
    libcachesim = pytest.importorskip("libcachesim")
    stream = zipf(1, 3000, 100)
    rows = np.zeros(len(stream), dtype=[("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    rows["id"], rows["size"], rows["next"] = np.array(stream) + 1, 1, -1
    seen: dict[int, int] = {}
    for place in range(len(stream) - 1, -1, -1):
        rows["next"][place] = seen.get(stream[place], -1)
        seen[stream[place]] = place
    rows.tofile(tmp_path / "stream.oracleGeneral.bin")
    for capacity in (12, 20, 60):
        reader = libcachesim.TraceReader(
            str(tmp_path / "stream.oracleGeneral.bin"), libcachesim.TraceType.ORACLE_GENERAL_TRACE
        )
        ratio = libcachesim.Belady(cache_size=capacity).process_trace(reader)[0]
        assert our_misses("belady", stream, capacity) == round(ratio * len(stream))


@pytest.mark.parametrize(("seed", "objects", "capacity"), [(1, 100, 12), (2, 100, 20), (3, 200, 40), (4, 64, 24)])
def test_lecar_stays_near_libcachesim(seed, objects, capacity):
    """Never above its LeCaR by more than 5 %, and never below its LFU by more than 10 %.

    Its random numbers are others, and it forgets the count of uses of a slice that leaves.
    """
    stream = zipf(seed, 3000, objects)
    ours = our_misses("lecar", stream, capacity)
    assert ours <= 1.05 * their_misses("LeCaR", stream, capacity)
    assert ours >= 0.9 * their_misses("LFU", stream, capacity)


@given(data=st.data(), strategy=st.sampled_from(sorted(STRATEGIES)), constrained=st.booleans())
@settings(max_examples=250, deadline=None)
def test_plain_replay(data, strategy, constrained):
    """Unequal sizes, batches, prompts, hand-overs, denials, one cache or one per layer: every count is the same."""
    trace = data.draw(traces(logits=False))
    keys = data.draw(caches(trace)) | (data.draw(budgets) if constrained else {})
    objects, capacity = keys.pop("objects"), keys.pop("capacity")
    sizes = {"threshold": (MSB_BYTES, LSB_BYTES), "uniform-high": (EXPERT_BYTES, 0), "uniform-low": (MSB_BYTES, 0)}
    setup = Setup(
        EXPERTS, LAYERS, [sizes[objects]] * LAYERS, capacity, slices=objects == "threshold", eviction="lru", **keys
    )
    period = 16 if strategy == "reuse-distance" else 2048
    simulated = simulation(
        trace,
        policy="dbsc",
        trace__top_k=trace.header.top_k,
        cache__capacity_gb=capacity / 1e9,
        cache__scope=setup.scope,
        cache__reset=setup.reset,
        policy__precision={"name": objects} | ({"threshold": setup.threshold} if setup.slices else {}),
        policy__eviction={"name": strategy} | ({"period": period} if strategy == "reuse-distance" else {}),
        policy__warmup={"name": setup.warmup},
        policy__constraint={"name": "none"}
        if setup.target is None
        else {"name": "budget", "target": setup.target, "start_step": setup.start_step},
        policy__prefill_precision=setup.prefill_precision,
    )
    drawn = np.random.default_rng(simulated.request().seed)
    draws = [drawn.random(2 * LAYERS * EXPERTS)[0] for _ in range(10)]
    assert_equal(simulated, ListedReplay(setup, plain_tokens(trace.blocks()), strategy, draws, period))


def test_a_prefetched_slice_leaves_its_ghost_list():
    """Nothing is in two lists, and what the lists hold is what is resident."""
    simulated = simulation(
        random_trace(3, 60, requests=2, prompt=4),
        policy="dbsc",
        cache__capacity_gb=5 * EXPERT_BYTES / 1e9,
        schedule__overlap="prefetch",
        policy__eviction={"name": "arc"},
        policy__prefetch={"name": "oracle", "depth": 1, "budget_mb": 0.02},
    )
    decision = Decision(simulated.request())
    for demand in decision:
        lists, state = decision.order, decision.state
        assert not isinstance(demand, DecodeDemand) or (demand.prefetched >= 0).any()
        assert (lists.held == state.resident).all()
        assert (lists.place[lists.held] >= 0).all()
        listed = lists.place >= 0
        assert lists.bytes[0].tolist() == np.bincount(lists.place[listed], lists.sizes[listed], 4).tolist()
