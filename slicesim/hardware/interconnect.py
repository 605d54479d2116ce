"""Interconnect: time and energy of an exchange of activations between devices (docs/model.md, "Several devices")."""

from __future__ import annotations

from dataclasses import dataclass

from slicesim.hardware.units import bytes_per_second, duration_ps
from slicesim.scenario.device import Interconnect


@dataclass(frozen=True)
class InterconnectTier:
    """One link for each device, both ways at once; the exchange ends when the busiest link is through."""

    settings: Interconnect

    @property
    def devices(self) -> int:
        """Devices that are linked."""
        return int(self.settings.devices.value)

    def exchange_ps(self, busiest_link_bytes: int) -> int:
        """Latency + bytes of the busiest link / bandwidth."""
        rate = bytes_per_second(self.settings.bandwidth_gbs.value)
        return round(self.settings.latency_us.value * 1e6) + duration_ps(busiest_link_bytes, rate)

    def energy_pj(self, moved_bytes: float) -> float:
        """Energy of so many bytes over all links."""
        return moved_bytes * 8 * self.settings.energy_pj_per_bit.value
