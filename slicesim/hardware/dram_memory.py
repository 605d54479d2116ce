"""What a DRAM channel is made of: geometry, timing in nanoseconds, energies of its commands and states."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DramTiming:
    """Timing of one rank, JEDEC's names, in nanoseconds.

    ``clock_ns``: one clock with two data beats. ``ccd_long_ns``: bursts in one bank group, where there are groups.
    ``rank_switch_ns``: idle bus between bursts of two ranks (tRTRS, tCS).
    """

    clock_ns: float
    rcd_ns: float
    rp_ns: float
    ras_ns: float
    read_latency_ns: float
    rtp_ns: float
    rrd_ns: float
    faw_ns: float
    rfc_ns: float
    refi_ns: float
    ccd_long_ns: float = 0.0
    rank_switch_ns: float = 0.0

    @property
    def rc_ns(self) -> float:
        """Row cycle: from one activation of a bank to its next."""
        return self.ras_ns + self.rp_ns

    @property
    def refresh_stall_ns(self) -> float:
        """Time that one all-bank refresh takes from a stream through that rank: last read to precharge, precharge,
        refresh, and the row opened again (tRTP + tRP + tRFC + tRCD)."""
        return self.rtp_ns + self.rp_ns + self.rfc_ns + self.rcd_ns


@dataclass(frozen=True)
class DramEnergy:
    """Energies of one rank of one channel. ``read_pj_per_bit``: bursts alone, with I/O where the source has it."""

    read_pj_per_bit: float
    activate_pj: float
    refresh_pj: float
    active_standby_mw: float
    precharge_standby_mw: float
    power_down_mw: float
    self_refresh_mw: float

    @classmethod
    def of_currents(
        cls,
        timing: DramTiming,
        bits_per_clock: int,
        *,
        volts: float,
        idd0_ma: float,
        idd2n_ma: float,
        idd2p_ma: float,
        idd3n_ma: float,
        idd4r_ma: float,
        idd5_ma: float,
        idd6_ma: float,
        devices: int,
    ) -> DramEnergy:
        """The usual subtraction (Micron TN-41-01; DRAMsim3): mA x V x ns = pJ, on all devices of the rank.

        read = (IDD4R - IDD3N) V t; activate = (IDD0 tRC - IDD3N tRAS - IDD2N tRP) V; refresh = (IDD5 - IDD3N) V tRFC.
        """
        power = volts * devices
        row = idd0_ma * timing.rc_ns - idd3n_ma * timing.ras_ns - idd2n_ma * timing.rp_ns
        return cls(
            read_pj_per_bit=power * (idd4r_ma - idd3n_ma) * timing.clock_ns / bits_per_clock,
            activate_pj=power * row,
            refresh_pj=power * (idd5_ma - idd3n_ma) * timing.rfc_ns,
            active_standby_mw=power * idd3n_ma,
            precharge_standby_mw=power * idd2n_ma,
            power_down_mw=power * idd2p_ma,
            self_refresh_mw=power * idd6_ma,
        )


@dataclass(frozen=True)
class DramMemory:
    """One channel of a memory. ``row_bytes``: one row over all devices of a rank.

    ``group_interleaved``: neighbouring bursts go to different bank groups; if not, a row is read burst by burst in one
    group, at tCCD_L. ``queue_bursts``: requests that the controller sees ahead (cmd and transaction queue).
    ``ahead_rows``: rows that it can read of the next rank while this one refreshes.
    """

    name: str
    bus_bits: int
    burst_length: int
    banks: int
    row_bytes: int
    timing: DramTiming
    source: str
    bank_groups: int = 1
    ranks: int = 1
    group_interleaved: bool = True
    energy: DramEnergy | None = None
    energy_source: str = ""
    queue_bursts: int = 40
    ahead_rows: int = 2
    controller_clocks: int = 4

    @property
    def peak_gbs(self) -> float:
        """Bytes on the pins, two beats a clock."""
        return self.bus_bits / 8 * 2 / self.timing.clock_ns

    @property
    def burst_bytes(self) -> int:
        """Bytes of one burst."""
        return self.bus_bits * self.burst_length // 8

    @property
    def burst_ns(self) -> float:
        """Time of one burst on the bus."""
        return self.burst_length / 2 * self.timing.clock_ns

    @property
    def sweep_bytes(self) -> int:
        """Bytes that a stream reads from one rank before it moves to the next: one row in each bank."""
        return self.row_bytes * self.banks
