"""Prefetch in the decision plane: what is read ahead, within which bounds, and what a hit on it is called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import DecodeDemand, decide
from slicesim.decide.demand import LSB_AHEAD, MSB_AHEAD, MSB_FETCHED, MSB_HIT, has
from slicesim.errors import UserError
from tests.kit import EXPERT_BYTES, LSB_BYTES, MSB_BYTES, make_trace, random_trace, run, simulation


def demand_of(trace, **keys):
    simulated = simulation(trace, schedule__overlap="prefetch", **keys)
    parts = [part for part in decide(simulated.request()) if isinstance(part, DecodeDemand)]
    assert len(parts) == 1
    return parts[0]


def test_the_previous_token_by_hand():
    """Two layers, top-2, a cache of 7,000 B; MSB slices alone (3,648 B would be too small: here 1,000s do not matter).

    lru-low: one MSB of 3,648 B an expert, capacity 3 of them. Token 0: layer 0 fetches 0 and 1, nothing to guess from;
    layer 1 fetches 2 and 3 and pushes out layer 0's expert 0 (older; both of the batch stay). Token 1, layer 0 wants 0
    and 1 again: 1 is there, 0 is fetched, and the guess for layer 1 (2 by 0.4, then 3 by 0.1) is asked: both are
    resident until room is made. Resident after layer 0: its batch 0 and 1, and the newest other, expert 3.
    In layer 1 expert 3 is an ordinary hit and 2 a miss.
    """
    trace = make_trace([[[0, 1], [2, 3]]] * 2, [[[0.5, 0.2], [0.4, 0.1]]] * 2)
    keys = {"policy": "lru-low", "cache__capacity_gb": 3 * MSB_BYTES / 1e9, "trace__top_k": 2}
    demand = demand_of(trace, policy__prefetch={"name": "previous-token", "budget_mb": 1.0}, **keys)
    assert demand.prefetched[demand.prefetched >= 0].tolist() == []
    assert demand.outcome[1].tolist() == [[MSB_FETCHED, MSB_HIT], [MSB_FETCHED, MSB_HIT]]


def test_the_oracle_by_hand():
    """As above with room for four: the oracle reads layer 1's experts 2 and 3 at token 0's layer 0, best first.

    Entries: MSB of expert e in layer l is 2 (8 l + e): 20 and 22. Both are hits in layer 1, marked as read ahead once;
    at token 1 they are plain hits.
    """
    trace = make_trace([[[0, 1], [3, 2]]] * 2, [[[0.5, 0.2], [0.1, 0.4]]] * 2)
    keys = {"policy": "lru-low", "cache__capacity_gb": 4 * MSB_BYTES / 1e9, "trace__top_k": 2}
    demand = demand_of(trace, policy__prefetch={"name": "oracle", "budget_mb": 1.0}, **keys)
    assert demand.prefetched[0, 0][:3].tolist() == [20, 22, -1]
    assert demand.outcome[0, 1].tolist() == [MSB_HIT | MSB_AHEAD] * 2
    assert demand.outcome[1].tolist() == [[MSB_HIT, MSB_HIT]] * 2


@pytest.mark.parametrize("eviction", ["lru", "dbsc", "lfu-keep", "fifo", "random"])
@given(
    seed=st.integers(0, 30),
    name=st.sampled_from(("previous-token", "oracle")),
    depth=st.integers(1, 3),
    kilobytes=st.integers(1, 40),
    experts=st.integers(4, 12),
    scope=st.sampled_from(("global", "layer")),
)
@settings(max_examples=25, deadline=None)
def test_bounds(eviction, seed, name, depth, kilobytes, experts, scope):
    """Budget and capacity hold, nothing resident is read, and what is read ahead is used at most once."""
    demand = demand_of(
        random_trace(seed, 20),
        policy="dbsc",
        cache__capacity_gb=experts * EXPERT_BYTES / 1e9,
        cache__scope=scope,
        policy__eviction={"name": eviction},
        policy__prefetch={"name": name, "depth": depth, "budget_mb": kilobytes / 1000},
    )
    read = demand.prefetched >= 0
    size = np.where(demand.prefetched % 2, LSB_BYTES, MSB_BYTES) * read
    assert (size.sum(axis=2) <= kilobytes * 1000).all()
    assert (demand.resident_bytes <= experts * EXPERT_BYTES).all()
    layers = demand.prefetched // 2 // 8
    ahead = layers - np.arange(demand.expert.shape[1])[None, :, None]
    assert ((ahead >= 1) & (ahead <= depth))[read].all()
    used = sum(int(has(demand.outcome, bit).sum()) for bit in (MSB_AHEAD, LSB_AHEAD))
    assert used <= read.sum()


def test_reading_ahead_is_paid_for_and_counted():
    trace = random_trace(3, 40)
    keys = {"policy": "dbsc", "schedule__overlap": "prefetch"}
    plain, ahead = run(trace, **keys), run(trace, policy__prefetch={"name": "oracle", "budget_mb": 1.0}, **keys)
    counts = ahead.decode["prefetched"]
    assert 0 < counts["used"] <= counts["slices"]
    assert ahead.decode["misses"]["msb"] < plain.decode["misses"]["msb"]
    rows = ahead.tokens
    fetched = rows["missed_bytes"].sum()
    assert fetched < ahead.decode["bytes"]["flash_read"] == rows["flash_read_bytes"].sum()
    assert plain.decode["prefetched"] == {"slices": 0, "used": 0}


OWN = """
from slicesim.policies import ReadAhead

class Neighbour(ReadAhead):
    def memory(self, layers, experts, top_k, seed):
        import numpy as np
        return np.zeros(layers)

    def learn(self, memory, layer, slots, before, tally):
        memory[layer] = (slots[0].expert + 1) % 8

    def guess(self, memory, tokens, token, layer, ahead, before, guesses):
        guesses[0].points, guesses[0].slice = 1.0, 2 * int(memory[layer])
        return 1

class Short(ReadAhead):
    def guess(self, tokens, token, layer, before, guesses):
        return 0
"""


def test_a_strategy_of_ones_own_may_learn(tmp_path):
    """Neighbour: the expert after the first-ranked one of the layer's last batch; at first, expert 0."""
    (tmp_path / "mine.py").write_text(OWN)
    trace = random_trace(3, 60)
    demand = demand_of(
        trace,
        policy="dbsc",
        cache__capacity_gb=3.5 * EXPERT_BYTES / 1e9,
        policy__prefetch={"name": f"{tmp_path}/mine.py:Neighbour", "budget_mb": 1.0},
    )
    token, layer, _ = np.nonzero(demand.prefetched >= 0)
    entry = demand.prefetched[demand.prefetched >= 0]
    assert len(entry) > 3
    later = token > 0
    assert (entry[later] // 2 % 8 == (demand.expert[token[later] - 1, layer[later] + 1, 0] + 1) % 8).all()
    with pytest.raises(UserError, match=r"Short\.guess must take \(self, memory, tokens, token, layer, "):
        run(trace, schedule__overlap="prefetch", policy__prefetch={"name": f"{tmp_path}/mine.py:Short"})


def test_reading_ahead_needs_its_overlap():
    with pytest.raises(UserError, match=r"oracle reads ahead, which needs schedule\.overlap=prefetch \(it is serial\)"):
        run(random_trace(1, 4), policy__prefetch={"name": "oracle"})
