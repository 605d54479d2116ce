"""A folder with a scenario, traces and a sweep of 24 points in 6 groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import here, slicesim

__all__ = ["here", "slicesim"]

SWEEP = """\
scenario: c.yaml
policies: [lru-high, dbsc, slicemoe]
grid:
  device.flash.bandwidth_gbs: [1.0, 2.0]
  cache.capacity_gb: [0.00004032, 0.00006]
  schedule.overlap: [serial, layer]
tie:
  device.flash.lane_bandwidth_gbs: device.flash.bandwidth_gbs
"""


@pytest.fixture
def folder(here: Path) -> Path:
    (here / "s.yaml").write_text(SWEEP, encoding="utf-8")
    return here
