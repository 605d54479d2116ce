"""The two ways to meet a miss-rate target, and Cache-Prior."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicesim.decide import DecodeDemand
from slicesim.decide.decode import SLOT
from slicesim.decide.ledger import Ledger, active, allows, end_token
from slicesim.policies.constraint import Bias, Budget
from slicesim.policies.routing import CachePrior
from slicesim.policies.slices import SliceState
from tests.kit import EXPERT_BYTES, MSB_BYTES, make_trace, random_trace, run, simulation


def select(strategy: CachePrior, logits, resident, stock, spread, strength) -> list[int]:
    """Call the strategy as the batch loop does, interpreted; return the chosen experts."""
    state = SliceState.empty(np.ones((1, len(logits), 2), dtype=np.int64), 1)
    state.resident[::2] = resident
    slots = np.zeros(len(stock), dtype=SLOT).view(np.recarray)
    slots.expert = stock
    chosen = np.zeros(len(logits), dtype=np.bool_)
    strategy.select(logits, state.slices.view(np.recarray), 0, slots, spread, strength, chosen)
    return np.flatnonzero(chosen).tolist()


def test_cache_prior_by_hand():
    """Delta 2, lambda 0.5: residents gain 1. z' = 3, 2, 2.5 (1.5 + 1), 2.2 (1.2 + 1), 1: with J = 1 the best two are
    0 and 2."""
    logits = np.array([3.0, 2.0, 1.5, 1.2, 1.0])
    resident = np.array([False, False, True, True, False])
    stock = np.array([0, 1])
    assert select(CachePrior(top_j=1), logits, resident, stock, 2.0, 0.5) == [0, 2]
    assert select(CachePrior(top_j=2), logits, resident, stock, 2.0, 0.5) == [0, 1]
    assert select(CachePrior(top_j=0), logits, resident, stock, 2.0, 1.0) == [2, 3]
    assert select(CachePrior(top_j=0), logits, resident, stock, 2.0, 0.0) == [0, 1]


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 2))
def test_the_top_j_always_stay(seed, strength, top_j):
    rng = np.random.default_rng(seed)
    logits, resident = rng.normal(size=8), rng.random(8) < 0.5
    stock = np.argsort(-logits)[:3]
    chosen = select(CachePrior(top_j=top_j), logits, resident, stock, 3.0, strength)
    assert len(chosen) == 3
    assert set(stock[:top_j].tolist()) <= set(chosen)


def add(ledger: Ledger, misses: int, lookups: int) -> None:
    """Enter one token's look-ups as the batch loop does."""
    if active(ledger.book[0]):
        ledger.book["misses"] += misses
        ledger.book["lookups"] += lookups


def test_bias_rises_while_the_rate_is_above_the_target_and_falls_below():
    """Gain 0.5, target 0.1: a token with 4 misses in 10 lifts lambda by 0.15; then rates of 4 / 20 and 4 / 30."""
    ledger = Ledger.of(Bias(target=0.1, start_step=1, gain=0.5, window=3), 0.2)
    path = []
    for misses in (9, 4, 0, 0, 0, 0):
        add(ledger, misses, 10)
        end_token(ledger.book[0], ledger.window)
        path.append(float(ledger.book["strength"][0]))
    assert path == pytest.approx(
        [0.2, 0.35, 0.4, 0.4 + 0.5 * (4 / 30 - 0.1), 0.4 + 0.5 * (4 / 30 - 0.2), 0.3666667 - 0.05], abs=1e-3
    )


def test_budget_counts_from_the_start_step_of_each_request():
    ledger = Ledger.of(Budget(target=0.1, start_step=1), 0.0)
    assert not active(ledger.book[0])
    add(ledger, 5, 10)
    end_token(ledger.book[0], ledger.window)
    assert active(ledger.book[0])
    assert ledger.denies_msb
    assert ledger.book[["misses", "lookups"]][0].tolist() == (0, 0)
    assert allows(ledger.book[0], 1, 10)
    assert not allows(ledger.book[0], 2, 10)
    add(ledger, 1, 10)
    ledger.begin_request()
    assert ledger.book[["misses", "lookups", "step"]][0].tolist() == (0, 0, 0)


def test_a_reachable_target_is_met_by_bias():
    trace = random_trace(11, 400, logits=True)
    keys = {"policy.routing.top_j": 0, "cache.capacity_gb": 8 * EXPERT_BYTES / 1e9}
    free = run(trace, policy="dbsc", **keys | {"policy.routing": {"name": "stock"}}).decode["miss_rate"]["slices"]
    held = run(trace, policy="slicemoe", **keys | {"policy.constraint.target": 0.1}).decode
    assert free > 0.2
    assert held["constraint"]["rate"] == pytest.approx(0.1, abs=0.03)
    assert 0 < held["constraint"]["strength_mean"] < 1
    assert held["denied"]["degraded"] > 0


def test_out_of_reach_is_said():
    result = run(
        random_trace(2, 60),
        policy="slicemoe",
        policy__constraint__target=0.0,
        cache__capacity_gb=2 * EXPERT_BYTES / 1e9,
    )
    assert result.decode["constraint"]["met"] is False
    assert any("not met" in warning for warning in result.summary["warnings"])


def test_budget_substitutes_with_logits_and_drops_without():
    keys = {"policy.constraint": {"name": "budget", "target": 0.05}, "policy.routing": {"name": "stock"}}
    with_logits = run(random_trace(4, 80, logits=True), policy="slicemoe", **keys).decode
    without = run(random_trace(4, 80), policy="slicemoe", **keys).decode
    assert with_logits["denied"]["substituted"] > 0
    assert without["denied"]["dropped"] > 0
    assert without["denied"]["substituted"] == 0
    assert with_logits["requests"]["msb"] == 80 * 2 * 2 + with_logits["denied"]["substituted"]
    assert without["quality"]["dropped_mass"] > 0


def test_a_substitute_is_resident_and_no_member_of_the_batch():
    trace = random_trace(6, 80, logits=True)
    keys = {"policy.constraint": {"name": "budget", "target": 0.02}, "policy.routing": {"name": "stock"}}
    for demand, _, _ in simulation(trace, policy="slicemoe", **keys).tables():
        assert isinstance(demand, DecodeDemand)
        runs = np.sort(demand.expert, axis=2)
        there = (demand.outcome & 64) == 0
        assert (runs[:, :, 1:] != runs[:, :, :-1])[there.all(axis=2)].all()
        assert ((demand.outcome & 128 == 0) | (demand.outcome & 1 == 1)).all()


def test_fetch_msb_only_degrades_instead_of_reading():
    """Expert 0 is critical in both tokens, its LSB never there."""
    trace = make_trace([[[0, 1], [0, 1]]] * 2, [[[0.5, 0.05]] * 2] * 2)
    decode = run(trace, policy__fetch={"name": "msb-only"}).decode
    assert decode["denied"]["degraded"] == 4
    assert decode["misses"] == {"msb": 4, "lsb": 0}
    assert decode["bytes"]["flash_read"] == 4 * MSB_BYTES


def test_threshold_is_at_least():
    trace = make_trace([[[0, 1], [0, 1]]], [[[0.1, 0.0999]] * 2])
    assert run(trace).decode["requests"]["lsb"] == 2
