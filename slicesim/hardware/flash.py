"""Flash: lanes behind one queue, and a pipe that they share (semantics, section 5, rule 3)."""

from __future__ import annotations

from dataclasses import dataclass

from slicesim.hardware.units import bytes_per_second, duration_ps, mw_to_pj
from slicesim.scenario.schema import Flash


@dataclass(frozen=True)
class FlashTier:
    """A read holds a lane from its start: latency, then the shared pipe for size / ceiling, the lane at least
    latency + size / lane rate."""

    settings: Flash

    @property
    def lanes(self) -> int:
        """Reads in service at once."""
        return int(self.settings.lanes.value)

    @property
    def latency_ps(self) -> int:
        """t0: from taking a lane to asking for the pipe."""
        return max(1, round(self.settings.latency_us.value * 1e6))

    def pipe_ps(self, size_bytes: int) -> int:
        """Time on the shared pipe."""
        return duration_ps(size_bytes, bytes_per_second(self.settings.bandwidth_gbs.value))

    def lane_ps(self, size_bytes: int) -> int:
        """Time that the lane itself needs for the bytes, latency not included."""
        return duration_ps(size_bytes, bytes_per_second(self.settings.lane_bandwidth_gbs.value))

    def read_energy_pj(self, size_bytes: float) -> float:
        """Energy of reading so many bytes."""
        return 8 * size_bytes * self.settings.energy_pj_per_bit.value

    def background_energy_pj(self, elapsed_ps: float) -> float:
        """Energy of being on for a time."""
        return mw_to_pj(self.settings.background_power_mw.value, elapsed_ps)
