"""What a DRAM channel's reads, rows, refresh and states cost (hardware.md 1.3): 1 mW over 1 GB/s is 1/8 pJ per bit."""

from __future__ import annotations

from dataclasses import dataclass

from slicesim.hardware.dram_law import random_share, steady_gbs
from slicesim.hardware.dram_memory import DramEnergy, DramMemory


@dataclass(frozen=True)
class EnergyParts:
    """Energy per bit by cause."""

    read_pj_per_bit: float
    activate_pj_per_bit: float
    refresh_pj_per_bit: float
    background_pj_per_bit: float

    @property
    def total_pj_per_bit(self) -> float:
        """All of it."""
        return self.read_pj_per_bit + self.activate_pj_per_bit + self.refresh_pj_per_bit + self.background_pj_per_bit


def _energy(memory: DramMemory) -> DramEnergy:
    if memory.energy is None:
        raise ValueError(f"{memory.name}: no energies are known for this memory")
    return memory.energy


def refresh_power_mw(memory: DramMemory) -> float:
    """Average power of refreshing all ranks of a channel: pJ per ns is mW."""
    return memory.ranks * _energy(memory).refresh_pj / memory.timing.refi_ns


def standby_power_mw(memory: DramMemory, closed_share: float) -> float:
    """Power of all ranks that have no row open in ``closed_share`` of the time."""
    energy = _energy(memory)
    active, closed = energy.active_standby_mw, energy.precharge_standby_mw
    return memory.ranks * (closed_share * closed + (1.0 - closed_share) * active)


def idle_power_mw(memory: DramMemory, state: str) -> float:
    """Power without traffic: ``standby`` (ready, rows closed), ``power-down`` (both refreshed by the controller), or
    ``self-refresh`` (the device refreshes itself; its current holds it)."""
    energy = _energy(memory)
    if state == "self-refresh":
        return memory.ranks * energy.self_refresh_mw
    held = {"standby": energy.precharge_standby_mw, "power-down": energy.power_down_mw}
    return memory.ranks * held[state] + refresh_power_mw(memory)


def streaming_closed_share(memory: DramMemory) -> float:
    """Share of time in which a rank has all banks closed while a long stream sweeps the ranks.

    A refresh closes the rank. If the stream is there (1 of R cases) it reopens after the stall; if not, when the
    stream comes by: after half of the time that it spends in the other ranks, on average.
    """
    ranks, timing = memory.ranks, memory.timing
    visit_ns = memory.sweep_bytes / steady_gbs(memory)
    away = (ranks - 1) / ranks * (ranks - 1) * visit_ns / 2
    return min(1.0, (away + timing.refresh_stall_ns) / timing.refi_ns)


def stream_energy(memory: DramMemory) -> EnergyParts:
    """Energy per bit of a long stream that keeps the channel busy; each row is opened once."""
    energy, gigabits = _energy(memory), 8 * steady_gbs(memory)
    return EnergyParts(
        energy.read_pj_per_bit,
        energy.activate_pj / (8 * memory.row_bytes),
        refresh_power_mw(memory) / gigabits,
        standby_power_mw(memory, streaming_closed_share(memory)) / gigabits,
    )


def random_energy(memory: DramMemory, size_bytes: int) -> EnergyParts:
    """Energy per bit of random reads that keep the channel busy: a row is opened for each, rows are open all the time
    but for refresh."""
    energy = _energy(memory)
    moved = -(-size_bytes // memory.burst_bytes) * memory.burst_bytes
    gigabits = 8 * memory.peak_gbs * random_share(memory, size_bytes)
    closed = min(1.0, memory.timing.refresh_stall_ns / memory.timing.refi_ns)
    return EnergyParts(
        energy.read_pj_per_bit,
        -(-moved // memory.row_bytes) * energy.activate_pj / (8 * moved),
        refresh_power_mw(memory) / gigabits,
        standby_power_mw(memory, closed) / gigabits,
    )
