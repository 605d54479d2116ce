"""A device's DRAM out of its memory: equal channels that a transfer is spread over, as one client sees them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from slicesim.hardware.dram_energy import refresh_power_mw, standby_power_mw, streaming_closed_share
from slicesim.hardware.dram_law import steady_gbs, unloaded_latency_ns
from slicesim.hardware.dram_memory import DramEnergy, DramMemory
from slicesim.hardware.units import bytes_per_second, duration_ps, mw_to_pj


@dataclass(frozen=True)
class DramChannels:
    """The same methods as ``DramTier``, worked out from timing parameters instead of an effective rate.

    ``client_share``: what one client gets of the controller's rate. Of the pins an NPU sees 0.73 and a CPU 0.57
    (PowerInfer-2, hardware.md 0); the controller itself loses about 0.09, so over the controller it is 0.80 and 0.62.
    """

    memory: DramMemory
    channels: int
    client_share: float = 1.0

    @cached_property
    def rate_bytes_per_s(self) -> int:
        """All channels, refresh and row misses taken off, as the client sees it."""
        return bytes_per_second(self.channels * steady_gbs(self.memory) * self.client_share)

    @property
    def first_access_ps(self) -> int:
        """From asking an idle channel to its first burst; a device adds its fabric (30 to 60 ns)."""
        return max(1, round(unloaded_latency_ns(self.memory) * 1e3))

    def transfer_ps(self, size_bytes: int) -> int:
        """Time of one transaction on the pipe that all channels make together."""
        return duration_ps(size_bytes, self.rate_bytes_per_s)

    @property
    def row_bytes(self) -> int:
        """Bytes that one row in each channel holds; a stream opens each of its rows once."""
        return self.channels * self.memory.row_bytes

    def transfer_energy_pj(self, size_bytes: float, activations: float) -> float:
        """Energy of so many bytes in so many rows; an activation opens the row in every channel."""
        energy = self._energy
        return 8 * size_bytes * energy.read_pj_per_bit + activations * self.channels * energy.activate_pj

    def background_energy_pj(self, elapsed_ps: float) -> float:
        """Standby and refresh of all channels over a time, rows open as in a stream."""
        power = standby_power_mw(self.memory, streaming_closed_share(self.memory)) + refresh_power_mw(self.memory)
        return mw_to_pj(self.channels * power, elapsed_ps)

    @property
    def _energy(self) -> DramEnergy:
        if self.memory.energy is None:
            raise ValueError(f"{self.memory.name}: no energies are known for this memory")
        return self.memory.energy
