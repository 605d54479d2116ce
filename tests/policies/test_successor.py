"""The eviction strategy ``successor``, by hand; tests/parity/test_decisions.py holds it to a plain replay."""

from __future__ import annotations

import numpy as np
import pytest

from slicesim.decide.decide import Decision
from slicesim.policies.successor import Successor
from tests.kit import LSB_BYTES, MSB_BYTES, make_trace, run, simulation

KEPT = 2 ** (-1 / 6)


def scores(ids, gates=None, **keys):
    """Scores of layer 0 after a trace, [experts, MSB and LSB]; tiny model: 8 experts."""
    gates = gates or [[[0.05] * len(layer) for layer in token] for token in ids]
    simulated = simulation(make_trace(ids, gates), policy="successor", trace__top_k=len(ids[0][0]), **keys)
    decision = Decision(simulated.request())
    for _ in decision.run():
        pass
    return decision.state.memory.reshape(-1, 8, 2)[0]


def test_scores_by_hand():
    """Top-1, experts 0, 1, 0 in layer 0, prior 1/8.

    After the third token expert 0 ran last. It was followed once, by expert 1: n(0) = 1, n(0, 1) = 1.
    MSB of 1: (1 + 1/8) / (1 + 1) = 0.5625; it was used one token ago: r = (1 - k) k with k = 2^(-1/6).
    MSB of 0: (0 + 1/8) / 2 = 0.0625; used at tokens 1 and 3: r = (1 - k) k^2 + (1 - k).
    MSB of 7: 0.0625, r = 0.
    """
    found = scores([[[0], [0]], [[1], [0]], [[0], [0]]])
    assert found[1, 0] == pytest.approx((0.5625 + 0.01) * ((1 - KEPT) * KEPT + 0.01) ** 0.5)
    assert found[0, 0] == pytest.approx((0.0625 + 0.01) * ((1 - KEPT) * (KEPT**2 + 1) + 0.01) ** 0.5)
    assert found[7, 0] == pytest.approx((0.0625 + 0.01) * 0.01**0.5)


def test_an_lsb_counts_where_its_expert_is_critical():
    """Expert 1 follows 0 twice, once with a gate of 0.2 (critical): n(0, LSB of 1) = 1 of n(0) = 2."""
    ids = [[[0], [0]], [[1], [0]], [[0], [0]], [[1], [0]], [[0], [0]]]
    gates = [[[0.05], [0.05]], [[0.2], [0.05]], [[0.05], [0.05]], [[0.05], [0.05]], [[0.05], [0.05]]]
    found = scores(ids, gates)
    assert found[1, 1] == pytest.approx((1.125 / 3 + 0.01) * ((1 - KEPT) * KEPT**3 + 0.01) ** 0.5)
    assert found[1, 0] > found[1, 1]


def test_prompts_teach_too():
    """Expert 1 always follows 0 in the prompt; the first decode token runs 0."""
    ids = [[[0], [0]], [[1], [0]], [[0], [0]], [[1], [0]], [[0], [0]]]
    gates = [[[0.05], [0.05]]] * 5
    simulated = simulation(make_trace(ids, gates, prompt=4), policy="successor", trace__top_k=1)
    decision = Decision(simulated.request())
    for _ in decision.run():
        pass
    found = decision.state.memory.reshape(-1, 8, 2)[0]
    assert found[1, 0] == pytest.approx((2.125 / 3 + 0.01) * ((1 - KEPT) * (KEPT + KEPT**3) + 0.01) ** 0.5)


def test_what_follows_stays():
    """Experts 0, 1, 2, 0, 1, 2 ... and now and then 3: a cache of three MSBs in all, for two layers.

    Layer 1 always runs expert 0. LRU over four slices in turn would lose each before its turn; what follows next stays.
    """
    cycle = [0, 1, 2, 3] * 50
    trace = make_trace([[[e], [0]] for e in cycle], [[[0.05], [0.05]]] * 200)
    keys = {"trace__top_k": 1, "cache__capacity_gb": 4 * MSB_BYTES / 1e9}
    misses = {name: run(trace, policy=name, **keys).decode["misses"]["msb"] for name in ("lru-slices", "successor")}
    assert misses["lru-slices"] == 4 + 1 + 196  # each of the cycle, and layer 1 once
    assert misses["successor"] < 120


def test_tables_are_small():
    assert Successor().tables(26, 64).shape == (26, 66, 128)
    assert np.count_nonzero(Successor().tables(2, 8)) == 0
    assert LSB_BYTES < MSB_BYTES
