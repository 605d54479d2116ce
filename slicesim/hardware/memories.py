"""Memories by name: geometry, timing and energies of one channel, each with its source."""

from __future__ import annotations

from dataclasses import replace

from slicesim.hardware.dram_memory import DramEnergy, DramMemory, DramTiming

_DRAMSYS = "github.com/tukl-msd/DRAMSys, configs/memspec/"
_DRAMSIM = "github.com/umd-memsys/DRAMsim3, configs/"
_RAMULATOR = "github.com/CMU-SAFARI/ramulator2 (JESD209-5B tables)"


def _lpddr4() -> DramMemory:
    clock = 0.625
    timing = DramTiming(
        clock_ns=clock,
        rcd_ns=29 * clock,
        rp_ns=29 * clock,
        ras_ns=68 * clock,
        read_latency_ns=28 * clock,
        rtp_ns=12 * clock,
        rrd_ns=16 * clock,
        faw_ns=64 * clock,
        rfc_ns=448 * clock,
        refi_ns=6246 * clock,
        rank_switch_ns=clock,
    )
    # Three rails of 1.8, 1.1 and 1.1 V; all in mW, one x16 device a channel.
    read = 1.8 * (2.25 - 2.25) + 1.1 * (275 - 30) + 1.1 * (150 - 0.75)
    active, closed = 1.8 * 2.25 + 1.1 * (30 + 0.75), 1.8 * 2.0 + 1.1 * (27 + 0.75)
    row = 1.8 * 3.5 + 1.1 * (45 + 0.75)
    return DramMemory(
        name="lpddr4-3200",
        bus_bits=16,
        burst_length=16,
        banks=8,
        row_bytes=2048,
        timing=timing,
        source=_DRAMSYS + "JEDEC_8Gb_LPDDR4-3200_16bit.json",
        energy=DramEnergy(
            read_pj_per_bit=read * clock / 32,
            activate_pj=row * timing.rc_ns - active * timing.ras_ns - closed * timing.rp_ns,
            refresh_pj=(1.8 * (10 - 2.25) + 1.1 * (90 - 30)) * timing.rfc_ns,
            active_standby_mw=active,
            precharge_standby_mw=closed,
            power_down_mw=1.8 * 1.2 + 1.1 * (3.0 + 0.75),
            self_refresh_mw=1.8 * 0.3 + 1.1 * (0.5 + 0.1),
        ),
        energy_source=_DRAMSYS + "JEDEC_8Gb_LPDDR4-3200_16bit.json: currents of three rails, I/O unterminated",
    )


def _lpddr4_2400() -> DramMemory:
    clock = 0.83
    timing = DramTiming(
        clock_ns=clock,
        rcd_ns=15 * clock,
        rp_ns=15 * clock,
        ras_ns=32 * clock,
        read_latency_ns=17 * clock,
        rtp_ns=12 * clock,
        rrd_ns=8 * clock,
        faw_ns=32 * clock,
        rfc_ns=392 * clock,
        refi_ns=8660 * clock,
        ccd_long_ns=6 * clock,
        rank_switch_ns=clock,
    )
    return DramMemory(
        name="lpddr4-2400-x64-2rank",
        bus_bits=64,
        burst_length=16,
        banks=8,
        bank_groups=2,
        ranks=2,
        row_bytes=8192,
        timing=timing,
        source=_DRAMSIM + "LPDDR4_8Gb_x16_2400.ini, as quoted by github.com/UVA-LavaLab/PIMeval-PIMbench",
        energy=DramEnergy.of_currents(
            timing,
            128,
            volts=1.2,
            idd0_ma=80,
            idd2n_ma=34,
            idd2p_ma=25,
            idd3n_ma=47,
            idd4r_ma=243,
            idd5_ma=280,
            idd6_ma=30,
            devices=4,
        ),
        energy_source="the same; background currents like DDR4's, no I/O term",
    )


def _lpddr4x() -> DramMemory:
    clock = 0.469
    base = _lpddr4().energy
    assert base is not None
    return DramMemory(
        name="lpddr4x-4266",
        bus_bits=16,
        burst_length=16,
        banks=8,
        row_bytes=2048,
        timing=DramTiming(
            clock_ns=clock,
            rcd_ns=39 * clock,
            rp_ns=39 * clock,
            ras_ns=90 * clock,
            read_latency_ns=36 * clock,
            rtp_ns=17 * clock,
            rrd_ns=22 * clock,
            faw_ns=86 * clock,
            rfc_ns=380.0,
            refi_ns=8341 * clock,
            rank_switch_ns=clock,
        ),
        source=_DRAMSYS + "JEDEC_1Gbx16_LPDDR4-4266.json (tRFCab 380 ns: 16 Gb)",
        # The core of LPDDR4 with the I/O at 0.6 V: (0.6 / 1.1)^2 of 3.2 pJ/bit.
        energy=replace(base, read_pj_per_bit=5.26 + 0.95),
        energy_source="LPDDR4-3200's currents, VDDQ 0.6 V: derived (hardware.md 1.3)",
    )


def _lpddr5(name: str, clock: float, read_pj_per_bit: float, source: str) -> DramMemory:
    base = _lpddr4().energy
    assert base is not None
    return DramMemory(
        name=name,
        bus_bits=16,
        burst_length=16,
        banks=16,
        bank_groups=4,
        row_bytes=2048,
        timing=DramTiming(
            clock_ns=clock,
            rcd_ns=18.75,
            rp_ns=18.75,
            ras_ns=42.5,
            read_latency_ns=21.25,
            rtp_ns=7.5,
            rrd_ns=5.0,
            faw_ns=20.0,
            rfc_ns=280.0,
            refi_ns=3906.0,
            rank_switch_ns=clock,
        ),
        source=source,
        energy=replace(base, read_pj_per_bit=read_pj_per_bit),
        energy_source="read: a judgement, device and PHY (hardware.md 1.3, range 4 to 12); rows and states: LPDDR4's",
    )


