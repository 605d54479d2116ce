"""Tensors of torch get the codes that arrays of numpy get."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.amat import dequantise, quantise, rebuild, split, truncate

torch = pytest.importorskip("torch")


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 8), st.integers(1, 70), st.integers(1, 3000), st.floats(-7, 4))
def test_codes_are_the_same(seed, bits, group, size, magnitude):
    weights = np.random.default_rng(seed).standard_normal(size).astype(np.float32) * np.float32(10**magnitude)
    expected, found = quantise(weights, bits, group), quantise(torch.from_numpy(weights), bits, group)
    for one, other in zip((*expected, *truncate(expected, 1)), (*found, *truncate(found, 1)), strict=True):
        assert isinstance(other, torch.Tensor)
        assert (one == other.numpy()).all()
    assert (dequantise(expected, (size,)) == dequantise(found, (size,)).numpy()).all()
    assert torch.equal(rebuild(*split(found.codes, 2), 2), found.codes)


def test_bfloat16_is_read_as_it_is():
    weights = torch.randn(64, 33, dtype=torch.bfloat16)
    found, expected = quantise(weights, 8), quantise(weights.float().numpy(), 8)
    assert (found.codes.numpy() == expected.codes).all()


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e30])
def test_weights_without_a_code_are_refused(weight):
    with pytest.raises(ValueError, match=r"NaN or infinity|fp16"):
        quantise(torch.full((32,), weight), 8)
