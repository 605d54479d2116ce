"""AMAT: bit-exact slices, and the error table of slicemoe.md 1.3."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicesim.amat import dequantise, gaussian_error, quantise, rebuild, relative_mse, split, truncate

PAIRS = [(high, low) for high in range(3, 9) for low in range(2, high)]


@given(st.integers(0, 2**32 - 1), st.sampled_from(PAIRS), st.floats(1e-3, 1e3), st.floats(-3, 3))
def test_rebuild_is_bit_exact(seed, pair, spread, offset):
    high, low = pair
    weights = np.random.default_rng(seed).normal(offset, spread, 320)
    codes = quantise(weights, high).codes
    msb, lsb = split(codes, high - low)
    assert (rebuild(msb, lsb, high - low) == codes).all()
    assert msb.max() < 2**low
    assert lsb.max() < 2 ** (high - low)
    assert (truncate(quantise(weights, high), high - low).codes == msb).all()


@pytest.mark.parametrize(
    ("pair", "at_high", "at_low", "direct"),
    [((8, 4), 2.3e-5, 0.0121, 0.0065), ((6, 3), 3.7e-4, 0.049, 0.030), ((4, 2), 6.5e-3, 0.219, 0.165)],
)
def test_gaussian_error_as_published(pair, at_high, at_low, direct):
    assert gaussian_error(*pair, 32) == pytest.approx((at_high, at_low), rel=0.02)
    weights = np.random.default_rng(1).standard_normal(1 << 18)
    assert relative_mse(weights, dequantise(quantise(weights, pair[1]))) == pytest.approx(direct, rel=0.02)


@pytest.mark.parametrize("pair", [(8, 4), (6, 3), (4, 2)])
def test_an_unshifted_zero_point_explodes(pair):
    weights = np.random.default_rng(2).standard_normal(1 << 16)
    broken = truncate(quantise(weights, pair[0]), pair[0] - pair[1], shift_zero=False)
    assert relative_mse(weights, dequantise(broken)) > 40


def test_amat_has_no_bias():
    weights = np.random.default_rng(3).standard_normal(1 << 18)
    low = dequantise(truncate(quantise(weights, 8), 4)).reshape(-1)
    assert abs((low - weights).mean()) < 0.02 * weights.std()


def test_constant_and_zero_groups():
    weights = np.concatenate((np.zeros(32), np.full(32, 2.5), np.full(32, -2.5)))
    assert np.allclose(dequantise(quantise(weights, 8)).reshape(-1), weights)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="groups of 32"):
        quantise(np.zeros(33), 8)
    with pytest.raises(ValueError, match="2 to 8"):
        quantise(np.zeros(32), 9)
