"""The shipped devices: every coefficient with its source and range, every one runs; ``slicesim devices`` lists them."""

from __future__ import annotations

import json

import pytest
import yaml

import slicesim
from slicesim.hardware import Hardware
from slicesim.scenario import Scenario
from tests.cli.conftest import here  # noqa: F401
from tests.devices import CONFIGS
from tests.kit import ROOT
from tests.scenario.test_schema import coefficients

NAMES = {
    "mobile", "phone-flagship-2024", "phone-midrange", "oneplus-15r", "jetson-orin-nano", "jetson-agx-orin",
    "laptop-snapdragon-x", "raspberry-pi-5", "apple-m3-max",
}  # fmt: skip

by_name = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)


def test_all_are_there():
    assert {path.stem for path in CONFIGS} == NAMES


@by_name
def test_every_coefficient_has_a_source_and_a_range(config):
    """The paper's device holds figures that nobody disputes; every other one says how far off it may be."""
    found = dict(coefficients(Scenario.load(config).settings.device, ("device",)))
    assert len(found) >= 15
    for path, coefficient in found.items():
        assert len(coefficient.source) > 5, path
        if config.stem != "mobile":
            assert coefficient.low is not None, path
            assert coefficient.high is not None, path


@by_name
def test_every_bound_is_allowed(config):
    """``slicesim sensitivity`` puts each coefficient on its bounds: each is a device by itself."""
    for path, coefficient in coefficients(Scenario.load(config).settings.device, ("device",)):
        for bound in {coefficient.low, coefficient.high} - {None}:
            Scenario.load(config, assignments={".".join(path): bound})


@by_name
def test_it_runs(config):
    result = slicesim.simulate(config, set={"trace.max_tokens": 212})
    assert result.decode["tokens"] == 20
    assert 0.5 < result.decode["tokens_per_s"] < 500
    assert result.prefill["ttft_ps"]["mean"] > 0


@pytest.mark.parametrize(
    ("config", "compute", "gbs"),
    [
        ("phone-flagship-2024", "npu", 56.0),
        ("phone-flagship-2024", "cpu", 43.9),
        ("phone-midrange", "npu", 25.0),
        ("jetson-orin-nano", "npu", 51.0),
        ("jetson-agx-orin", "npu", 155.0),
        ("laptop-snapdragon-x", "npu", 95.0),
        ("laptop-snapdragon-x", "cpu", 100.0),
        ("raspberry-pi-5", "cpu", 10.0),
        ("apple-m3-max", "npu", 316.0),
    ],
)
def test_bandwidth_of_the_client(config, compute, gbs):
    """Timing and client share give what was measured, or estimated, for that client (hardware.md 5)."""
    device = Scenario.load(
        ROOT / "hwconfigs" / f"{config}.yaml", assignments={"device.compute": compute}
    ).settings.device
    assert Hardware.of(device).dram.client_gbs == pytest.approx(gbs, rel=0.01)


def test_the_other_client_of_a_device():
    both = [
        slicesim.simulate(
            ROOT / "hwconfigs" / "phone-flagship-2024.yaml", set={"trace.max_tokens": 212, "device.compute": compute}
        ).decode["tokens_per_s"]
        for compute in ("npu", "cpu")
    ]
    assert both[0] > both[1]


def test_command(command):
    table = command("devices")
    assert table.code == 0
    for name in NAMES:
        assert sum(f" {name} " in line for line in table.out.splitlines()) == 1
    listed = json.loads(command("devices", "--json").out)
    assert {device["config"] for device in listed} == NAMES
    flagship = next(device for device in listed if device["config"] == "phone-flagship-2024")
    assert (flagship["compute"], flagship["flash"], flagship["dram_capacity_gb"]) == ("npu", "UFS 4.0", 16)
    assert flagship["dram_peak_gbs"] == pytest.approx(76.8, rel=1e-3)
    paper = next(device for device in listed if device["config"] == "mobile")
    assert (paper["dram_peak_gbs"], paper["dram_client_gbs"]) == (None, 13)


def test_command_on_another_folder(command, here):  # noqa: F811
    (here / "own").mkdir()
    (here / "own" / "mine.yaml").write_text(yaml.safe_dump({"extends": "../c.yaml", "seed": 3}))
    assert [device["config"] for device in json.loads(command("devices", "own", "--json").out)] == ["mine"]
    for folder, words in (("nope", "nope: no such folder"), ("t.parquet", "no such folder")):
        output = command("devices", folder)
        assert (output.code, words in output.err) == (2, True)
    (here / "empty").mkdir()
    assert "holds no scenario files" in command("devices", "empty").err
    (here / "own" / "bad.yaml").write_text("device: 3\n")
    assert "own/bad.yaml:1: device: must be a mapping" in command("devices", "own").err
