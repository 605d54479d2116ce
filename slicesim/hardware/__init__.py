"""The tiers: each one's law of time and energy, constants from the scenario."""

from __future__ import annotations

from dataclasses import dataclass

from slicesim.hardware.dram import DramTier
from slicesim.hardware.flash import FlashTier
from slicesim.hardware.npu import NpuTier
from slicesim.hardware.sram import SramTier
from slicesim.scenario.schema import Device


@dataclass(frozen=True)
class Hardware:
    """A device's four tiers."""

    flash: FlashTier
    dram: DramTier
    sram: SramTier
    npu: NpuTier

    @classmethod
    def of(cls, device: Device) -> Hardware:
        """Build the tiers of a device."""
        return cls(FlashTier(device.flash), DramTier(device.dram), SramTier(device.sram), NpuTier(device.npu))


__all__ = ["DramTier", "FlashTier", "Hardware", "NpuTier", "SramTier"]
