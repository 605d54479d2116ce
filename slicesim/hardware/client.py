"""What computes: the work of one operation, and what every client does with it (semantics, sections 5 and 6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import NamedTuple

from slicesim.hardware.bit_slices import with_dequantisation_ps
from slicesim.hardware.units import mw_to_pj, value_or_zero
from slicesim.scenario.device import Client


class Product(NamedTuple):
    """``times`` products of m x k activations with k x n weights (or cached keys and values)."""

    times: int
    m: int
    n: int
    k: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.times * self.m * self.n * self.k


class Work(NamedTuple):
    """What one operation asks of the client.

    eighths: MACs by the bits of their weights, in eighths of an INT8 MAC; tiles: pieces in which the weights come;
    tokens: tokens at once, ``full_tokens`` of them with both slices; weights: expert weights to dequantise; products:
    the matrix products for so many tokens (worked out only where a client asks for them).
    """

    eighths: int
    tiles: int
    tokens: int
    full_tokens: int
    weights: int
    products: Callable[[int], Iterable[Product]]


class ClientTier(ABC):
    """A device's client: time and energy of its work."""

    def __init__(self, settings: Client) -> None:
        self.client = settings

    @property
    @abstractmethod
    def tile_bytes(self) -> int:
        """Smallest piece of weights to work on, where the device does not say how many come in at once."""

    @abstractmethod
    def work_eighths(self, *slice_bits: int) -> int:
        """Work of one MAC with a weight made of these slices, in eighths of an INT8 MAC."""

    @abstractmethod
    def multiply_ps(self, work: Work, msb_bits: int, lsb_bits: int) -> int:
        """Time of the multiply-accumulates alone."""

    def compute_ps(self, work: Work, msb_bits: int, lsb_bits: int) -> int:
        """Time of one operation: dequantisation of experts that is not fused comes on top of the rest."""
        time = self.multiply_ps(work, msb_bits, lsb_bits)
        if work.weights and self.client.dequant_share is not None:
            return with_dequantisation_ps(time, self.client.dequant_share.value)
        return time + round(work.weights * value_or_zero(self.client.dequant_ps_per_weight))

    @property
    def layer_overhead_ps(self) -> int:
        """Software around one MoE layer."""
        return round(value_or_zero(self.client.layer_overhead_us) * 1e6)

    def compute_energy_pj(self, eighths: float, dequantised_weights: float) -> float:
        """Energy of the work; one MAC is two operations in the all-in TOPS/W figure."""
        macs = eighths / 8
        efficiency = self.client.efficiency_tops_per_w
        if efficiency is not None:
            return macs * 2 / efficiency.value
        dequantise = dequantised_weights * value_or_zero(self.client.dequant_energy_pj_per_weight)
        return macs * value_or_zero(self.client.mac_energy_pj) + dequantise

    def background_energy_pj(self, elapsed_ps: float) -> float:
        """Leakage, clock and waiting over a time; none where the all-in figure holds."""
        return mw_to_pj(value_or_zero(self.client.background_power_mw), elapsed_ps)
