"""A sweep gives what single runs give, decides once per group, and is the same for any number of jobs."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import slicesim as api
from slicesim import simulation
from slicesim.sweeps import prepare_sweep, run
from slicesim.sweeps.table import table


def single(row: pd.Series, **more: object) -> dict:
    keys = ("device.flash.bandwidth_gbs", "cache.capacity_gb", "schedule.overlap")
    assignments = {key: row[key] for key in keys}
    assignments["device.flash.lane_bandwidth_gbs"] = row["device.flash.bandwidth_gbs"]
    return api.simulate("c.yaml", policy=row["policy"], set={**assignments, **more}).summary


def flat(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part, below in value.items() for key, leaf in flat(below, f"{name}.{part}").items()}


def test_every_figure_equals_that_of_a_single_run(folder):
    frame = api.sweep("s.yaml", out="o")
    assert len(frame) == 24
    for _, row in frame.iterrows():
        summary = single(row, **{"schedule.timeline_tokens": 0})
        figures = {**flat(summary["decode"], "decode"), **flat(summary["prefill"], "prefill")}
        for name, value in figures.items():
            assert pd.isna(row[name]) if value is None else row[name] == value, name
        point = json.loads((folder / f"o/points/{row['point']}.json").read_text())
        for part in ("decode", "prefill", "warnings", "trace", "model", "policy"):
            assert point[part] == summary[part]
        assert row["trace_sha256"] == summary["trace"]["sha256"]
        assert bool(row["synthetic"]) is True
        settled = json.loads(row["scenario"])
        assert settled["cache"] == summary["scenario"]["cache"]
        assert settled["device"]["flash"]["bandwidth_gbs"] == {
            "value": row["device.flash.bandwidth_gbs"],
            "source": "s.yaml:4",
        }


def test_what_decides_alike_is_decided_once(folder, monkeypatch):
    asked = []
    decide = simulation.decide
    monkeypatch.setattr(simulation, "decide", lambda *asking: asked.append(asking) or decide(*asking))
    api.sweep("s.yaml")
    assert len(asked) == 6  # three policies, two caches; flash and overlap are hardware


def test_replaying_together_refuses_other_decisions(folder):
    tasks = prepare_sweep("s.yaml", "o").tasks
    with pytest.raises(ValueError, match="cannot be replayed together"):
        list(simulation.replay_together([tasks[0].simulation, tasks[-1].simulation]))


def test_groups_are_cut_for_memory_and_for_jobs(folder, monkeypatch):
    tasks = prepare_sweep("s.yaml", "o").tasks
    sizes = lambda jobs: [len(batch) for batch in run._batches(tasks, jobs)]  # noqa: E731
    assert sizes(1) == sizes(6) == [4] * 6
    assert sizes(12) == [2] * 12
    monkeypatch.setattr(run, "ROWS_AT_ONCE", 3 * tasks[0].simulation.tokens)
    assert sizes(1) == [3, 1] * 6


def test_the_same_for_any_number_of_jobs(folder):
    api.sweep("s.yaml", out="one")
    api.sweep("s.yaml", out="two", jobs=2)
    assert (folder / "one/sweep.parquet").read_bytes() == (folder / "two/sweep.parquet").read_bytes()


def test_a_policy_of_ones_own_in_other_processes(folder, monkeypatch):
    (folder / "warm.yaml").write_text((folder / "s.yaml").read_text())
    (folder / "own.py").write_text(
        "from slicesim.policies import Eviction\n"
        "class Mine(Eviction):\n"
        "    def score(self, state, entries):\n"
        "        return (state.count[entries],)\n"
    )
    (folder / "s.yaml").write_text(
        "scenario: c.yaml\npolicies: [own.py:Mine, dbsc]\ngrid: {cache.capacity_gb: [0.00004032, 0.00006]}\n"
    )
    monkeypatch.chdir("/")
    api.sweep(
        folder / "warm.yaml", jobs=2, out=folder / "warm"
    )  # joblib keeps its workers, which stay where they began
    monkeypatch.chdir(folder)
    frame = api.sweep("s.yaml", jobs=2)
    assert frame["policy"].tolist() == ["dbsc+Mine"] * 2 + ["dbsc"] * 2
    direct = api.simulate("c.yaml", policy="own.py:Mine", set={"cache.capacity_gb": 0.00006})
    assert frame["decode.latency_ps.total"][1] == direct.decode["latency_ps"]["total"]


def test_progress_ends_at_all_points_and_never_falls(folder):
    seen: list[int] = []
    api.sweep("s.yaml", progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 24)
    seen.clear()
    api.sweep("s.yaml", progress=seen.append)
    assert set(seen) == {24}


def test_the_command_prints_a_table_and_json(slicesim, folder):
    code, out, err = slicesim("sweep", "s.yaml")
    assert code == 0, err
    assert "SYNTHETIC" in out
    assert "device.flash.bandwidth_gbs" in out
    assert "24 points: 0 found finished, 24 run" in out
    assert out.rstrip().endswith("written: results/s/ (sweep.parquet, points/)")
    code, out, err = slicesim("sweep", "s.yaml", "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert (printed["found"], printed["ran"], len(printed["points"])) == (24, 0, 24)
    assert printed["points"][0]["decode.miss_rate.lsb"] is None


def test_import_stays_lazy():
    code = (
        "import sys, slicesim\n"
        "assert not {'pandas', 'joblib', 'numba', 'numpy'} & set(sys.modules)\n"
        "from slicesim.sweeps import prepare_sweep\n"
        "assert callable(slicesim.sweep) and 'joblib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_table_of_unlike_rows():
    frame = table([{"split": "recorded", "decode.a": None, "x": 1}, {"split": 0.5, "decode.a.b": 2, "x": 2, "n": None}])
    assert frame["split"].tolist() == ["recorded", "0.5"]
    assert list(frame) == ["split", "x", "decode.a.b", "n"]
    assert np.isnan(frame["decode.a.b"][0])
    assert frame["n"].isna().all()
