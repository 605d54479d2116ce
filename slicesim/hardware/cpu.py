"""CPU: compute threads with a sustained rate of operations (issue: published CPU engines can be replayed)."""

from __future__ import annotations

from slicesim.hardware.client import ClientTier, Work
from slicesim.hardware.units import duration_ps
from slicesim.scenario.device import Cpu


class CpuTier(ClientTier):
    """time = 2 x MACs / rate. Narrow weights are unpacked to whole ones first, so their bits save bytes, not work."""

    def __init__(self, settings: Cpu) -> None:
        super().__init__(settings)
        self._operations_per_s = round(settings.gflops.value * 1e9)

    @property
    def tile_bytes(self) -> int:
        """A cache line."""
        return 64

    def work_eighths(self, *slice_bits: int) -> int:
        """A whole MAC, whatever the slices."""
        return 8

    def multiply_ps(self, work: Work, msb_bits: int, lsb_bits: int) -> int:
        """Eighths of a MAC are quarters of an operation."""
        return duration_ps(work.eighths, 4 * self._operations_per_s)
