"""Mistakes in a device: both forms given, a part missing, a memory that is not there; one line each."""

from __future__ import annotations

import pytest

from tests.cli.test_mistakes import refused
from tests.kit import ROOT

PHONE = ROOT / "hwconfigs" / "phone-flagship-2024.yaml"
PAPER = ROOT / "hwconfigs" / "mobile.yaml"


@pytest.mark.parametrize(
    ("config", "text", "fragments"),
    [
        (
            PHONE,
            "dram.memory=LPDR5X-9600",
            ["device.dram.memory: no memory 'LPDR5X-9600' (did you mean 'LPDDR5X-9600'?"],
        ),
        (PHONE, "dram.memory=foo", ["no memory 'foo' (known: LPDDR4-3200, "]),
        (PHONE, "dram.bandwidth_gbs={value: 3, source: x}", ["device.dram: memory gives rate", "remove bandwidth_gbs"]),
        (PHONE, "dram.row_kib={value: 3, source: x}", ["remove row_kib, or memory"]),
        (PHONE, "dram.memory=", ["device.dram: channels: goes with memory"]),
        (PHONE, "dram.chanels=3", ["unknown key (did you mean 'channels'?)"]),
        (PHONE, "dram.channels=", ["device.dram.channels: is missing"]),
        (PHONE, "dram.idle_state=asleep", ["must be 'standby', 'power-down' or 'self-refresh'"]),
        (PHONE, "npu.client_share=", ["dram.memory gives the controller's rate: give npu.client_share too"]),
        (PHONE, "npu.client_share=1.5", ["client_share: must lie above 0 and at most 1, is 1.5"]),
        (
            PHONE,
            "npu.macs_per_cycle={value: 8, source: x}",
            ["device.npu: give macs_per_cycle", "or the array's shape"],
        ),
        (PHONE, "npu.dataflow=", ["device.npu.dataflow: is missing"]),
        (
            PHONE,
            "npu.dequant_ps_per_weight={value: 1, source: x}",
            ["give dequant_share or dequant_ps_per_weight, not"],
        ),
        (PHONE, "npu.efficiency_tops_per_w={value: 1, source: x}", ["is all-in", "sram.node_nm, sram.cells"]),
        (PHONE, "npu=", ["device: compute is npu, so give the section npu"]),
        (PHONE, "compute=gpu", ["device.compute: must be 'npu' or 'cpu' (given: \"gpu\")"]),
        (PHONE, "cpu.gflop=3", ["device.cpu.gflop: unknown key (did you mean 'gflops'?)"]),
        (PHONE, "sram.leakage_power_mw={value: 1, source: x}", ["node_nm and cells give the energy: remove leakage"]),
        (PHONE, "sram.cells=", ["give node_nm and cells together, or neither"]),
        (PHONE, "sram.node_nm=6", ["device.sram.node_nm: must be 45, 22, 7, 5 or 4 (given: 6)"]),
        (PHONE, "flash.hot_share=", ["give hot_share and hot_time_constant_s together, or neither"]),
        (
            PHONE,
            "sram={capacity_kib: {value: 8, source: x}, node_nm: 7, cells: lop}",
            ["8 KiB hold less than what npu"],
        ),
        (PAPER, "dram.channels={value: 4, source: x}", ["device.dram: channels: goes with memory"]),
        (PAPER, "dram.bandwidth_gbs=", ["device.dram.bandwidth_gbs: is missing"]),
        (PAPER, "npu.array_rows={value: 4, source: x}", ["device.npu: give macs_per_cycle", "or array_rows"]),
        (PAPER, "npu.client_share={value: 0.5, source: x}", ["dram.bandwidth_gbs is what the client sees"]),
        (PAPER, "compute=cpu", ["compute is cpu, so give the section cpu"]),
    ],
)
def test_one_line(slicesim, tmp_path, config, text, fragments):
    refused(slicesim("run", config, "--set", f"device.{text}", "--out", tmp_path / "o"), *fragments)
    assert not (tmp_path / "o").exists()
