"""Which device holds which expert, and where tokens are sent ahead to."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slicesim.policies.placement import RoundRobin, Speculative, grouped
from tests.devices import linked
from tests.kit import make_trace, random_trace, run

#: Two kinds of tokens.
A, B = [[0, 1], [4, 5]], [[2, 3], [6, 7]]


def counts(rng, experts, devices):
    pair = rng.integers(0, 9, (experts, experts))
    return pair + pair.T, rng.integers(0, 9, (experts, devices))


def worth(together, ahead, place):
    """Pairs on one device, and what came from there."""
    same = sum(int(together[a, b]) for a, b in combinations(range(len(place)), 2) if place[a] == place[b])
    return same + sum(int(ahead[a, d]) for a, d in enumerate(place))


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 5))
def test_equal_numbers_and_no_exchange_gains(seed, experts, devices):
    together, ahead = counts(np.random.default_rng(seed), experts, devices)
    place = grouped(together, ahead, devices).tolist()
    held = [place.count(device) for device in range(devices)]
    assert max(held) - min(held) <= 1
    for a, b in combinations(range(experts), 2):
        other = place.copy()
        other[a], other[b] = other[b], other[a]
        assert worth(together, ahead, other) <= worth(together, ahead, place)


@given(st.integers(0, 10**6))
def test_four_experts_are_placed_as_well_as_can_be(seed):
    """Each way to halve them is one exchange from each other one, so the search ends at the best."""
    together, _ = counts(np.random.default_rng(seed), 4, 2)
    ahead = np.zeros((4, 2), dtype=np.int64)
    ways = [[int(e in half) for e in range(4)] for half in combinations(range(4), 2)]
    assert worth(together, ahead, grouped(together, ahead, 2).tolist()) == max(worth(together, ahead, w) for w in ways)


@given(st.integers(0, 100), st.integers(1, 4))
def test_a_home_knows_nothing_of_what_comes(seed, devices):
    """Other experts of the last token, in the last layer, leave all homes as they are."""
    ids = random_trace(seed, 12).block.ids
    other = ids.copy()
    other[-1, -1] = (other[-1, -1] + 1) % 8
    for placement in (RoundRobin(), Speculative()):
        placed = placement.place(ids, 8, devices)
        np.testing.assert_array_equal(placed.homes(ids, ids[:0], 0), placed.homes(other, ids[:0], 0))


def test_experts_that_go_together():
    """Five tokens of kind A, then five of B, on four devices of two places each: each kind's experts come to lie on one
    device, in both layers.

    In the second layer every home is right. In the first one it is where the token before was: wrong for the first
    token (five tokens are followed by B, four by A) and where the kind changes. Two visits of 20 are away, 2 x 128 B
    each. In turn, A's experts are on devices 0 and 1, B's on 2 and 3, and tokens on 0, 1, 2, 3, 0; 1, 2, 3, 0, 1: away
    are 1 + 1 + 2 + 2 + 1 and 2 + 1 + 1 + 2 + 2 visits, in both layers: 30 of 40.
    """
    trace = make_trace([A] * 5 + [B] * 5, [[[0.5, 0.2]] * 2] * 10)
    grouped_run = run(trace, policy="speculative-moe", **linked(4)).decode
    assert (grouped_run["remote_visits"], grouped_run["bytes"]["all_to_all"]) == (0.1, 2 * 256)
    plain = run(trace, policy="expert-parallel", **linked(4)).decode
    assert (plain["remote_visits"], plain["bytes"]["all_to_all"]) == (0.75, 30 * 256)


def test_calibration_sees_its_tokens_alone():
    """With the tokens of kind A alone, both kinds are placed, and the home follows A."""
    ids = np.array([A] * 5 + [B] * 5, dtype=np.int32)
    few = Speculative(calibration_tokens=5)
    assert few.learns_from == 5
    placed = few.place(ids[:5], 8, 2)
    assert len(set(placed.device[0, [0, 1]])) == len(set(placed.device[1, [4, 5]])) == 1
    assert np.bincount(placed.device[0]).tolist() == [4, 4]
