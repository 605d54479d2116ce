"""AMAT: bit-exact slices, and the error table of slicemoe.md 1.3."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.amat import dequantise, gaussian_error, quantise, rebuild, relative_mse, split, truncate
from slicesim.amat.alternatives import METHODS
from slicesim.scenario.schema import Amat

PAIRS = [(high, low) for high in range(3, 9) for low in range(2, high)]


@settings(deadline=None)
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


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 8),
    st.integers(1, 70),
    st.integers(1, 100),
    st.floats(-6, 4),
    st.floats(-3, 3),
)
def test_no_weight_is_off_by_more_than_half_a_step(seed, bits, group, size, magnitude, offset):
    """Codes reach over the whole range, though the scale is one of fp16: rounding is all that is lost."""
    weights = np.random.default_rng(seed).normal(offset, 1.0, size).astype(np.float32) * np.float32(10**magnitude)
    quantised = quantise(weights, bits, group)
    step = np.repeat(quantised.scale.reshape(-1), group)[:size]
    assert (np.abs(dequantise(quantised, (size,)) - weights) <= step * (0.5 + 1e-4)).all()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.floats(-7, 4))
def test_the_scale_is_the_next_of_fp16(seed, bits, magnitude):
    weights = np.random.default_rng(seed).standard_normal(64) * 10**magnitude
    quantised = quantise(weights, bits)
    stored = quantised.scale.astype(np.float16)
    assert (stored.astype(np.float32) == quantised.scale).all()
    low, high = (np.float32(edge) for edge in (weights[:32].min(), weights[:32].max()))
    exact = (max(high, np.float32(0)) - min(low, np.float32(0))) / np.float32(2**bits - 1)
    assert np.nextafter(stored[0], np.float16(0)) < exact <= stored[0]


@pytest.mark.parametrize(
    ("pair", "at_high", "at_low", "direct"),
    [((8, 4), 2.3e-5, 0.0121, 0.0065), ((6, 3), 3.7e-4, 0.049, 0.030), ((4, 2), 6.5e-3, 0.219, 0.165)],
)
def test_gaussian_error_as_published(pair, at_high, at_low, direct):
    assert gaussian_error(*pair, 32) == pytest.approx((at_high, at_low), rel=0.02)
    weights = np.random.default_rng(1).standard_normal(1 << 18)
    assert relative_mse(weights, dequantise(quantise(weights, pair[1]))) == pytest.approx(direct, rel=0.02)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ((8, 4), {"direct_low": 0.0065, "symmetric_shift": 0.028, "unshifted_zero": 1026, "amat_low": 0.0121}),
        ((6, 3), {"direct_low": 0.030, "symmetric_shift": 0.106, "unshifted_zero": 229, "amat_low": 0.049}),
        ((4, 2), {"direct_low": 0.165, "symmetric_shift": 0.425, "unshifted_zero": 46, "amat_low": 0.219}),
    ],
)
def test_the_table_of_alternatives(pair, expected):
    """slicemoe.md 1.3, Gaussian weights in groups of 32."""
    weights = np.random.default_rng(4).standard_normal((1 << 13, 32)).astype(np.float32)
    amat = Amat(high_bits=pair[0], low_bits=pair[1])
    high = quantise(weights, amat.high_bits)
    found = {name: relative_mse(weights, METHODS[name].approximate(weights, high, amat)) for name in expected}
    assert found == pytest.approx(expected, rel=0.02)


def test_alternatives_by_hand():
    """One group, 0 to 255 in code units of 4 bits high and 2 low: w = (-3, 0, 12), scale 1, zero 3, codes 0, 3, 15.

    MSB alone: codes >> 2 = 0, 0, 3, zero 0, scale 4: 0, 0, 12. Zero not shifted: -12, -12, 0.
    To nearest: (0+2)>>2 = 0, (3+2)>>2 = 1, (15+2)>>2 = 4, held at 3; zero 1: -4, 0, 8.
    Symmetric: scale 12/7 rounded up to fp16, codes round(-1.75) = -2, 0, 7; >> 2: -1, 0, 1, times 4 x 12/7.
    Direct at 2 bits: scale 5, zero round(0.6) = 1, codes 0, 1, round(2.4)+1 = 3: -5, 0, 10.
    """
    weights = np.array([[-3, 0, 12]], dtype=np.float32)
    amat = Amat(high_bits=4, low_bits=2, group=3)
    high = quantise(weights, 4, 3)
    assert (high.codes.tolist(), high.scale.item(), high.zero.item()) == ([[0, 3, 15]], 1.0, 3)
    found = {name: method.approximate(weights, high, amat)[0].tolist() for name, method in METHODS.items()}
    assert found.pop("symmetric_shift") == pytest.approx([-48 / 7, 0, 48 / 7], rel=2**-10)
    assert found == {
        "amat_high": [-3, 0, 12],
        "amat_low": [0, 0, 12],
        "direct_low": [-5, 0, 10],
        "unshifted_zero": [-12, -12, 0],
        "rounded_shift": [-4, 0, 8],
    }


def test_amat_has_no_bias():
    weights = np.random.default_rng(3).standard_normal(1 << 18)
    low = dequantise(truncate(quantise(weights, 8), 4)).reshape(-1)
    assert abs((low - weights).mean()) < 0.02 * weights.std()


@pytest.mark.parametrize("bits", range(2, 9))
def test_constant_and_zero_groups(bits):
    """The scale, rounded up, is at most 2^-10 of itself too large."""
    weights = np.concatenate((np.zeros(32), np.full(32, 2.5), np.full(32, -2.5)))
    assert np.allclose(dequantise(quantise(weights, bits), (96,)), weights, rtol=2**-10, atol=0)
    low = dequantise(truncate(quantise(weights, bits), bits - 2), (96,))
    assert not low[:32].any()


def test_groups_run_along_rows_and_the_last_is_filled_up():
    weights = np.arange(33, dtype=np.float32).reshape(3, 11)
    quantised = quantise(weights, 8, 16)
    assert quantised.codes.shape == (3, 16)
    assert quantised.scale.reshape(-1) == pytest.approx([15 / 255, 31 / 255, 32 / 255], rel=2**-10)
    assert dequantise(quantised, (3, 11)) == pytest.approx(weights, abs=0.07)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 to 8"):
        quantise(np.zeros(32), 9)
    with pytest.raises(ValueError, match="at least 1"):
        quantise(np.zeros(32), 8, 0)


@pytest.mark.parametrize(
    ("weight", "fragment"),
    [(np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"), (3e38, "fp16"), (255 * 65505.0, "fp16")],
)
@pytest.mark.filterwarnings("error")
def test_weights_without_a_code_are_refused(weight, fragment):
    weights = np.zeros(64, np.float32)
    weights[40] = weight
    with pytest.raises(ValueError, match=fragment):
        quantise(weights, 8)
