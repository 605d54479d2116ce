"""Quality from the trace alone, open loop: the gate mass that each kind of service carried (semantics, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicesim.amat import gaussian_error
from slicesim.compiled import jit
from slicesim.decide.demand import (
    DROPPED,
    LSB_FETCHED,
    LSB_HIT,
    REROUTED,
    SUBSTITUTED,
    DecodeDemand,
    Demand,
    SliceSizes,
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
            dropped = np.array([demand.dropped_mass])
            masses = (mass + dropped, high, mass - high, np.zeros(1), dropped)
        total, high, low, substituted, dropped = masses
        high_error, low_error = gaussian_error(amat.high_bits, amat.low_bits, amat.group)
        error = high * high_error + low * low_error + substituted + dropped
        return cls(total, high, low, substituted, dropped, error)


def _decode(demand: DecodeDemand, whole_is_high: bool) -> tuple[FloatArray, ...]:
    masses = np.zeros((len(demand.gate), 5))
    _add_up(demand.outcome, demand.gate, whole_is_high, masses)
    return tuple(masses.T)


@jit
def _add_up(outcome, gate, whole_is_high, masses):
    """Sum gates by step: all, high, low, replaced, dropped."""
    for step in range(len(outcome)):
        total = high = low = replaced = dropped = 0.0
        for layer in range(outcome.shape[1]):
            for slot in range(outcome.shape[2]):
                what, mass = outcome[step, layer, slot], gate[step, layer, slot]
                is_dropped = what & DROPPED != 0
                is_replaced = (what & (SUBSTITUTED | REROUTED) != 0) & (not is_dropped)
                runs = not (is_dropped | is_replaced)
                is_high = whole_is_high | (what & (LSB_HIT | LSB_FETCHED) != 0)
                total += mass
                dropped += mass if is_dropped else 0.0
                replaced += mass if is_replaced else 0.0
                high += mass if runs & is_high else 0.0
                low += mass if runs & (not is_high) else 0.0
        sums = (total, high, low, replaced, dropped)
        for column in range(5):
            masses[step, column] = sums[column]
