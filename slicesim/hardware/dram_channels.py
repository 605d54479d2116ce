"""DRAM by its memory: equal channels that a transfer is spread over, rate and energies out of timing and currents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from slicesim.hardware.dram_energy import (
    idle_power_mw,
    refresh_power_mw,
    standby_power_mw,
    streaming_closed_share,
)
from slicesim.hardware.dram_law import steady_gbs, unloaded_latency_ns
from slicesim.hardware.dram_memory import DramEnergy, DramMemory
from slicesim.hardware.memories import MEMORIES
from slicesim.hardware.units import bytes_per_second, duration_ps, mw_to_pj
from slicesim.scenario.coefficient import Coefficient
from slicesim.scenario.device import MemoryDram


@dataclass(frozen=True)
class DramChannels:
    """The same methods as ``DramTier``.

    ``client_share``: what one client gets of the controller's rate. Of the pins an NPU sees 0.73 and a CPU 0.57
    (PowerInfer-2, hardware.md 0); the controller itself loses about 0.08, so over the controller it is 0.80 and 0.62.
    Fills are written by the flash controller, at the memory controller's rate.
    read, activate, background: energies (pJ per bit, pJ for a row in every channel, mW) in place of the memory's own.
    """

    memory: DramMemory
    channels: int
    client_share: float = 1.0
    idle_state: str = "power-down"
    read_pj_per_bit: float | None = None
    activation_pj: float | None = None
    background_mw: float | None = None

    @classmethod
    def of(cls, settings: MemoryDram, client_share: Coefficient) -> DramChannels:
        """Build it from a device; the memory is in the table (``checks.check_memory``)."""
        energies = (settings.energy_pj_per_bit, settings.activation_energy_pj, settings.background_power_mw)
        return cls(
            MEMORIES[settings.memory.lower()],
            int(settings.channels.value),
            client_share.value,
            settings.idle_state,
            *(None if energy is None else energy.value for energy in energies),
        )

    @property
    def peak_gbs(self) -> float | None:
        """All channels' pins."""
        return self.channels * self.memory.peak_gbs

    @property
    def controller_gbs(self) -> float:
        """All channels, refresh and row misses taken off."""
        return self.channels * steady_gbs(self.memory)

    @property
    def client_gbs(self) -> float:
        """The client's share of it."""
        return self.controller_gbs * self.client_share

    @cached_property
    def rate_bytes_per_s(self) -> int:
        """What the client sees."""
        return bytes_per_second(self.client_gbs)

    @cached_property
    def fill_bytes_per_s(self) -> int:
        """What the controller delivers."""
        return bytes_per_second(self.controller_gbs)

    @cached_property
    def first_access_ps(self) -> int:
        """From asking an idle channel to its first burst (a system's fabric, 30 to 60 ns, is left out)."""
        return max(1, round(unloaded_latency_ns(self.memory) * 1e3))

    def read_ps(self, size_bytes: int) -> int:
        """First access, then bytes at the client's rate."""
        return self.first_access_ps + duration_ps(size_bytes, self.rate_bytes_per_s)

    def fill_ps(self, size_bytes: int) -> int:
        """Bytes at the controller's rate; a write is posted, so its access hides behind the transfer before it."""
        return duration_ps(size_bytes, self.fill_bytes_per_s)

    @property
    def row_bytes(self) -> int:
        """Bytes that one row in each channel holds; a stream opens each of its rows once."""
        return self.channels * self.memory.row_bytes

    def transfer_energy_pj(self, size_bytes: float, activations: float) -> float:
        """Energy of so many bytes in so many rows; an activation opens the row in every channel."""
        read, row = self.read_pj_per_bit, self.activation_pj
        read = self._energy.read_pj_per_bit if read is None else read
        row = self.channels * self._energy.activate_pj if row is None else row
        return 8 * size_bytes * read + activations * row

    def background_energy_pj(self, busy_ps: float, idle_ps: float) -> float:
        """Standby and refresh of all channels: rows open as in a stream while busy, else in the idle state."""
        busy, idle = self._state_powers_mw
        return mw_to_pj(busy, busy_ps) + mw_to_pj(idle, idle_ps)

    @cached_property
    def _state_powers_mw(self) -> tuple[float, float]:
        """Power while something is transferred, and while nothing is."""
        if self.background_mw is not None:
            return self.background_mw, self.background_mw
        busy = standby_power_mw(self.memory, streaming_closed_share(self.memory)) + refresh_power_mw(self.memory)
        return self.channels * busy, self.channels * idle_power_mw(self.memory, self.idle_state)

    @property
    def _energy(self) -> DramEnergy:
        if self.memory.energy is None:
            raise ValueError(f"{self.memory.name}: no energies are known for this memory")
        return self.memory.energy
