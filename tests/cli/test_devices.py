"""``slicesim devices``: one line for each device, in a folder of one's own too."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.devices import DEVICE_NAMES


def test_command(slicesim):
    table = slicesim("devices")
    assert table.code == 0
    for name in DEVICE_NAMES:
        assert sum(f" {name} " in line for line in table.out.splitlines()) == 1
    listed = json.loads(slicesim("devices", "--json").out)
    assert {device["config"] for device in listed} == DEVICE_NAMES
    flagship = next(device for device in listed if device["config"] == "phone-flagship-2024")
    assert (flagship["compute"], flagship["flash"], flagship["dram_capacity_gb"]) == ("npu", "UFS 4.0", 16)
    assert flagship["dram_peak_gbs"] == pytest.approx(76.8, rel=1e-3)
    paper = next(device for device in listed if device["config"] == "mobile")
    assert (paper["dram_peak_gbs"], paper["dram_client_gbs"]) == (None, 13)


def test_command_on_another_folder(slicesim, here):
    (here / "own").mkdir()
    (here / "own" / "mine.yaml").write_text(yaml.safe_dump({"extends": "../c.yaml", "seed": 3}))
    assert [device["config"] for device in json.loads(slicesim("devices", "own", "--json").out)] == ["mine"]
    for folder, words in (("nope", "nope: no such folder"), ("t.parquet", "no such folder")):
        output = slicesim("devices", folder)
        assert (output.code, words in output.err) == (2, True)
    (here / "empty").mkdir()
    assert "holds no scenario files" in slicesim("devices", "empty").err
    (here / "own" / "bad.yaml").write_text("device: 3\n")
    assert "own/bad.yaml:1: device: must be a mapping" in slicesim("devices", "own").err
