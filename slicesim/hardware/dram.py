"""DRAM: its channels as one pipe with an effective rate, row activations counted (semantics, sections 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass

from slicesim.hardware.units import bytes_per_second, duration_ps, mw_to_pj
from slicesim.scenario.schema import Dram


@dataclass(frozen=True)
class DramTier:
    """Reads by the NPU and writes by flash fills share one pipe."""

    settings: Dram

    def transfer_ps(self, size_bytes: int) -> int:
        """Time of one transaction on the pipe."""
        return duration_ps(size_bytes, bytes_per_second(self.settings.bandwidth_gbs.value))

    @property
    def row_bytes(self) -> int:
        """Bytes that one row activation opens, over all channels; a stream activates each of its rows once."""
        return max(1, round(self.settings.row_kib.value * 1024))

    def transfer_energy_pj(self, size_bytes: float, activations: float) -> float:
        """Energy of reading or writing so many bytes in so many rows."""
        bits = 8 * size_bytes * self.settings.energy_pj_per_bit.value
        return bits + activations * self.settings.activation_energy_pj.value

    def background_energy_pj(self, elapsed_ps: float) -> float:
        """Standby and refresh energy over a time."""
        return mw_to_pj(self.settings.background_power_mw.value, elapsed_ps)
