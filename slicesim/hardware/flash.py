"""Flash: lanes behind one queue, and a pipe that they share (semantics, section 5, rule 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from slicesim.hardware.flash_law import FlashLaw
from slicesim.hardware.thermal import Thermal
from slicesim.hardware.units import bytes_per_second, mw_to_pj, value_or_zero
from slicesim.scenario.device import Flash


@dataclass(frozen=True)
class FlashTier:
    """A read holds a lane from its start: latency, then the shared pipe for size / ceiling (and a gap between reads in
    a row), the lane at least latency + size / lane rate."""

    settings: Flash

    @cached_property
    def law(self) -> FlashLaw:
        """The law of time with this device's coefficients."""
        settings = self.settings
        depth, hot, tau = settings.queue_depth, settings.hot_share, settings.hot_time_constant_s
        return FlashLaw(
            latency_ps=max(1, round(settings.latency_us.value * 1e6)),
            lane_bytes_per_s=bytes_per_second(settings.lane_bandwidth_gbs.value),
            ceiling_bytes_per_s=bytes_per_second(settings.bandwidth_gbs.value),
            gap_ps=round(value_or_zero(settings.gap_us) * 1e6),
            lanes=int(settings.lanes.value),
            queue_depth=None if depth is None else int(depth.value),
            queues=1 if settings.queues is None else int(settings.queues.value),
            thermal=Thermal() if hot is None or tau is None else Thermal(hot.value, tau.value),
        )

    @property
    def lanes(self) -> int:
        """Reads in service at once: the lanes, or what the command queue lets through."""
        return self.law.in_flight

    @property
    def latency_ps(self) -> int:
        """t0: from taking a lane to asking for the pipe."""
        return self.law.wait_ps

    @property
    def heat_starts_ps(self) -> tuple[int, ...]:
        """Busy time of the pipe at which each level of heat begins; one level where nothing warms up."""
        return self.law.thermal.level_starts_ps

    def pipe_ps(self, size_bytes: int, busy_ps: int = 0) -> int:
        """Time on the shared pipe, after it has been busy for ``busy_ps`` since the device was cold."""
        return self.law.pipe_ps(size_bytes, busy_ps)

    def lane_ps(self, size_bytes: int) -> int:
        """Time that the lane itself needs, what it waits before it asks for the pipe not included."""
        return self.law.lane_ps(size_bytes)

    def read_energy_pj(self, size_bytes: float) -> float:
        """Energy of reading so many bytes."""
        return 8 * size_bytes * self.settings.energy_pj_per_bit.value

    def background_energy_pj(self, elapsed_ps: float) -> float:
        """Energy of being on for a time."""
        return mw_to_pj(self.settings.background_power_mw.value, elapsed_ps)
