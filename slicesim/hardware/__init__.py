"""The tiers: each one's law of time and energy, constants from the scenario."""

from __future__ import annotations

from dataclasses import dataclass

from slicesim.hardware.client import ClientTier
from slicesim.hardware.cpu import CpuTier
from slicesim.hardware.dram import Dram, DramTier
from slicesim.hardware.dram_channels import DramChannels
from slicesim.hardware.flash import FlashTier
from slicesim.hardware.interconnect import InterconnectTier
from slicesim.hardware.npu import ArrayNpuTier, MacNpuTier
from slicesim.hardware.sram import SramTier
from slicesim.scenario.device import ArrayNpu, Cpu, Device, MacNpu, MemoryDram


@dataclass(frozen=True)
class Hardware:
    """A device's four tiers, and the interconnect where there are several devices of that kind.

    ``npu`` is what computes, be it an NPU or a CPU.
    """

    flash: FlashTier
    dram: Dram
    sram: SramTier
    npu: ClientTier
    interconnect: InterconnectTier | None = None

    @property
    def devices(self) -> int:
        """Devices of this kind."""
        return 1 if self.interconnect is None else self.interconnect.devices

    @classmethod
    def of(cls, device: Device) -> Hardware:
        """Build the tiers of a device."""
        client = _client(device.client)
        links = None if device.interconnect is None else InterconnectTier(device.interconnect)
        return cls(FlashTier(device.flash), _dram(device), SramTier(device.sram, client.tile_bytes), client, links)


def _client(settings: MacNpu | ArrayNpu | Cpu) -> ClientTier:
    if isinstance(settings, Cpu):
        return CpuTier(settings)
    return ArrayNpuTier(settings) if isinstance(settings, ArrayNpu) else MacNpuTier(settings)


def _dram(device: Device) -> Dram:
    share = device.client.client_share
    if isinstance(device.dram, MemoryDram) and share is not None:
        return DramChannels.of(device.dram, share)
    assert not isinstance(device.dram, MemoryDram)  # the schema asks for a share then
    return DramTier(device.dram)


__all__ = ["Hardware"]
