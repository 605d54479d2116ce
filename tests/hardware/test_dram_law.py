"""The DRAM laws by hand, against DRAMsim3, and monotone in every timing parameter."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicesim.hardware.dram_channels import DramChannels
from slicesim.hardware.dram_energy import (
    idle_power_mw,
    random_energy,
    refresh_power_mw,
    stream_energy,
)
from slicesim.hardware.dram_law import (
    bus_share,
    random_interval_ns,
    random_share,
    steady_share,
    stream_ns,
    stream_share,
    unloaded_latency_ns,
)
from slicesim.hardware.dram_memory import DramEnergy, DramMemory, DramTiming
from slicesim.hardware.memories import MEMORIES
from slicesim.validation.reference import reference_rows, relative_error

MIB = 2**20
TIMING = DramTiming(
    clock_ns=1.0,
    rcd_ns=15,
    rp_ns=20,
    ras_ns=40,
    read_latency_ns=10,
    rtp_ns=5,
    rrd_ns=10,
    faw_ns=48,
    rfc_ns=160,
    refi_ns=2000,
)
#: 16 bits, burst of 16: 32 bytes in 8 ns, 4 GB/s; rows of 1 KiB, 4 banks.
SMALL = DramMemory(
    name="small", bus_bits=16, burst_length=16, banks=4, row_bytes=1024, timing=TIMING, source="made up for this test"
)
ROWS = {row["memory"]: row for row in reference_rows("dram_streaming")}


def test_refresh_takes_a_tenth_by_hand() -> None:
    """5 + 20 + 160 + 15 = 200 ns of every 2,000."""
    assert SMALL.peak_gbs == 4.0
    assert steady_share(SMALL) == pytest.approx(0.9)


def test_one_stream_by_hand() -> None:
    """10,000 bytes take 2,500 ns; the refresh at 2,000 adds 200. 8,000 bytes end just when it begins."""
    assert stream_ns(SMALL, 10_000) == pytest.approx(2700)
    assert stream_ns(SMALL, 8_000) == pytest.approx(2000)


def test_two_ranks_by_hand() -> None:
    """A sweep is 4 KiB or 1,024 ns; ranks refresh in turn every 1,000 ns, rank 0 first, at 1,000.

    At 1,000 ns 4,000 of 6,000 bytes are read and 96 are left of rank 0's sweep. The controller sees two rows ahead,
    2,048 bytes, so it goes on with rank 1 while rank 0 stalls for 200 ns: 800 bytes. The other 1,200 take 300 ns more:
    1,500 ns, the whole stall hidden. Without looking ahead: 1,700.
    """
    two = replace(SMALL, ranks=2)
    assert stream_ns(two, 6_000) == pytest.approx(1500)
    assert stream_ns(replace(two, ahead_rows=0), 6_000) == pytest.approx(1700)


def test_row_read_in_one_bank_group_by_hand() -> None:
    """Row of 32 bursts of 8 ns, tCCD_L 16: 512 ns instead of 256. Queue of 9: 8 - 15/16 = 7.06 of them overlap."""
    timing = replace(TIMING, ccd_long_ns=16)
    memory = replace(SMALL, timing=timing, bank_groups=2, group_interleaved=False, queue_bursts=9)
    assert bus_share(memory) == pytest.approx(256 / (512 - (8 - 15 / 16) * 16))
    assert bus_share(replace(memory, queue_bursts=40)) == 1.0
    assert bus_share(replace(memory, group_interleaved=True)) == 1.0


def test_random_reads_by_hand() -> None:
    """One burst takes 8 ns, activations 12 (48 / 4 > 10), banks 60 / 4 = 15: one read every 15 ns of 32 bytes."""
    assert random_interval_ns(SMALL, 32) == 15
    assert random_share(SMALL, 32) == pytest.approx(8 / 15 * 0.9)
    assert random_interval_ns(replace(SMALL, banks=8), 32) == 12
    assert random_interval_ns(SMALL, 1024) == 32 * 8


def test_unloaded_latency_by_hand() -> None:
    """4 clocks + 15 + 10 + 8 = 37; a read meets a refresh in 180 of 2,000 ns and waits 90 of it: 8.1.

    One read in 1,000 ns: two in a refresh interval, of which 4 (1 - 0.75^2) / 2 = 0.875 find the bank closed; the
    others wait 20 ns for a precharge.
    """
    assert unloaded_latency_ns(SMALL) == pytest.approx(45.1)
    assert unloaded_latency_ns(SMALL, 1000) == pytest.approx(45.1 + 0.125 * 20)


def test_energy_of_currents_by_hand() -> None:
    """1 V, one device: read (100 - 20) mA x 1 ns / 32 bits = 2.5 pJ; row 50 x 60 - 20 x 40 - 10 x 20 = 2,000 pJ;
    refresh (70 - 20) x 160 = 8,000 pJ, every 2,000 ns: 4 mW. A stream moves 28.8 Gb/s (0.9 x 4 GB/s) and has the rank
    closed for 200 of 2,000 ns: 0.1 x 10 + 0.9 x 20 = 19 mW."""
    energy = DramEnergy.of_currents(
        TIMING,
        32,
        volts=1.0,
        idd0_ma=50,
        idd2n_ma=10,
        idd2p_ma=2,
        idd3n_ma=20,
        idd4r_ma=100,
        idd5_ma=70,
        idd6_ma=1,
        devices=1,
    )
    memory = replace(SMALL, energy=energy)
    assert (energy.read_pj_per_bit, energy.activate_pj, energy.refresh_pj) == (2.5, 2000, 8000)
    assert refresh_power_mw(memory) == 4
    parts = stream_energy(memory)
    assert parts.activate_pj_per_bit == pytest.approx(2000 / 8192)
    assert parts.refresh_pj_per_bit == pytest.approx(4 / 28.8)
    assert parts.background_pj_per_bit == pytest.approx(19 / 28.8)
    assert [idle_power_mw(memory, state) for state in ("standby", "power-down", "self-refresh")] == [14, 6, 1]


def test_states_of_lpddr4_as_in_the_data_sheet() -> None:
    """hardware.md 1.3: 37.9 / 34.1 / 6.3 / 1.2 mW, 22.4 nJ a refresh, 5.7 mW, 1.20 nJ a row, 5.26 + 3.2 pJ/bit."""
    memory = MEMORIES["lpddr4-3200"]
    energy = memory.energy
    assert energy is not None
    states = (
        energy.active_standby_mw,
        energy.precharge_standby_mw,
        energy.power_down_mw,
        energy.self_refresh_mw,
        energy.refresh_pj / 1e3,
        energy.activate_pj / 1e3,
        energy.read_pj_per_bit,
        refresh_power_mw(memory),
    )
    assert states == pytest.approx((37.9, 34.1, 6.3, 1.2, 22.4, 1.20, 8.46, 5.7), rel=0.02)


@pytest.mark.parametrize("name", ROWS)
def test_streams_of_dramsim3_within_one_percent(name: str) -> None:
    for column, size in (("seq_1mib_share", MIB), ("seq_8mib_share", 8 * MIB)):
        assert abs(relative_error(stream_share(MEMORIES[name], size), float(ROWS[name][column]))) < 0.01


@pytest.mark.parametrize("name", ROWS)
def test_random_reads_of_dramsim3(name: str) -> None:
    memory, row = MEMORIES[name], ROWS[name]
    share = random_share(memory, memory.burst_bytes)
    assert abs(relative_error(share, float(row["random_share"]))) < 0.06
    latency = unloaded_latency_ns(memory, 400 * memory.timing.clock_ns)
    assert abs(relative_error(latency, float(row["unloaded_ns"]))) < 0.08


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row["seq_pj_per_bit"]])
def test_energy_of_dramsim3_within_three_percent(name: str) -> None:
    memory, row = MEMORIES[name], ROWS[name]
    assert abs(relative_error(stream_energy(memory).total_pj_per_bit, float(row["seq_pj_per_bit"]))) < 0.03
    random = random_energy(memory, memory.burst_bytes).total_pj_per_bit
    assert abs(relative_error(random, float(row["random_pj_per_bit"]))) < 0.03


@pytest.mark.parametrize("name", MEMORIES)
def test_phase_evens_out(name: str) -> None:
    """Very long streams reach the average within 3 % (ranks that lock into step with refresh: up to 3 % better)."""
    memory = MEMORIES[name]
    assert stream_share(memory, 256 * MIB) == pytest.approx(steady_share(memory), rel=0.03)


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_every_memory_is_whole(memory: DramMemory) -> None:
    assert memory.source
    assert memory.energy_source
    assert memory.energy is not None
    assert min(vars(memory.energy).values()) > 0


def test_channels_by_hand() -> None:
    """Four channels of 4 GB/s at 0.9, half for the client: 7.2 GB/s, so 7,200 bytes take 1 us."""
    channels = DramChannels(SMALL, 4, client_share=0.5)
    assert channels.read_ps(7200) == channels.first_access_ps + 10**6
    assert channels.fill_ps(7200) == 500_000
    assert channels.row_bytes == 4096
    with pytest.raises(ValueError, match="small: no energies"):
        channels.background_energy_pj(1.0, 0.0)


def test_phone_bandwidth_from_parts() -> None:
    """PowerInfer-2 measures 56 GB/s for the NPU on four x16 channels of LPDDR5X-9600."""
    phone = DramChannels(MEMORIES["lpddr5x-9600"], 4, client_share=0.80)
    assert phone.rate_bytes_per_s / 1e9 == pytest.approx(56, rel=0.02)
    assert phone.peak_gbs == pytest.approx(76.8, rel=1e-3)
    assert phone.background_energy_pj(1e12, 0.0) * 1e-9 == pytest.approx(4 * (38 + 6), rel=0.05)
    assert phone.background_energy_pj(0.0, 1e12) * 1e-9 == pytest.approx(4 * (6.3 + 5.7), rel=0.05)


_TIMES = [field.name for field in fields(DramTiming) if field.name not in ("clock_ns", "refi_ns")]


@given(st.sampled_from(list(MEMORIES)), st.sampled_from(_TIMES), st.floats(1.0, 3.0), st.integers(1, 1 << 14))
def test_longer_times_never_help(name: str, timing: str, factor: float, size: int) -> None:
    memory = MEMORIES[name]
    slower = replace(memory, timing=replace(memory.timing, **{timing: getattr(memory.timing, timing) * factor}))
    assert steady_share(slower) <= steady_share(memory) + 1e-12
    assert random_share(slower, size) <= random_share(memory, size) + 1e-12
    assert unloaded_latency_ns(slower) >= unloaded_latency_ns(memory) - 1e-9


@given(st.sampled_from(list(MEMORIES)), st.floats(1.0, 4.0))
def test_rarer_refresh_never_hurts(name: str, factor: float) -> None:
    memory = MEMORIES[name]
    rarer = replace(memory, timing=replace(memory.timing, refi_ns=memory.timing.refi_ns * factor))
    assert steady_share(rarer) >= steady_share(memory)
    assert random_share(rarer, 64) >= random_share(memory, 64) - 1e-12
    assert refresh_power_mw(rarer) <= refresh_power_mw(memory)


@given(st.integers(1, 1 << 24), st.integers(1, 8), st.floats(0.1, 1))
def test_transfers_are_whole_and_monotone(size: int, channels: int, share: float) -> None:
    memory = MEMORIES["lpddr5-6400"]
    one = DramChannels(memory, channels, share)
    assert isinstance(one.read_ps(size), int)
    assert one.fill_ps(size) <= one.read_ps(size)
    assert one.read_ps(size) <= one.read_ps(size + 1)
    assert DramChannels(memory, channels + 1, share).read_ps(size) <= one.read_ps(size)
