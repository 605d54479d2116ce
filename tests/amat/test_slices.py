"""Dense bits and the bytes of slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.amat import quantise, truncate
from slicesim.amat.packing import pack_bits, unpack_bits
from slicesim.amat.slices import from_slices, slice_sizes, to_slices
from slicesim.models import slice_bytes
from slicesim.scenario.schema import Amat
from tests.amat.test_amat import PAIRS

EXPERT = 3 * 2048 * 1408


def in_words(codes: list[int], bits: int, start: int) -> bytes:
    """Dense packing by one large integer: the first code is its lowest bits."""
    number = sum(code << (start + bits * place) for place, code in enumerate(codes))
    return number.to_bytes(-(-(start + bits * len(codes)) // 8), "little")


@settings(deadline=None)
@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=50), st.integers(0, 20), st.integers(0, 7))
def test_dense_bits(bits, values, start, lowest):
    bits = min(bits, 8 - lowest)
    codes = np.array(values, dtype=np.uint8)
    wanted = [(value >> lowest) & ((1 << bits) - 1) for value in values]
    expected = in_words(wanted, bits, start)
    out = np.zeros(len(expected), dtype=np.uint8)
    assert pack_bits(codes, bits, out, lowest=lowest, start=start) == start + bits * len(values)
    assert out.tobytes() == expected
    assert unpack_bits(out, bits, len(values), start=start).tolist() == wanted


def test_what_lies_before_the_start_stays():
    """3 bits at bit 2 of a byte that holds 0b11: 5 -> 0b10111."""
    out = np.array([0b11], dtype=np.uint8)
    pack_bits(np.array([5], np.uint8), 3, out, start=2)
    assert out.tolist() == [0b10111]


def test_three_bits_by_hand():
    """Codes 1, 2, 3 of 3 bits: 1 + 2 x 8 + 3 x 64 = 209."""
    out = np.zeros(2, np.uint8)
    pack_bits(np.array([1, 2, 3], np.uint8), 3, out)
    assert out.tolist() == [209, 0]


@pytest.mark.parametrize(("bits", "length", "fragment"), [(0, 9, "1 to 8"), (9, 9, "1 to 8"), (3, 2, "too few")])
def test_bits_that_do_not_fit_are_refused(bits, length, fragment):
    with pytest.raises(ValueError, match=fragment):
        pack_bits(np.zeros(8, np.uint8), bits, np.zeros(length, np.uint8))
    with pytest.raises(ValueError, match=fragment):
        unpack_bits(np.zeros(length, np.uint8), bits, 8)


@pytest.mark.parametrize(("high", "low", "msb", "lsb"), [(8, 4, 5_136_384, 4_325_376), (6, 3, 3_987_456, 3_244_032)])
def test_one_expert_of_deepseek_takes_the_bytes_of_its_geometry(high, low, msb, lsb):
    """The matrices' slices, put together, are as long as the simulator's slice of an expert."""
    amat = Amat(high_bits=high, low_bits=low)
    weights = np.random.default_rng(0).standard_normal((1408, 2048)).astype(np.float32)
    one = to_slices(quantise(weights, high), weights.size, amat)
    assert (3 * len(one[0]), 3 * len(one[1])) == (msb, lsb) == slice_bytes(EXPERT, high, low, 32)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(PAIRS), st.integers(1, 40), st.integers(1, 150))
def test_slices_and_back(seed, pair, group, size):
    amat = Amat(high_bits=pair[0], low_bits=pair[1], group=group)
    whole = quantise(np.random.default_rng(seed).standard_normal(size), amat.high_bits, group)
    msb, lsb = to_slices(whole, size, amat)
    assert (len(msb), len(lsb)) == slice_sizes(size, amat) == slice_bytes(size, *pair, group)
    for expected, found in (
        (whole, from_slices(msb, lsb, size, amat)),
        (truncate(whole, pair[0] - pair[1]), from_slices(msb, None, size, amat)),
    ):
        assert (found.codes.reshape(-1)[:size] == expected.codes.reshape(-1)[:size]).all()
        assert (found.scale == expected.scale).all()
        assert (found.zero == expected.zero).all()


def test_the_layout_by_hand():
    """8/4 bits, one group of 4: w = (0, 85, 170, 255) has scale 1 (0x3c00), zero 0, codes 0, 85, 170, 255.

    MSB: 00 3c, then nibbles 0, 5, 10, 15 lowest first: 50 fa, then the zero point 00. LSB: 50 fa.
    """
    amat = Amat(high_bits=8, low_bits=4, group=4)
    msb, lsb = to_slices(quantise(np.array([0.0, 85, 170, 255]), 8, 4), 4, amat)
    assert msb.tobytes().hex() == "003c50fa00"
    assert lsb.tobytes().hex() == "50fa"


def test_slices_that_no_packing_writes_are_refused():
    amat = Amat(high_bits=8, low_bits=4, group=4)
    msb, lsb = to_slices(quantise(np.arange(4.0), 8, 4), 4, amat)
    with pytest.raises(ValueError, match="take 5 and 2 bytes"):
        from_slices(msb, lsb[:1], 4, amat)
    with pytest.raises(ValueError, match="take 5 and 2 bytes"):
        from_slices(msb[:4], None, 4, amat)
    msb[:2] = (0, 0x7C)  # infinity
    with pytest.raises(ValueError, match="not a positive number"):
        from_slices(msb, lsb, 4, amat)
