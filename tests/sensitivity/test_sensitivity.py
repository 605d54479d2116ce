"""Sensitivity by hand, on a load in which nearly all time and energy is one thing."""

from __future__ import annotations

from typing import Any

import pytest

from slicesim.errors import UserError
from slicesim.scenario import Scenario
from slicesim.sensitivity import sensitivity
from slicesim.trace.demand import DemandHeader, DemandTrace, write_demand
from tests.kit import DATA, MOBILE

#: A token reads 1 GB over a flash of 1 GB/s with one lane; all else takes some microseconds.
SECOND = 10**9


def ranged(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    given = {"value": value, "low": low, "high": high, "source": "test"}
    return {key: v for key, v in given.items() if v is not None}


def scenario(tmp_path, **keys: Any) -> Scenario:
    header = DemandHeader(model="one-layer", layers=1, top_k=2, read_bytes=SECOND, source="test", licence="none")
    write_demand(tmp_path / "x.demand.csv", DemandTrace.of(header, [SECOND]))
    flash = {
        "device.flash.bandwidth_gbs": ranged(1, 0.5, 2),
        "device.flash.lane_bandwidth_gbs": ranged(1, 0.5, 2),
        "device.flash.energy_pj_per_bit": ranged(100, 50),
        "device.dram.bandwidth_gbs": ranged(1e6),
        "device.dram.energy_pj_per_bit": ranged(0),
    }
    others = ("flash.latency_us", "flash.background_power_mw", "dram.activation_energy_pj", "dram.background_power_mw")
    flash |= {f"device.{key}": ranged(0) for key in others}
    flash |= {"device.npu.gemv_utilisation": ranged(1), "device.npu.gemm_utilisation": ranged(1)}
    flash |= {"device.sram.capacity_kib": ranged(8192), "device.sram.tile_kib": ranged(256)}
    flash |= {"device.npu.efficiency_tops_per_w": ranged(1e6)}
    assignments = {**flash, **{key.replace("__", "."): value for key, value in keys.items()}}
    return Scenario.load(
        MOBILE, model=str(DATA / "one-layer.yaml"), trace=tmp_path / "x.demand.csv", assignments=assignments
    )


def test_by_hand(tmp_path):
    """1 GB takes 1 s: half the bandwidth halves the speed, twice the bandwidth doubles it. 8e9 bits x 100 pJ are 0.8 J,
    all of the energy: at 50 pJ it is half of that. The lane's rate repeats the ceiling, so both move together."""
    found = sensitivity(scenario(tmp_path))
    assert found.base.tokens_per_s == pytest.approx(1, rel=1e-3)
    assert found.base.energy_pj_per_token == pytest.approx(0.8e12, rel=1e-3)
    assert [ends.key for ends in found.coefficients] == ["device.flash.bandwidth_gbs", "device.flash.energy_pj_per_bit"]
    bandwidth, energy = found.coefficients
    assert bandwidth.change("tokens_per_s", found.base) == pytest.approx((-0.5, 1.0), rel=1e-3)
    assert bandwidth.swing("tokens_per_s", found.base) == pytest.approx(1.5, rel=1e-3)
    assert energy.change("energy_pj_per_token", found.base) == pytest.approx((-0.5, 0), rel=1e-3)
    assert energy.at_high is None
    assert not found.skipped


def test_software_has_ranges_too(tmp_path):
    """A second at 1 GB/s for a gigabyte to put into the cache: half the rate takes one second more."""
    software = {"insert_latency_us": ranged(0), "insert_bandwidth_gbs": ranged(1, 0.5)}
    found = sensitivity(scenario(tmp_path, software=software))
    ends = next(ends for ends in found.coefficients if ends.key == "software.insert_bandwidth_gbs")
    assert ends.change("tokens_per_s", found.base)[0] == pytest.approx(2 / 3 - 1, rel=1e-3)


def test_what_is_refused_is_said(tmp_path):
    """Half a lane is no lane: the end of the range cannot be run, the others can."""
    found = sensitivity(scenario(tmp_path, device__flash__lanes=ranged(1, 0.5, 2)))
    assert [(skipped.key, skipped.value) for skipped in found.skipped] == [("device.flash.lanes", 0.5)]
    assert "must be a whole number" in found.skipped[0].reason
    assert found.describe()["skipped"][0]["key"] == "device.flash.lanes"


def test_nothing_to_vary(tmp_path):
    keys = ("bandwidth_gbs", "lane_bandwidth_gbs", "energy_pj_per_bit")
    with pytest.raises(UserError, match="no coefficient has a range; give low and high beside a value"):
        sensitivity(scenario(tmp_path, **{f"device__flash__{key}": ranged(1) for key in keys}))
