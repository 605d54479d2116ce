"""The bound against the optimum of tiny cases, found by going through all that a cache can do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.bound import FlashBound, Reuses, flash_bound, least_read_bytes
from slicesim.decide import decide
from slicesim.decide.demand import LSB_FETCHED, LSB_HIT, MSB_FETCHED, MSB_HIT
from tests.bound.brute import Case, bound, optimum, random_case
from tests.kit import EXPERT_BYTES, random_trace, simulation

A, B, C = (0,), (2,), (4,)  # MSB slices: experts 0 and 1 of layer 0, expert 0 of layer 1


@given(seed=st.integers(0, 10**9))
@settings(max_examples=150, deadline=None)
def test_never_above_the_optimum(seed):
    case = random_case(seed)
    assert bound(case) <= optimum(case)


def test_how_tight_it_is():
    """Mean of bound / optimum over 300 random cases: 96.5 % (docs/bound.md)."""
    pairs = [(bound(case), optimum(case)) for case in map(random_case, range(300))]
    shares = [low / best for low, best in pairs if best]
    print(f"mean of bound / optimum over {len(shares)} cases: {np.mean(shares):.4f}, least {min(shares):.3f}")
    assert np.mean(shares) > 0.95
    assert all(low == 0 for low, best in pairs if not best)


def test_by_hand():
    """A of 10 bytes, C of 7, a cache of 10, tokens (A C), (A C), (A C).

    All cold: 17 bytes. Then each A must stay over the batch of C, each C over that of A. Only one of them can: keep A
    and read C twice, 14; or keep C and read A twice, 20. Optimum 17 + 14. The relaxation may keep 10 bytes after every
    batch: after a batch of layer 0 both intervals of A and C are open (17 bytes), so 7 of them are read anew: 7 for
    each of the two pairs.
    """
    case = Case((10, 7), (1, 1), 10, ((False, (A, C)),) * 3)
    assert optimum(case) == 31
    assert 30 <= bound(case) <= 31


def test_a_prompt_reads_for_nothing_and_what_it_asked_for_may_stay():
    """The prompt brings A and C; the token after it asks for A, B and C: B alone is cold. The cache holds all."""
    prompt, token = (True, (A, C)), (False, ((0, 2), C))
    assert (
        bound(Case((10, 7), (1, 1), 50, (prompt, token))) == optimum(Case((10, 7), (1, 1), 50, (prompt, token))) == 10
    )
    only_prompts = Case((10, 7), (1, 1), 50, (prompt, prompt))
    assert bound(only_prompts) == optimum(only_prompts) == 0


def test_everything_fits():
    """Each slice is read once."""
    case = Case((10, 7), (3, 2), 44, ((False, ((0, 1, 2), (4, 5))),) * 6)
    assert bound(case) == optimum(case) == 10 + 3 + 10 + 7 + 2


@given(seed=st.integers(0, 10**9))
@settings(max_examples=40, deadline=None)
def test_parts_of_a_long_run_add_up_to_a_bound(seed):
    """A new part after every token: weaker, and still below the optimum."""
    case = random_case(seed)
    whole, most = bound(case), flash_bound._MOST_REUSES
    flash_bound._MOST_REUSES = 1
    try:
        assert bound(case) <= optimum(case)
    finally:
        flash_bound._MOST_REUSES = most
    assert whole <= optimum(case)


def test_a_cache_that_holds_more_than_its_capacity_has_no_bound():
    trace = random_trace(3, 20)
    own = simulation(trace, policy="lru-high").request()
    bound, tight = FlashBound(own), FlashBound(replace(own, capacity_bytes=own.capacity_bytes // 2))
    for demand in decide(own):
        bound.add(demand)
        tight.add(demand)
    assert bound.decode_bytes()[0] > 0
    assert tight.decode_bytes() == [0]


def test_what_was_there_from_the_beginning_is_not_cold():
    """A cache of all 16 experts: as if filled before the first token, it reads nothing, and need not."""
    own = simulation(random_trace(3, 20), policy="dbsc", cache__capacity_gb=16 * EXPERT_BYTES / 1e9).request()
    bound = FlashBound(own)
    for demand in decide(own):
        outcome = demand.outcome
        outcome[outcome & MSB_FETCHED != 0] ^= MSB_FETCHED | MSB_HIT
        outcome[outcome & LSB_FETCHED != 0] ^= LSB_FETCHED | LSB_HIT
        bound.add(demand)
    assert bound.decode_bytes() == [0]


def test_no_reuses():
    empty = Reuses(*np.zeros((2, 0), np.int32), np.zeros(0, np.int16), np.array([5, 5]), 3)
    assert least_read_bytes(empty, 10) == 0
