"""DRAM by an effective rate: its channels as one pipe, row activations counted (semantics, sections 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from slicesim.hardware.units import bytes_per_second, duration_ps, mw_to_pj
from slicesim.scenario.device import PlainDram


class Dram(Protocol):
    """Reads by the client and writes by flash fills share one pipe."""

    @property
    def peak_gbs(self) -> float | None:
        """On the pins; None where it is not known."""

    @property
    def client_gbs(self) -> float:
        """What the client gets of it."""

    @property
    def row_bytes(self) -> int:
        """Bytes that one row activation opens, over all channels; a stream activates each of its rows once."""

    def read_ps(self, size_bytes: int) -> int:
        """Time of one read (or write) by the client."""

    def fill_ps(self, size_bytes: int) -> int:
        """Time of one fill's write."""

    def transfer_energy_pj(self, size_bytes: float, activations: float) -> float:
        """Energy of reading or writing so many bytes in so many rows."""

    def background_energy_pj(self, busy_ps: float, idle_ps: float) -> float:
        """Standby and refresh over a time with transfers and a time without."""


@dataclass(frozen=True)
class DramTier:
    """One rate for all: what the client sees."""

    settings: PlainDram

    @property
    def peak_gbs(self) -> float | None:
        """Not known: the rate is an effective one."""
        return None

    @property
    def client_gbs(self) -> float:
        """The effective rate."""
        return self.settings.bandwidth_gbs.value

    @property
    def row_bytes(self) -> int:
        """As the device says."""
        return max(1, round(self.settings.row_kib.value * 1024))

    def read_ps(self, size_bytes: int) -> int:
        """Bytes over the rate."""
        return duration_ps(size_bytes, bytes_per_second(self.settings.bandwidth_gbs.value))

    def fill_ps(self, size_bytes: int) -> int:
        """The same."""
        return self.read_ps(size_bytes)

    def transfer_energy_pj(self, size_bytes: float, activations: float) -> float:
        """Energy per bit, and per row."""
        bits = 8 * size_bytes * self.settings.energy_pj_per_bit.value
        return bits + activations * self.settings.activation_energy_pj.value

    def background_energy_pj(self, busy_ps: float, idle_ps: float) -> float:
        """One power at all times."""
        return mw_to_pj(self.settings.background_power_mw.value, busy_ps + idle_ps)