def _ddr4() -> DramMemory:
    clock = 0.63
    timing = DramTiming(
        clock_ns=clock,
        rcd_ns=22 * clock,
        rp_ns=22 * clock,
        ras_ns=52 * clock,
        read_latency_ns=22 * clock,
        rtp_ns=12 * clock,
        rrd_ns=4 * clock,
        faw_ns=34 * clock,
        rfc_ns=560 * clock,
        refi_ns=12480 * clock,
        ccd_long_ns=8 * clock,
        rank_switch_ns=clock,
    )
    return DramMemory(
        name="ddr4-3200",
        bus_bits=64,
        burst_length=8,
        banks=16,
        bank_groups=4,
        ranks=2,
        row_bytes=8192,
        timing=timing,
        source=_DRAMSIM + "DDR4_8Gb_x8_3200.ini, bank group lowest in the address",
        energy=DramEnergy.of_currents(
            timing,
            128,
            volts=1.2,
            idd0_ma=57,
            idd2n_ma=37,
            idd2p_ma=25,
            idd3n_ma=52,
            idd4r_ma=168,
            idd5_ma=250,
            idd6_ma=30,
            devices=8,
        ),
        energy_source="the same; no I/O term",
    )


def _ddr5() -> DramMemory:
    clock = 0.416
    timing = DramTiming(
        clock_ns=clock,
        rcd_ns=39 * clock,
        rp_ns=39 * clock,
        ras_ns=77 * clock,
        read_latency_ns=40 * clock,
        rtp_ns=18 * clock,
        rrd_ns=8 * clock,
        faw_ns=32 * clock,
        rfc_ns=295.0,
        refi_ns=3900.0,
        ccd_long_ns=12 * clock,
        rank_switch_ns=2 * clock,
    )
    return DramMemory(
        name="ddr5-4800",
        bus_bits=32,
        burst_length=16,
        banks=32,
        bank_groups=8,
        row_bytes=4096,
        timing=timing,
        source="github.com/CMU-SAFARI/ramulator2, DDR5_4800B, 16 Gb x8; tFAW, tRFC1, tREFI from JESD79-5",
        energy=DramEnergy.of_currents(
            timing,
            64,
            volts=1.1,
            idd0_ma=60,
            idd2n_ma=50,
            idd2p_ma=50,
            idd3n_ma=55,
            idd4r_ma=145,
            idd5_ma=362,
            idd6_ma=50,
            devices=4,
        ),
        # Its Micron set has IDD0 below IDD3N, which makes the subtraction for a row negative: not used.
        energy_source="ramulator2, default DDR5 currents, no I/O term; power-down and self-refresh unknown: as standby",
    )


def _hbm2() -> DramMemory:
    timing = DramTiming(
        clock_ns=1.0,
        rcd_ns=14,
        rp_ns=14,
        ras_ns=34,
        read_latency_ns=14,
        rtp_ns=5,
        rrd_ns=4,
        faw_ns=30,
        rfc_ns=260,
        refi_ns=3900,
        ccd_long_ns=2,
    )
    return DramMemory(
        name="hbm2",
        bus_bits=128,
        burst_length=4,
        banks=16,
        bank_groups=4,
        row_bytes=2048,
        timing=timing,
        source=_DRAMSIM + "HBM2_8Gb_x128.ini, one of 8 channels",
        energy=DramEnergy.of_currents(
            timing,
            256,
            volts=1.2,
            idd0_ma=65,
            idd2n_ma=40,
            idd2p_ma=28,
            idd3n_ma=55,
            idd4r_ma=390,
            idd5_ma=250,
            idd6_ma=31,
            devices=1,
        ),
        energy_source="the same; no I/O term (about 3.9 pJ/bit with it, O'Connor, MICRO 2017)",
    )


def _table() -> dict[str, DramMemory]:
    lpddr4x, ddr4 = _lpddr4x(), _ddr4()
    lpddr5x = _RAMULATOR + ", nanoseconds kept, clock rescaled"
    every = (
        _lpddr4(),
        _lpddr4_2400(),
        lpddr4x,
        replace(lpddr4x, name="lpddr4x-4266-4rank", ranks=4),
        _lpddr5("lpddr5-4266", 0.46875, 7.0, _RAMULATOR + ", LPDDR5_6400, 16 Gb, nanoseconds kept, clock rescaled"),
        _lpddr5("lpddr5-6400", 0.3125, 7.0, _RAMULATOR + ", LPDDR5_6400, 16 Gb"),
        _lpddr5("lpddr5x-8448", 0.23674, 6.0, lpddr5x),
        _lpddr5("lpddr5x-8533", 0.2344, 6.0, lpddr5x),
        _lpddr5("lpddr5x-9600", 0.20833, 6.0, lpddr5x),
        ddr4,
        replace(
            ddr4, name="ddr4-3200-column", group_interleaved=False, source=_DRAMSIM + "DDR4_8Gb_x8_3200.ini as shipped"
        ),
        _ddr5(),
        _hbm2(),
    )
    return {memory.name: memory for memory in every}


#: One channel of each memory; a device has several.
MEMORIES = _table()
