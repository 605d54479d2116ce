"""SRAM: the scratchpad whose two tiles let the client compute on one while the next one streams in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from slicesim.hardware.sram_law import largest_tile_bytes, leakage_mw, read_pj_per_byte, write_pj_per_byte
from slicesim.hardware.units import mw_to_pj, value_or_zero
from slicesim.scenario.device import Sram


@dataclass(frozen=True)
class SramTier:
    """Every byte that the client reads from DRAM is written here once and read once.

    ``client_tile_bytes``: the piece that the client works on where the device does not say how much comes in at once.
    """

    settings: Sram
    client_tile_bytes: int

    @property
    def tile_bytes(self) -> int:
        """Weights that come in at once."""
        given = self.settings.tile_kib
        return self.client_tile_bytes if given is None else max(1, round(given.value * 1024))

    @property
    def double_buffered(self) -> bool:
        """Two tiles fit: one streams in while the client computes on the other. If not, the one waits for the other."""
        return self.tile_bytes <= largest_tile_bytes(self.settings.capacity_kib.value)

    def energy_pj(self, read_bytes: float, written_bytes: float) -> float:
        """Energy of so many bytes read and written."""
        read, write, _ = self._coefficients
        return read_bytes * read + written_bytes * write

    def background_energy_pj(self, elapsed_ps: float) -> float:
        """Leakage over a time."""
        return mw_to_pj(self._coefficients[2], elapsed_ps)

    @cached_property
    def _coefficients(self) -> tuple[float, float, float]:
        """Reading and writing a byte (pJ), leakage (mW): by node and capacity, or as given."""
        settings, kib = self.settings, self.settings.capacity_kib.value
        if settings.node_nm is not None and settings.cells is not None:
            node = settings.node_nm
            return read_pj_per_byte(kib, node), write_pj_per_byte(kib, node), leakage_mw(kib, settings.cells)
        plain = (settings.read_energy_pj_per_byte, settings.write_energy_pj_per_byte, settings.leakage_power_mw)
        read, write, leakage = map(value_or_zero, plain)
        return read, write, leakage
