"""NPU: closed-form time and energy of multiply-accumulates on a bit-sliced array (semantics, sections 5, 6 and 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from slicesim.hardware.units import PS_PER_S, mw_to_pj, value_or_zero
from slicesim.scenario.schema import Npu

#: Work of a weight slice of so many bits, in eighths of an INT8 x INT8 MAC.
#: bricks: with 8-bit activations ceil(8/2) x ceil(w/2) bricks of the 16 that make an 8 x 8 MAC (hardware.md 4.2).
BIT_COST: dict[str, Callable[[int], int]] = {
    "proportional": lambda bits: bits,
    "bricks": lambda bits: 2 * -(-bits // 2),
}


@dataclass(frozen=True)
class NpuTier:
    """A MAC array. Work is counted in eighths: ``eighths = MACs x work_eighths(bits of each slice used)``."""

    settings: Npu

    def work_eighths(self, *slice_bits: int) -> int:
        """Work of one MAC with a weight made of these slices, in eighths of an INT8 MAC."""
        cost = BIT_COST[self.settings.bit_cost]
        return sum(cost(bits) for bits in slice_bits)

    def compute_ps(self, eighths: int, tiles: int, batch: bool) -> int:
        """Time of a GEMV (``batch`` false) or GEMM; at least one cycle per tile."""
        numerator, denominator = self._eighths_per_cycle[batch]
        cycles = max(int(tiles), -(-int(eighths) * denominator // numerator))
        return max(1, -(-cycles * PS_PER_S // round(self.settings.clock_ghz.value * 1e9)))

    @cached_property
    def _eighths_per_cycle(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Work done in a cycle by a GEMV and by a GEMM, as exact ratios."""
        work = int(self.settings.macs_per_cycle.value) * 8
        utilisation = (self.settings.gemv_utilisation.value, self.settings.gemm_utilisation.value)
        gemv, gemm = (Fraction(share) * work for share in utilisation)
        return gemv.as_integer_ratio(), gemm.as_integer_ratio()

    def compute_energy_pj(self, eighths: float, dequantised_weights: float) -> float:
        """Energy of the work; one MAC is two operations in the all-in TOPS/W figure."""
        macs = eighths / 8
        efficiency = self.settings.efficiency_tops_per_w
        if efficiency is not None:
            return macs * 2 / efficiency.value
        dequantise = dequantised_weights * value_or_zero(self.settings.dequant_energy_pj_per_weight)
        return macs * value_or_zero(self.settings.mac_energy_pj) + dequantise

    def background_energy_pj(self, elapsed_ps: float) -> float:
        """Leakage and clock over a time; none where the all-in figure holds."""
        return mw_to_pj(value_or_zero(self.settings.background_power_mw), elapsed_ps)
