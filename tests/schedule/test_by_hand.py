"""Time and energy of single tokens, worked out by hand.

The model ``one-layer``: hidden 64, one MoE layer, 4 experts, top-2, inner width 32, nothing shared.

- An expert has 3 x 64 x 32 = 6,144 weights in 192 groups of 32. At 8/4 bits the MSB slice is 6,144 x 4 / 8 = 3,072 B
  and
  192 x (16 + 8) / 8 = 576 B of metadata: 3,648 B, three matrices of 1,216 B. The LSB slice is 3,072 B, three of 1,024
  B.
- Attention: 2 query heads and 1 KV head of 32: 64 x 32 x (2 x 2 + 2 x 1) = 12,288 weights; the router 64 x 4 = 256.
  Together 12,544 INT8 weights and 98 scales of 2 B: 12,740 B. One token leaves 2 x 32 = 64 B of KV.
  With context 1 the layer reads 12,740 + 64 = 12,804 B and writes 64 B: 12,868 B on the DRAM pipe.
- LM head: 64 x 128 = 8,192 weights and 64 scales: 8,320 B.

The device: DRAM 1 GB/s, so 1,000 ps a byte; flash 0.5 GB/s, so 2,000 ps a byte, one lane, 1 us a read; 64 MACs a
cycle at
1 GHz, so 1,000 ps a cycle; tiles of 1 KiB.

- Attention and router stream 12,868,000 ps. Compute: 12,544 MACs and 2 x 2 x 32 = 128 for one cached token: 12,672 /
  64 =
  198 cycles, hidden behind the stream (first tile 1,024,000 + 198,000 < 12,868,000). End: 12,868,000.
- An MSB-only expert streams 3,648,000 ps; compute is 6,144 x 4 / 8 / 64 = 48 cycles: hidden. A full one streams
  6,720,000 ps. The head streams 8,320,000 ps.
- A read of 1,216 B takes 1,000,000 + 2,432,000 = 3,432,000 ps, of 1,024 B 1,000,000 + 2,048,000 = 3,048,000 ps.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit import make_trace, run, tiny_model

MODEL = "one-layer"
HEAD = 8_320_000
ATTENTION = 12_868_000
DEVICE: dict[str, Any] = {
    "device.dram.bandwidth_gbs": 1.0,
    "device.dram.energy_pj_per_bit": 2.0,
    "device.flash.bandwidth_gbs": 0.5,
    "device.flash.lane_bandwidth_gbs": 0.5,
    "device.flash.latency_us": 1.0,
    "device.flash.energy_pj_per_bit": 100.0,
    "device.sram.tile_kib": 1,
    "device.npu.macs_per_cycle": 64,
    "device.npu.efficiency_tops_per_w": 2.0,
    "cache.capacity_gb": 4 * 6720 / 1e9,
}

#: Expert 0 is critical, expert 1 is not; the second token wants the same again.
TRACE = make_trace([[[0, 1]], [[0, 1]]], [[[0.5, 0.05]], [[0.5, 0.05]]], model=tiny_model(MODEL))


def tokens(overlap, policy="dbsc", **more):
    return run(TRACE, MODEL, policy, **{**DEVICE, "schedule.overlap": overlap, **more}).tokens


def test_misses_serial():
    """Expert 0 misses both slices, expert 1 its MSB: nine reads one after another on one lane.

    6 x 3,432,000 + 3 x 3,048,000 = 29,736,000 ps of flash, each write hidden behind the next read but for the last
    one: 1,216,000. Fills end at 12,868,000 + 29,736,000 + 1,216,000 = 43,820,000. Then 6,720,000 + 3,648,000 + head
    8,320,000: 62,508,000 ps.
    """
    first = tokens("serial").iloc[0]
    assert first.latency_ps == 62_508_000
    assert first.flash_stall_ps == 29_736_000 + 1_216_000


def test_misses_layer():
    """Expert 0 reads as soon as its own slices are there; then it keeps expert 1's first write waiting.

    Expert 0: its six reads end at 12,868,000 + 3 x 3,432,000 + 3 x 3,048,000 = 32,308,000, its last write at
    33,332,000.
    It streams until 33,332,000 + 6,720,000 = 40,052,000. Expert 1's reads end at 35,740,000, 39,172,000, 42,604,000:
    the
    first write waits until 40,052,000, the second until 41,268,000, the third begins at once and ends at 43,820,000.
    Expert 1 streams until 47,468,000, the head until 55,788,000.
    """
    first = tokens("layer").iloc[0]
    assert first.latency_ps == 55_788_000
    assert first.dram_stall_ps == 55_788_000 - first.npu_ps - first.flash_stall_ps
    assert first.flash_stall_ps == (33_332_000 - ATTENTION) + (43_820_000 - 40_052_000)


@pytest.mark.parametrize("overlap", ["serial", "layer"])
def test_hits(overlap):
    """Everything is resident; context 2 adds 64 B of KV to the read: 12,932,000 + 6,720,000 + 3,648,000 + 8,320,000."""
    second = tokens(overlap).iloc[1]
    assert second.latency_ps == 12_932_000 + 6_720_000 + 3_648_000 + HEAD == 31_620_000
    assert second.flash_stall_ps == 0
    assert second.flash_energy_pj == 0


def test_one_miss_against_one_hit():
    """Serial, expert 1 alone missing: 3 x 3,432,000 of flash and the last write of 1,216,000 come on top of the hit.

    The second token sends expert 1's slot to expert 2, which is not there.
    """
    trace = make_trace([[[0, 1]], [[0, 2]]], [[[0.5, 0.05]], [[0.5, 0.05]]], model=tiny_model(MODEL))
    rows = run(trace, MODEL, **{**DEVICE, "schedule.overlap": "serial"}).tokens
    assert rows.latency_ps.iloc[1] == 31_620_000 + 3 * 3_432_000 + 1_216_000


def test_two_lanes_share_the_pipe():
    """Serial, whole experts of 6,720 B, three matrices of 2,240 B each, both missing; lanes of 0.5 GB/s, the pipe 1
    GB/s.

    On one lane the six reads would take 6 x (1,000,000 + 4,480,000). With two lanes: reads 0 and 1 take their lanes at
    0, the pipe at 1,000,000 and 3,240,000, which ends at 5,480,000. Lane 0 is held to max(3,240,000, 5,480,000), lane 1
    to max(5,480,000, 5,480,000): both are free at 5,480,000, so three rounds take 16,440,000. The last round's two
    writes of 2,240,000 follow each other: fills end 4,480,000 after the last lane. Experts stream 6,720,000 each.
    """
    rows = tokens("serial", "lru-high", **{"device.flash.lanes": 2, "device.flash.bandwidth_gbs": 1.0})
    assert rows.latency_ps.iloc[0] == ATTENTION + 3 * 5_480_000 + 4_480_000 + 2 * 6_720_000 + HEAD


def test_energy_of_misses():
    """Flash 10,368 B x 8 x 100 = 8,294,400 pJ.

    DRAM: written 10,368 + 64, read 12,804 + 6,720 + 3,648 + 8,320: 41,924 B x 8 x 2 = 670,784 pJ.
    NPU: 12,672 + 6,144 + 6,144 / 2 + 8,192 = 30,080 INT8 MACs of 2 operations at 2 TOPS/W: 30,080 pJ.
    """
    first = tokens("layer").iloc[0]
    assert first.flash_energy_pj == 8_294_400
    assert first.dram_energy_pj == 670_784
    assert first.npu_energy_pj == 30_080
    assert first.background_energy_pj == first.sram_energy_pj == 0
    assert first.total_energy_pj == 8_294_400 + 670_784 + 30_080
    assert first.non_expert_energy_pj == (12_804 + 64 + 8_320) * 16 + 12_672 + 8_192


def test_energy_of_hits():
    """No flash, no fills: (12,932 + 6,720 + 3,648 + 8,320) x 16 = 505,920 pJ; 12,800 + 6,144 + 3,072 + 8,192 MACs."""
    second = tokens("serial").iloc[1]
    assert second.total_energy_pj == 505_920 + 12_800 + 6_144 + 3_072 + 8_192


def test_compute_bound_expert():
    """One MAC a cycle at 8/8 of the work: 6,144 cycles = 6,144,000 ps begin when the first tile is in, at 1,024,000.

    The full expert ends at 7,168,000, after its stream of 6,720,000; the MSB-only one computes 3,072,000 and ends at
    1,024,000 + 3,072,000 = 4,096,000, after its stream of 3,648,000. Attention: 12,800 MACs: 13,824,000; head:
    9,216,000.
    """
    second = tokens("serial", **{"device.npu.macs_per_cycle": 1}).iloc[1]
    assert second.latency_ps == 13_824_000 + 7_168_000 + 4_096_000 + 9_216_000


def test_prefill_streams_each_expert_once():
    """Both tokens as one prompt: experts 0 and 1 with both slices, computed for two tokens at once.

    Attention reads 12,740 + 2 x 64 B and writes 128 B: 12,996,000. Twelve reads: 6 x 3,432,000 + 6 x 3,048,000 =
    38,880,000, last write 1,024,000. Two full experts 6,720,000 each, the head once:
    12,996,000 + 39,904,000 + 13,440,000 + 8,320,000 = 74,660,000 ps.
    """
    trace = make_trace([[[0, 1]], [[0, 1]]], [[[0.5, 0.05]], [[0.5, 0.05]]], prompt=2, model=tiny_model(MODEL))
    result = run(trace, MODEL, **{**DEVICE, "schedule.overlap": "serial"})
    assert result.prefill["ttft_ps"]["mean"] == 74_660_000
    assert result.decode["tokens"] == 0
