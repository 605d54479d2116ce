"""The fit of the phone: what hwconfigs holds is what the script found, and spreads keep what was measured."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from slicesim.scenario import Scenario
from slicesim.validation.phone import QUANTILES, phone_rows, spread_bytes
from tests.kit import ROOT


def test_the_device_file_holds_the_fit():
    spec = importlib.util.spec_from_file_location("fit_phone", ROOT / "experiments" / "fit_phone.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fit_phone"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = Scenario.load(module.CONFIG).settings
    for key, value in module.FITTED.changes().items():
        node = settings
        for part in key.split("."):
            node = getattr(node, part)
        assert node.value == value, key
        assert "fit_phone.py" in node.source
    flash = settings.device.flash
    assert (flash.latency_us.value, flash.lane_bandwidth_gbs.value) == (module.LATENCY_US, module.LANE_GBS)
    errors = [abs(error) for error in module.table_errors(module.FITTED)]
    assert sum(errors) / len(errors) < 0.05
    assert max(errors) < 0.12


def test_lane_rate_follows_from_the_lone_lane():
    """4 MiB in 2.21 ms, of which 200 us are latency: 2.087 GB/s."""
    rate = 4 * 2**20 / (2.21e-3 - 200e-6)
    assert rate == pytest.approx(2.087e9, rel=1e-3)


@pytest.mark.parametrize("row", phone_rows(), ids=lambda row: row["id"])
def test_spread_keeps_mean_and_quantiles(row):
    spread = spread_bytes(row, 256)
    assert spread.mean() == pytest.approx(float(row["mean_bytes"]), rel=1e-6)
    for level in QUANTILES[1:-1]:
        assert np.percentile(spread, level) == pytest.approx(float(row[f"bytes_q{level}"]), rel=0.09)
    assert len(set(spread.tolist())) > 200 or row["id"] == "B1"
