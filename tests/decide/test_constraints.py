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
from slicesim.policies.routing import CachePrior, Cumsum, MaxRank, Routing
from slicesim.policies.slices import SliceState
from tests.kit import EXPERT_BYTES, MSB_BYTES, make_trace, random_trace, run, simulation


def select(strategy: Routing, logits, resident, stock, spread, strength) -> list[int]:
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


LOGITS = np.log([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
RESIDENT = np.array([False, False, False, True, True, False])


@pytest.mark.parametrize(
    ("max_rank", "top_j", "expected"),
    [
        (3, 0, [0, 1, 2]),  # the best resident, 3, has three above it: no resident in the window of 3
        (4, 0, [0, 1, 3]),  # 3 is in; 4 is not; the rest by rank
        (5, 0, [0, 3, 4]),
        (5, 1, [0, 3, 4]),
        (5, 2, [0, 1, 3]),
        (5, 3, [0, 1, 2]),
        (64, 0, [0, 3, 4]),  # two residents in all
    ],
)
def test_max_rank_by_hand(max_rank, top_j, expected):
    strategy = MaxRank(max_rank=max_rank, top_j=top_j)
    assert select(strategy, LOGITS, RESIDENT, np.array([0, 1, 2]), 0.0, 0.0) == expected


@pytest.mark.parametrize(
    ("mass", "top_j", "expected"),
    [
        (0.79, 0, [0, 1, 2]),  # the three above expert 3 hold 0.8: they reach 0.79 without it
        (0.81, 0, [0, 1, 3]),  # to reach 0.81 expert 3 is needed; 4 would be needed above 0.9
        (0.91, 0, [0, 3, 4]),
        (0.91, 2, [0, 1, 3]),
        (1.0, 0, [0, 3, 4]),
    ],
)
def test_cumsum_by_hand(mass, top_j, expected):
    strategy = Cumsum(mass=mass, top_j=top_j)
    assert select(strategy, LOGITS, RESIDENT, np.array([0, 1, 2]), 0.0, 0.0) == expected


@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0.01, 1), st.integers(0, 3))
def test_windows_against_their_definition(seed, max_rank, mass, top_j):
    """Top-j, then residents within the window by rank, then the rest by rank; unequal logits."""
    rng = np.random.default_rng(seed)
    logits, resident = rng.normal(size=8), rng.random(8) < 0.5
    ranked = np.argsort(-logits)
    p = np.exp(logits[ranked]) / np.exp(logits).sum()
    by_mass = int(np.searchsorted(np.cumsum(p), mass * (1 - 1e-12)) + 1)
    for strategy, window in (
        (MaxRank(max_rank=max_rank, top_j=top_j), max_rank),
        (Cumsum(mass=mass, top_j=top_j), by_mass),
    ):
        keen = [*ranked[:top_j], *(e for e in ranked[:window] if resident[e]), *ranked]
        expected = sorted(list(dict.fromkeys(int(e) for e in keen))[:3])
        assert select(strategy, logits, resident, ranked[:3], 0.0, 0.0) == expected


@pytest.mark.parametrize("routing", [{"name": "max-rank", "max_rank": 6}, {"name": "cumsum", "mass": 0.9}])
def test_windows_are_compiled_and_lower_the_miss_rate(routing):
    trace = random_trace(1, 200, logits=True)
    keys = {"policy": "dbsc", "cache__capacity_gb": 5 * EXPERT_BYTES / 1e9}
    stock = run(trace, **keys)
    rerouted = run(trace, policy__routing={**routing, "top_j": 1}, **keys)
    assert rerouted.decode["miss_rate"]["msb"] < 0.8 * stock.decode["miss_rate"]["msb"]
    assert rerouted.decode["quality"]["substituted_mass"] > 0


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
