"""NPU: closed-form time of multiply-accumulates on a bit-sliced array, by its peak or by its shape.

Semantics, sections 5 and 10; hardware.md 4.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from slicesim.hardware.client import ClientTier, Work
from slicesim.hardware.systolic import SystolicArray
from slicesim.hardware.units import PS_PER_S
from slicesim.scenario.device import ArrayNpu, MacNpu

#: Work of a weight slice of so many bits, in eighths of an INT8 x INT8 MAC.
#: bricks: with 8-bit activations ceil(8/2) x ceil(w/2) bricks of the 16 that make an 8 x 8 MAC (hardware.md 4.2).
BIT_COST: dict[str, Callable[[int], int]] = {
    "proportional": lambda bits: bits,
    "bricks": lambda bits: 2 * -(-bits // 2),
}


class NpuTier(ClientTier):
    """What both forms share: a clock, and work in proportion to the bits of a weight's slices."""

    def __init__(self, settings: MacNpu | ArrayNpu) -> None:
        super().__init__(settings)
        self._cost = BIT_COST[settings.bit_cost]
        self._hertz = round(settings.clock_ghz.value * 1e9)

    def work_eighths(self, *slice_bits: int) -> int:
        """Work of one MAC, summed over the weight's slices."""
        return sum(self._cost(bits) for bits in slice_bits)

    def _cycles_ps(self, cycles: int) -> int:
        return max(1, -(-cycles * PS_PER_S // self._hertz))


class MacNpuTier(NpuTier):
    """So many MACs a cycle, of which a share is in use: cycles = work / (share x MACs a cycle)."""

    def __init__(self, settings: MacNpu) -> None:
        super().__init__(settings)
        self._per_cycle = int(settings.macs_per_cycle.value)
        gemv, gemm = settings.gemv_utilisation.value, settings.gemm_utilisation.value
        # As ratios: arithmetic with Fraction itself takes longer than all else here.
        rates = (Fraction(share) * self._per_cycle * 8 for share in (gemv, gemm))
        self._eighths_per_cycle = [rate.as_integer_ratio() for rate in rates]

    @property
    def tile_bytes(self) -> int:
        """The INT8 weights of one cycle."""
        return self._per_cycle

    def multiply_ps(self, work: Work, msb_bits: int, lsb_bits: int) -> int:
        """A GEMV for one token, else a GEMM; at least one cycle per tile."""
        numerator, denominator = self._eighths_per_cycle[work.tokens > 1]
        cycles = -(-work.eighths * denominator // numerator)
        return self._cycles_ps(max(work.tiles, cycles))


class ArrayNpuTier(NpuTier):
    """A systolic array: cycles = sum over matrix products of the array's closed form, times the work of their bits.

    Experts go slice by slice: the MSB slice for all tokens, the LSB slice for those that use it.
    """

    def __init__(self, settings: ArrayNpu) -> None:
        super().__init__(settings)
        self.array = SystolicArray(int(settings.array_rows.value), int(settings.array_columns.value), settings.dataflow)

    @property
    def tile_bytes(self) -> int:
        """One fold of INT8 weights."""
        return self.array.rows * self.array.columns

    def multiply_ps(self, work: Work, msb_bits: int, lsb_bits: int) -> int:
        """At least one cycle per tile."""
        if work.weights:
            eighths = self._cycles(work, work.tokens) * self._cost(msb_bits)
            if work.full_tokens:
                eighths += self._cycles(work, work.full_tokens) * self._cost(lsb_bits)
        else:
            eighths = self._cycles(work, work.tokens) * self._cost(8)
        return self._cycles_ps(max(work.tiles, -(-eighths // 8)))

    def _cycles(self, work: Work, tokens: int) -> int:
        return sum(product.times * self.array.cycles(*product[1:]) for product in work.products(tokens))
