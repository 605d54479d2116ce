"""AMAT's error per bit pair, measured on Gaussian weights: the quality proxy's coefficient."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from slicesim.amat.quantise import dequantise, quantise, truncate

#: Gaussian weights that the error is measured on; enough for three digits.
SAMPLE = 1 << 18


def relative_mse(weights: NDArray[np.float64], approximation: NDArray[np.float64]) -> float:
    """Mean squared error over mean square of the weights."""
    difference = approximation.reshape(-1) - weights.reshape(-1)
    return float(np.mean(difference**2) / np.mean(weights**2))


@cache
def gaussian_error(high_bits: int, low_bits: int, group: int) -> tuple[float, float]:
    """Return the relative MSE of Gaussian weights at high and at low precision (slicemoe.md 1.3, table)."""
    weights = np.random.default_rng(0).standard_normal(SAMPLE // group * group)
    high = quantise(weights, high_bits, group)
    low = truncate(high, high_bits - low_bits)
    return relative_mse(weights, dequantise(high)), relative_mse(weights, dequantise(low))
