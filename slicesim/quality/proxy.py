"""Quality from the trace alone, open loop: the gate mass that each kind of service carried (semantics, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicesim.amat import gaussian_error
from slicesim.decide.demand import (
    DROPPED,
    LSB_FETCHED,
    LSB_HIT,
    REROUTED,
    SUBSTITUTED,
    DecodeDemand,
    Demand,
    SliceSizes,
    has,
)
from slicesim.scenario.schema import Amat

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class GateMass:
    """Sums of original gate scores per step, [steps] each; ``error`` is the sum of gate x relative MSE.

    substituted holds the mass of experts replaced by others, whether by a budget or by cache-aware routing.
    """

    total: FloatArray
    high: FloatArray
    low: FloatArray
    substituted: FloatArray
    dropped: FloatArray
    error: FloatArray

    @classmethod
    def of(cls, demand: Demand, sizes: SliceSizes, amat: Amat) -> GateMass:
        """Add up a demand table; substituted and dropped experts count with a relative error of 1."""
        whole_is_high = sizes.lsb_bits == 0 and sizes.msb_bits == amat.high_bits
        if isinstance(demand, DecodeDemand):
            masses = _decode(demand, whole_is_high)
        else:
            mass, full = demand.gate_mass.sum(keepdims=True), demand.full_mass.sum(keepdims=True)
            high = mass if whole_is_high else full
            masses = (mass, high, mass - high, np.zeros(1), np.zeros(1))
        total, high, low, substituted, dropped = masses
        high_error, low_error = gaussian_error(amat.high_bits, amat.low_bits, amat.group)
        error = high * high_error + low * low_error + substituted + dropped
        return cls(total, high, low, substituted, dropped, error)


def _decode(demand: DecodeDemand, whole_is_high: bool) -> tuple[FloatArray, ...]:
    def mass(where: NDArray[np.bool_]) -> FloatArray:
        return np.asarray(np.where(where, demand.gate, 0.0).sum(axis=(1, 2)))

    dropped = has(demand.outcome, DROPPED)
    replaced = has(demand.outcome, SUBSTITUTED, REROUTED) & ~dropped
    stock = ~dropped & ~replaced
    full = has(demand.outcome, LSB_HIT, LSB_FETCHED) | whole_is_high
    return demand.gate.sum(axis=(1, 2)), mass(stock & full), mass(stock & ~full), mass(replaced), mass(dropped)
