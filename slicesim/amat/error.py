"""AMAT's error per bit pair: on Gaussian weights (the quality proxy's coefficient), and sums for real ones."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.amat.quantise import dequantise, quantise, truncate

#: Gaussian weights that the error is measured on; enough for three digits.
SAMPLE = 1 << 18


def relative_mse(weights: NDArray[Any], approximation: NDArray[Any]) -> float:
    """Mean squared error over mean square of the weights."""
    return square_sum(approximation.reshape(-1) - weights.reshape(-1)) / square_sum(weights)


def square_sum(values: NDArray[Any]) -> float:
    """Sum of squares, in double precision."""
    return float(np.square(values, dtype=np.float64).sum())  # no BLAS: its threads cost more than they do here


def sqnr_db(relative: float | None) -> float | None:
    """Signal-to-quantisation-noise ratio (dB) of a relative MSE; none where there is no signal or no noise."""
    return -10 * math.log10(relative) if relative else None


@cache
def gaussian_error(high_bits: int, low_bits: int, group: int) -> tuple[float, float]:
    """Return the relative MSE of Gaussian weights at high and at low precision (slicemoe.md 1.3, table)."""
    weights = np.random.default_rng(0).standard_normal(SAMPLE // group * group)
    high = quantise(weights, high_bits, group)
    low = truncate(high, high_bits - low_bits)
    return relative_mse(weights, dequantise(high)), relative_mse(weights, dequantise(low))
