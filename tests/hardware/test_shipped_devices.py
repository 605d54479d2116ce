"""The shipped devices: every coefficient with its source and range, every one runs."""

from __future__ import annotations

import pytest

import slicesim
from slicesim.hardware import Hardware
from slicesim.scenario import Scenario
from tests.devices import CONFIGS, DEVICE_NAMES, on_shipped_trace
from tests.kit import ROOT
from tests.scenario.test_schema import coefficients

#: What a data sheet says without doubt may stand without a range.
FACTS = {"capacity_gb", "channels", "queues"}

by_name = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)


def test_all_are_there():
    assert {path.stem for path in CONFIGS} == DEVICE_NAMES


@by_name
def test_every_coefficient_has_a_source_and_a_range(config):
    """The paper's device holds figures that nobody disputes; every other one says how far off it may be."""
    found = dict(coefficients(Scenario.load(config).settings.device, ("device",)))
    assert len(found) >= 15
    for path, coefficient in found.items():
        assert len(coefficient.source) > 5, path
        if config.stem != "mobile" and path[-1] not in FACTS:
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
    """The prompt and a few tokens of the shipped trace, whatever the device's own."""
    result = slicesim.simulate(config, **on_shipped_trace(config), set={"trace.max_tokens": 212})
    assert result.decode["tokens"] == 20
    assert 0.5 < result.decode["tokens_per_s"] < 500
    assert result.prefill["ttft_ps"]["mean"] > 0


@pytest.mark.parametrize(
    ("config", "compute", "gbs"),
    [
        ("phone-flagship-2024", "npu", 56.0),
        ("phone-flagship-2024", "cpu", 43.9),
        ("phone-flagship-2026", "npu", 62.0),
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
