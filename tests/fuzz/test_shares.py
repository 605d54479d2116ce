"""The inputs of CI add up to what is promised."""

from __future__ import annotations

from tests.fuzz.harness import INPUTS, SHARES


def test_the_shares_are_ten_thousand_inputs():
    assert sum(SHARES.values()) == INPUTS == 10_000
