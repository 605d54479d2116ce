"""Single tokens on a CPU, on a memory out of the table, on an array by its shape, on a warming flash: by hand.

The model and the trace are those of ``test_by_hand``: the second token finds both of its experts in the cache. It reads

- attention and router: 12,740 B and two cached tokens of 64 B, and writes 64 B: 12,932 B; 12,544 MACs for the weights
  and 2 x 128 for the cached tokens: 12,800;
- expert 0 with both slices: 6,720 B; expert 1 with its MSB slice: 3,648 B; 6,144 MACs each;
- the LM head: 8,320 B, 8,192 MACs.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit import make_trace, run, tiny_model
from tests.schedule.test_by_hand import DEVICE, MODEL, TRACE

HIT_BYTES = (12_932, 6_720, 3_648, 8_320)
ENERGY = ("read_energy_pj_per_byte", "write_energy_pj_per_byte", "leakage_power_mw")


def c(value: float) -> dict[str, Any]:
    return {"value": value, "source": "test"}


SEPARATE = {f"device.sram.{key}": c(0.0) for key in ENERGY} | {"device.npu.efficiency_tops_per_w": None}


def tokens(**more: Any) -> Any:
    keys = {key.replace("__", "."): value for key, value in more.items()}
    base = {key: value for key, value in DEVICE.items() if key not in keys and "efficiency" not in key}
    return run(TRACE, MODEL, **{**base, "schedule.overlap": "serial", **SEPARATE, **keys}).tokens


def cpu(**more: float) -> dict[str, Any]:
    coefficients = {
        "gflops": 1.0,
        "mac_energy_pj": 3.0,
        "dequant_energy_pj_per_weight": 0.5,
        "background_power_mw": 0.0,
    }
    section = {key: c(value) for key, value in {**coefficients, **more}.items()}
    return {"device__compute": "cpu", "device__cpu": section, "device__sram__tile_kib": None}


def test_cpu():
    """1 GFLOP/s: 2,000 ps a MAC, whatever the bits; DRAM 1 GB/s; the first 64 B (a cache line) take 64,000 ps.

    Attention 25,600,000, experts 12,288,000 each (narrow or not), head 16,384,000, each after its first line: all are
    longer than their streams. Sum 66,560,000 + 4 x 64,000.
    """
    second = tokens(**cpu()).iloc[1]
    assert second.latency_ps == 66_816_000
    assert second.npu_ps == 66_560_000
    assert second.dram_stall_ps == 256_000


def test_cpu_overheads():
    """5 us of software in the one MoE layer, 100 ps to unpack each of 2 x 6,144 expert weights."""
    second = tokens(**cpu(layer_overhead_us=5.0, dequant_ps_per_weight=100.0)).iloc[1]
    assert second.latency_ps == 66_816_000 + 5_000_000 + 1_228_800
    assert second.npu_ps == 66_560_000 + 5_000_000 + 1_228_800


def test_overhead_comes_after_a_stream_too():
    """100 GFLOP/s: everything waits for DRAM (31,620,000 ps), and the overhead is on top of that, not hidden in it."""
    second = tokens(**cpu(gflops=100.0, layer_overhead_us=5.0)).iloc[1]
    assert second.latency_ps == sum(HIT_BYTES) * 1000 + 5_000_000


def test_dequantisation_as_a_share():
    """A tenth of 2 x 12,288,000 ps on top."""
    assert tokens(**cpu(dequant_share=0.1)).iloc[1].latency_ps == 66_816_000 + 2_457_600


def test_energy_of_a_cpu():
    """12,800 + 2 x 6,144 + 8,192 = 33,280 MACs of 3 pJ, 12,288 weights unpacked at 0.5 pJ."""
    assert tokens(**cpu()).iloc[1].npu_energy_pj == 33_280 * 3 + 12_288 * 0.5


def array(**more: Any) -> dict[str, Any]:
    npu = {key: c(value) for key, value in (("clock_ghz", 0.01), ("array_rows", 8), ("array_columns", 8))}
    npu |= {key: c(0.0) for key in ("mac_energy_pj", "dequant_energy_pj_per_weight", "background_power_mw")}
    npu |= {"dataflow": "output-stationary", "bit_cost": "proportional"}
    return {"device__npu": npu, "device__sram__tile_kib": None, **more}


@pytest.fixture
def _no_plain_npu(monkeypatch):
    """The base scenario sets coefficients of the plain NPU one by one: leave them out."""
    for key in ("device.npu.macs_per_cycle",):
        monkeypatch.delitem(DEVICE, key)
    monkeypatch.delitem(SEPARATE, "device.npu.efficiency_tops_per_w")


@pytest.mark.usefixtures("_no_plain_npu")
def test_array():
    """8 x 8 cells, outputs stay: ceil(m/8) ceil(n/8) (k + 22) cycles of 100,000 ps; a tile is 64 B: 64,000 ps.

    - Attention: query, output 64 x 64: 8 x 86 each; key and value 2 x (4 x 86); router: 86. Two query heads share one
      cached key of 32: scores m = 2, n = 2, k = 32: 54; values m = 2, n = 32, k = 2: 4 x 24. Together 2,300.
    - Expert: gate and up 2 x 4 x 86, down 8 x 54: 1,120; with 4 of 8 bits 560.
    - Head: 16 x 86 = 1,376.
    """
    assert tokens(**array()).iloc[1].latency_ps == (2_300 + 1_120 + 560 + 1_376) * 100_000 + 4 * 64_000


@pytest.mark.usefixtures("_no_plain_npu")
def test_one_tile_fits_but_not_two():
    """0.1 KiB hold one tile of 64 B: computation waits for the whole stream, 31,620,000 ps."""
    narrow = array(device__sram__capacity_kib=0.1)
    assert tokens(**narrow).iloc[1].latency_ps == 5_356 * 100_000 + sum(HIT_BYTES) * 1000


@pytest.mark.usefixtures("_no_plain_npu")
def test_array_in_prefill():
    """Both tokens at once, cached pairs 1 + 2 = 3, so a mean reach of 2: m = 2 still fits the 8 rows.

    Scores m = 4, n = 2, k = 32: 54, values m = 4, n = 32, k = 2: 96: attention 2,300 as before. Two full experts: MSB
    and LSB 560 each. 12 reads on one lane as in test_by_hand: 39,904,000 ps until all are there.
    """
    trace = make_trace([[[0, 1]], [[0, 1]]], [[[0.5, 0.05]], [[0.5, 0.05]]], prompt=2, model=tiny_model(MODEL))
    keys = {key.replace("__", "."): value for key, value in array().items()}
    device = {key: value for key, value in DEVICE.items() if key not in keys and "efficiency" not in key}
    result = run(trace, MODEL, **{**device, "schedule.overlap": "serial", **SEPARATE, **keys})
    compute = (2_300 + 2 * 1_120 + 1_376) * 100_000 + 4 * 64_000
    assert result.prefill["ttft_ps"]["mean"] == compute + 39_904_000


MEMORY: dict[str, Any] = {
    "kind": "LPDDR4",
    "capacity_gb": c(8.0),
    "memory": "LPDDR4-3200",
    "channels": c(4),
}

#: Access, then bytes over 11,738,456,612 B/s.
ACCESS = 54_509
STREAMS = (1_101_679, 572_478, 310_774, 708_782)


def memory(dram: dict[str, Any] = MEMORY) -> dict[str, Any]:
    npu = {
        "macs_per_cycle": 64, "clock_ghz": 1.0, "gemv_utilisation": 1.0, "gemm_utilisation": 1.0, "client_share": 0.5,
        "mac_energy_pj": 0.0, "dequant_energy_pj_per_weight": 0.0, "background_power_mw": 0.0,
    }  # fmt: skip
    section = {key: c(value) for key, value in npu.items()} | {"bit_cost": "proportional"}
    return {"device__dram": dram, "device__npu": section}


@pytest.fixture
def _no_plain_dram(monkeypatch):
    for key in ("device.dram.bandwidth_gbs", "device.dram.energy_pj_per_bit", "device.npu.macs_per_cycle"):
        monkeypatch.delitem(DEVICE, key)
    monkeypatch.delitem(SEPARATE, "device.npu.efficiency_tops_per_w")


@pytest.mark.usefixtures("_no_plain_dram")
def test_memory_hits():
    """Four channels of LPDDR4-3200, half for the client.

    Pins 4 x 6.4 = 25.6 GB/s. A refresh stalls (12 + 29 + 448 + 29) x 0.625 = 323.75 ns of every 3,903.75: the
    controller delivers 25.6 x 3,580 / 3,903.75 = 23.476913 GB/s, the client gets 11,738,456,612 B/s. One access:
    4 x 0.625 + 18.125 + 17.5 + 5 = 43.125 ns, and half of (18.125 + 280) ns in 298.125 / 3,903.75 of the cases: 11.384;
    54,509 ps. Everything is bound by its stream.
    """
    second = tokens(**memory()).iloc[1]
    assert tuple(-(-size * 10**12 // 11_738_456_612) for size in HIT_BYTES) == STREAMS
    assert second.latency_ps == sum(STREAMS) + 4 * ACCESS == second.dram_busy_ps


@pytest.mark.usefixtures("_no_plain_dram")
def test_memory_fills_at_the_controllers_rate():
    """Nine reads on one lane as in test_by_hand: 29,736,000 ps, and one write of 1,216 B that is not hidden.

    It takes 1,216 B over 23,476,913,224 B/s = 51,796 ps. Attention reads 64 B less than in the second token.
    """
    first, second = tokens(**memory()).iloc[0], tokens(**memory()).iloc[1]
    attention = -(-12_868 * 10**12 // 11_738_456_612)
    assert first.latency_ps == second.latency_ps - STREAMS[0] + attention + 29_736_000 + 51_796


@pytest.mark.usefixtures("_no_plain_dram")
def test_energy_of_a_memory():
    """Four channels, by state: rows open while busy, power-down while not, refresh always.

    Active 1.8 x 2.25 + 1.1 x 30.75 = 37.875 mW, closed 1.8 x 2 + 1.1 x 27.75 = 34.125 mW, closed in 323.75 / 3,903.75
    of the time: 37.564 mW; refresh 22,386 pJ every 3,903.75 ns: 5.7345 mW; power-down 6.285 mW. So 4 x 43.2985 =
    173.194 mW and 4 x 12.0195 = 48.078 mW. Bursts 8.4570 pJ a bit: (1.1 x 245 + 1.1 x 149.25) x 0.625 / 32. Rows of
    4 x 2 KiB: 12,868 B read and 64 written open 2 + 1, the others 1 each; a row 1,195.9 pJ a channel.
    """
    rows = tokens(**memory())
    for row in (rows.iloc[0], rows.iloc[1]):
        idle = row.latency_ps - row.dram_busy_ps
        expected = (row.dram_busy_ps * 173.194 + idle * 48.078) * 1e-3
        assert row.background_energy_pj == pytest.approx(expected, rel=1e-4)
    second = rows.iloc[1]
    row_pj = 4 * (56.625 * 60.625 - 37.875 * 42.5 - 34.125 * 18.125)
    activations = second.expert_activations + second.non_expert_activations
    assert activations == 2 + 1 + 1 + 1 + 2
    bit_pj = 1.1 * (245 + 149.25) * 0.625 / 32
    assert second.dram_energy_pj == pytest.approx(sum(HIT_BYTES) * 8 * bit_pj + activations * row_pj, rel=1e-9)


@pytest.mark.usefixtures("_no_plain_dram")
def test_an_energy_that_is_given_replaces_the_memorys():
    """One power at all times, not that and the states; 2 pJ a bit, rows free."""
    given = {"energy_pj_per_bit": c(2.0), "activation_energy_pj": c(0.0), "background_power_mw": c(100.0)}
    first = tokens(**memory({**MEMORY, **given})).iloc[0]
    assert first.background_energy_pj == pytest.approx(first.latency_ps * 0.1)
    assert first.dram_energy_pj == 41_924 * 8 * 2


def test_a_flash_that_warms_up():
    """The first token's reads keep the pipe busy for 10,368 B x 2,000 ps = 20,736,000 ps; tau = 29.5 us.

    1 - exp(-20.736 / 29.5) = 0.505, which is level 32 of 64: half of the loss, and hot is half as fast: 0.75 of the
    rate. The second token misses expert 1's MSB slice: three reads of 1,216 B, each 2,432,000 / 0.75 = 3,242,667 ps on
    the pipe instead of 2,432,000 (one in a million for the rounding of the share).
    """
    trace = make_trace([[[0, 1]], [[0, 2]]], [[[0.5, 0.05]], [[0.5, 0.05]]], model=tiny_model(MODEL))
    warm = {"device.flash.hot_share": c(0.5), "device.flash.hot_time_constant_s": c(29.5e-6)}
    rows = [run(trace, MODEL, **{**DEVICE, **keys, "schedule.overlap": "serial"}).tokens for keys in ({}, warm)]
    cold, hot = (frame.latency_ps for frame in rows)
    assert cold.iloc[0] == hot.iloc[0]
    assert hot.iloc[1] - cold.iloc[1] == pytest.approx(3 * (3_242_667 - 2_432_000), abs=15)
    assert rows[1].flash_read_bytes.equals(rows[0].flash_read_bytes)


def test_a_queue_bounds_the_lanes():
    """Eight lanes behind a queue of one command are one lane."""
    eight = {**DEVICE, "device.flash.lanes": 8, "device.flash.queue_depth": c(1), "schedule.overlap": "serial"}
    assert run(TRACE, MODEL, **eight).tokens.latency_ps.iloc[0] == 62_508_000
