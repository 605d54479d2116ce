"""AMAT beside what could be done instead: each way of making low-bit weights, as the weights that come out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.amat.quantise import Quantised, dequantise, fp16_scale, group_range, quantise, truncate
from slicesim.scenario.schema import Amat

Floats = NDArray[np.float32]


class Method(NamedTuple):
    """A way to approximate weights: what tables call it, and the weights [groups, group] that it gives.

    approximate: takes the weights [groups, group], their code at high precision, and the bit pair.
    """

    label: str
    approximate: Callable[[Floats, Quantised, Amat], Any]


def direct(weights: Floats, _: Quantised, amat: Amat) -> Floats:
    """Quantise to the low bits at once: asymmetric, a second copy beside the high-bit one."""
    approximation: Floats = dequantise(quantise(weights, amat.low_bits, amat.group))
    return approximation


def symmetric_shift(weights: Floats, _: Quantised, amat: Amat) -> Floats:
    """Quantise with signed codes about 0, no zero point, and shift them right arithmetically (rounds down)."""
    top = 2 ** (amat.high_bits - 1) - 1
    low, high = group_range(weights)
    scale = fp16_scale(np.maximum(-low, high) / np.float32(top))
    codes = np.clip(np.round(weights / scale), -top, top).astype(np.int8)
    shift = amat.high_bits - amat.low_bits
    approximation: Floats = (codes >> shift).astype(np.float32) * (scale * np.float32(1 << shift))
    return approximation


def rounded_shift(_: Floats, high: Quantised, amat: Amat) -> Floats:
    """Shift code and zero point with rounding to nearest (half up), held at the largest low-bit code.

    code_l = min(floor((code + 2^(shift-1)) / 2^shift), 2^low - 1), and the same for the zero point. Not the upper bits
    of the high-bit code, so it cannot be had by slicing.
    """
    shift = amat.high_bits - amat.low_bits

    def rounded(codes: Any) -> Any:
        return np.minimum((codes.astype(np.uint16) + (1 << (shift - 1))) >> shift, 2**amat.low_bits - 1)

    low = Quantised(rounded(high.codes), high.scale * np.float32(1 << shift), rounded(high.zero).astype(np.uint8))
    approximation: Floats = dequantise(low)
    return approximation


#: By the name that files use.
METHODS: Mapping[str, Method] = {
    "amat_high": Method("AMAT, both slices", lambda _, high, amat: dequantise(high)),
    "amat_low": Method("AMAT, MSB slice alone", lambda _, high, amat: dequantise(truncate(high, _shift(amat)))),
    "direct_low": Method("direct, low bits", direct),
    "symmetric_shift": Method("symmetric truncation", symmetric_shift),
    "unshifted_zero": Method(
        "zero point not shifted", lambda _, high, amat: dequantise(truncate(high, _shift(amat), shift_zero=False))
    ),
    "rounded_shift": Method("truncation to nearest", rounded_shift),
}


def _shift(amat: Amat) -> int:
    return amat.high_bits - amat.low_bits
