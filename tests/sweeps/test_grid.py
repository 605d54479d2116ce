"""From a sweep file to points, and what is said to a mistake in it."""

from __future__ import annotations

import pytest

from slicesim.errors import UserError
from slicesim.sweeps import prepare_sweep
from slicesim.sweeps.file import Point, read_sweep
from tests.sweeps.conftest import SWEEP


def read_points(path: str = "s.yaml") -> list[Point]:
    return [task.point for task in prepare_sweep(path, "o").tasks]


def test_policies_vary_slowest_and_the_last_key_fastest(folder):
    keys, points = read_sweep("s.yaml").keys, read_points()
    assert keys == ("device.flash.bandwidth_gbs", "cache.capacity_gb", "schedule.overlap")
    assert len(points) == 24
    first, second, last = points[0], points[1], points[-1]
    assert first.values == {keys[0]: 1.0, keys[1]: 0.00004032, keys[2]: "serial"}
    assert second.values == {**first.values, keys[2]: "layer"}
    assert first.scenario.settings.policy.preset == "lru-high"
    assert last.scenario.settings.policy.preset == "slicemoe"
    assert last.scenario.settings.schedule.overlap == "layer"


def test_a_coefficient_names_its_line_and_ties_follow(folder):
    flash = read_points()[-1].scenario.settings.device.flash
    assert flash.bandwidth_gbs.value == flash.lane_bandwidth_gbs.value == 2.0
    assert flash.bandwidth_gbs.source == "s.yaml:4"
    assert flash.lane_bandwidth_gbs.source == "s.yaml:8"


def test_sections_and_coefficients_as_values(folder):
    (folder / "s.yaml").write_text(
        "scenario: c.yaml\n"
        "set: {trace.split: all-decode}\n"
        "grid:\n"
        "  amat: [{high_bits: 8, low_bits: 4}, {high_bits: 6, low_bits: 3}]\n"
        "  device.dram.bandwidth_gbs: [{value: 16, source: figure 7}]\n"
    )
    points = read_points()
    assert [point.scenario.settings.amat.high_bits for point in points] == [8, 6]
    assert points[0].scenario.settings.device.dram.bandwidth_gbs.source == "figure 7"
    assert points[0].scenario.settings.trace.split == "all-decode"


def test_paths_are_read_from_the_folder_of_the_file(folder, monkeypatch):
    (folder / "own.py").write_text("from slicesim.policies import Eviction\nclass Mine(Eviction):\n    pass\n")
    (folder / "s.yaml").write_text(
        "scenario: c.yaml\npolicies: [own.py:Mine]\ngrid:\n  trace.path: [t.parquet, l.parquet]\n"
    )
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    points = read_points("../s.yaml")
    assert [point.scenario.settings.trace.path for point in points] == [str(folder / f"{n}.parquet") for n in "tl"]
    assert points[0].values == {"trace.path": "t.parquet"}
    assert points[0].scenario.settings.policy.eviction.name == f"{folder / 'own.py'}:Mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("policies:", "polices:", "s.yaml:2: polices: unknown key (did you mean 'policies'?)"),
        ("[lru-high, dbsc, slicemoe]", "[]", "s.yaml:2: policies: is empty"),
        ("[lru-high, dbsc, slicemoe]", "dbsc", "s.yaml:2: policies: must be a valid list"),
        ("[1.0, 2.0]", "[]", "s.yaml:4: grid.device.flash.bandwidth_gbs: holds no values"),
        ("[1.0, 2.0]", "1.0", "s.yaml:4: grid.device.flash.bandwidth_gbs: must be a valid list"),
        ("[1.0, 2.0]", "[1.0, 1.0]", "s.yaml:4: grid.device.flash.bandwidth_gbs: holds 1.0 twice"),
        ("[1.0, 2.0]", "[1.0, -2.0]", "s.yaml:4: device.flash.bandwidth_gbs: must be above 0, is -2"),
        ("cache.capacity_gb", "cache.capacity_bg", "s.yaml:5: cache.capacity_bg: unknown key (did you mean"),
        ("cache.capacity_gb:", "cache.capacity_gb.value:", "s.yaml:5: cache.capacity_gb is a single value"),
        ("[serial, layer]", "[serial, both]", "s.yaml:6: schedule.overlap: must be 'serial', 'layer' or 'prefetch'"),
        ("schedule.overlap: [serial, layer]", "schedule.timeline_tokens: [1]", "a sweep draws no timelines"),
        ("schedule.overlap: [serial, layer]", "policy: [{preset: dbsc}]", "list policies under policies:"),
        (
            "scenario: c.yaml",
            "scenario: c.yaml\nset: {cache.capacity_gb: 1}",
            "s.yaml:6: grid.cache.capacity_gb: would undo cache.capacity_gb, which this sweep gives too",
        ),
        (": device.flash.bandwidth_gbs\n", ": device.flash.lanes\n", "follows device.flash.lanes, which is no key of"),
        ("c.yaml", "nothing.yaml", "s.yaml:1: scenario: no such file: nothing.yaml"),
        ("c.yaml", "c.yaml\ntrace: nothing.parquet", "s.yaml:2: no such trace: nothing.parquet"),
        ("c.yaml", "c.yaml\nmodel: nothing", "s.yaml:2: no model 'nothing'"),
        ("lru-high", "lru-hihg", "s.yaml:2: policy.preset: no preset 'lru-hihg' (did you mean 'lru-high'?)"),
        ("[0.00004032, 0.00006]", "[0.00004, 0.00006, 0.000001]", "s.yaml:5: cache.capacity_gb: 1e-06 GB holds less"),
        (SWEEP.partition("grid")[2], ": {}", "s.yaml:3: grid: is empty: give at least one key with its values"),
        (SWEEP.partition("grid")[2], ":", "s.yaml:3: grid: must be"),
        (SWEEP.partition("\n")[2], "", "s.yaml: grid: is missing"),
        (SWEEP, "", "s.yaml: must hold a YAML mapping (key: value), is empty"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_runs(slicesim, folder, monkeypatch, old, new, message):
    def never(*_: object) -> None:
        raise AssertionError("a point was run")

    monkeypatch.setattr("slicesim.sweeps.run.replay_together", never)
    assert old in SWEEP
    (folder / "s.yaml").write_text(SWEEP.replace(old, new), encoding="utf-8")
    code, out, err = slicesim("sweep", "s.yaml")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not (folder / "results").exists()


def test_a_grid_that_is_too_large(folder):
    values = list(range(1, 1200))
    (folder / "s.yaml").write_text(f"scenario: c.yaml\ngrid: {{seed: {values}, trace.max_tokens: {values}}}\n")
    with pytest.raises(UserError, match="makes 1,437,601 points, at most 1,000,000"):
        read_sweep("s.yaml")
