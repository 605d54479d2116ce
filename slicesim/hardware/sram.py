"""SRAM: the scratchpad whose two tiles let the NPU compute on one while the next one streams in."""

from __future__ import annotations

from dataclasses import dataclass

from slicesim.hardware.units import mw_to_pj, value_or_zero
from slicesim.scenario.schema import Sram


@dataclass(frozen=True)
class SramTier:
    """Every byte that the NPU reads from DRAM is written here once and read once."""

    settings: Sram

    @property
    def tile_bytes(self) -> int:
        """One half of the double buffer."""
        return max(1, round(self.settings.tile_kib.value * 1024))

    def energy_pj(self, read_bytes: float, written_bytes: float) -> float:
        """Energy of so many bytes read and written."""
        read = read_bytes * value_or_zero(self.settings.read_energy_pj_per_byte)
        return read + written_bytes * value_or_zero(self.settings.write_energy_pj_per_byte)

    def background_energy_pj(self, elapsed_ps: float) -> float:
        """Leakage over a time."""
        return mw_to_pj(value_or_zero(self.settings.leakage_power_mw), elapsed_ps)
