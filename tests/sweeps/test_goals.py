"""Sweep files with a search and goals: what is said to a mistake, what is shown, what is kept and what is run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import slicesim as api
from slicesim.sweeps import prepare_sweep, run

SEARCH = """\
scenario: c.yaml
policies: [dbsc]
search:
  method: latin-hypercube
  points: 8
  keys:
    device.flash.bandwidth_gbs: {low: 1.0, high: 4.0, log: true}
    cache.capacity_gb: {low: 0.00005, high: 0.0001}
    schedule.overlap: [serial, layer]
tie:
  device.flash.lane_bandwidth_gbs: device.flash.bandwidth_gbs
objectives:
  decode.energy_mj_per_token.total: minimise
  decode.tokens_per_s: maximise
constraints:
  decode.latency_ms.mean: {max: 1000}
"""

BAYESIAN = (
    SEARCH.replace("latin-hypercube", "bayesian")
    .replace("points: 8", "points: 20\n  batch: 5\n  start: 5")
    .replace("{max: 1000}", "{max: 0.05}")
    .replace("  decode.tokens_per_s: maximise\n", "")
)

#: Runs a sweep that takes its time over every point that it keeps.
SLOW = """
import time, slicesim
from slicesim.sweeps.store import Store
put = Store.put
Store.put = lambda *words: (put(*words), time.sleep(0.1))
slicesim.sweep("s.yaml", out="killed")
"""


@pytest.fixture
def written(folder: Path) -> Path:
    (folder / "s.yaml").write_text(SEARCH)
    return folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("latin-hypercube", "annealing", "s.yaml:3: search: method must be 'grid', 'random', 'latin-hypercube', 'bay"),
        ("  method: latin-hypercube\n", "", "s.yaml:3: search: method must be given"),
        ("points: 8", "points: 0", "s.yaml:5: search.points: must be greater than or equal to 1"),
        ("points: 8", "points: 8.5", "s.yaml:5: search.points: must be a valid integer"),
        ("  points: 8\n", "", "search.points: is missing"),
        ("points: 8", "points: 8\n  seeds: 1", "s.yaml:6: search.seeds: unknown key (did you mean 'seed'?)"),
        ("points: 8", "points: 8\n  seed: -1", "s.yaml:6: search.seed: must be greater than or equal to 0"),
        ("points: 8", "points: 8\n  batch: 2", "s.yaml:6: search.batch: unknown key"),
        ("high: 4.0", "hihg: 4.0", "bandwidth_gbs.hihg: unknown key (did you mean 'high'?)"),
        ("high: 4.0, ", "", "bandwidth_gbs.high: is missing"),
        ("high: 4.0", "high: 1.0", "bandwidth_gbs: low (1.0) must be below high (1.0)"),
        ("high: 4.0", "high: .inf", "must be a finite number"),
        ("low: 1.0", "low: 0", "bandwidth_gbs: log needs low above 0, it is 0"),
        ("low: 1.0", "low: fast", "bandwidth_gbs.low: must be a valid"),
        ("log: true", "log: true, step: 1", "bandwidth_gbs: log and step do not go together"),
        ("log: true", "step: 0.7", "bandwidth_gbs: steps of 0.7 from 1.0 do not reach high (4.0)"),
        ("log: true", "step: -1", "bandwidth_gbs.step: must be greater than 0"),
        ("log: true", "step: 0.000001", "has 3,000,000 steps, at most 1,000,000"),
        ("{low: 1.0, high: 4.0, log: true}", "2.0", "keys.device.flash.bandwidth_gbs: must be a range"),
        ("[serial, layer]", "[]", "s.yaml:9: search.keys.schedule.overlap: holds no values"),
        ("[serial, layer]", "[serial, serial]", 'search.keys.schedule.overlap: holds "serial" twice'),
        ("[serial, layer]", "[seriell, both]", "s.yaml:9: schedule.overlap: must be 'serial', 'layer' or 'prefetch'"),
        ("cache.capacity_gb", "cache.capacity_bg", "s.yaml:8: cache.capacity_bg: unknown key (did you mean"),
        ("{low: 0.00005, high: 0.0001}", "{low: 1.0e-9, high: 2.0e-9}", "s.yaml:8: cache.capacity_gb:"),
        ("schedule.overlap:", "policy:", "list policies under policies:, or vary policy.preset"),
        (": device.flash.bandwidth_gbs\n", ": device.flash.lanes\n", "which is no key of the search"),
        ("search:", "grid: {seed: [1]}\nsearch:", "s.yaml:4: search: stands beside a grid: leave one out"),
        ("search:", "search: {method: grid, keys: {}}\nx:", "unknown key"),
        ("energy_mj_per_token.total", "energy_mj.totla", "decode.energy_mj.totla: no such figure (did you mean"),
        ("minimise", "minimize", "objectives.decode.energy_mj_per_token.total: must be 'minimise' or 'maximise'"),
        ("decode.latency_ms.mean", "decode.latency", "s.yaml:16: constraints.decode.latency: no such figure"),
        ("{max: 1000}", "{}", "s.yaml:16: constraints.decode.latency_ms.mean: give max, min or both"),
        ("{max: 1000}", "{max: 1, min: 2}", "min (2) must not be above max (1)"),
        ("{max: 1000}", "{most: 1}", "constraints.decode.latency_ms.mean.most: unknown key"),
        ("{max: 1000}", "1000", "constraints.decode.latency_ms.mean: must be a mapping"),
        ("latin-hypercube\n  points: 8", "grid", "search.keys: device.flash.bandwidth_gbs: a grid needs a step, or"),
        ("latin-hypercube", "bayesian\n  batch: 9", "batch (9) must not be above points (8)"),
        ("latin-hypercube", "bayesian\n  batch: 0", "search.batch: must be greater than or equal to 1"),
        ("points: 8", "points: 2000000", "must be less than or equal to 1000000"),
        ("[dbsc]\nsearch:\n  method: latin-hypercube", "[dbsc, lru-high]\nsearch:\n  method: bayesian",
         "s.yaml:2: policies: a bayesian search has one policy"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_runs(slicesim, written, monkeypatch, old, new, message):
    def never(*_: object) -> None:
        raise AssertionError("a point was run")

    monkeypatch.setattr("slicesim.sweeps.run.replay_together", never)
    assert old in SEARCH
    (written / "s.yaml").write_text(SEARCH.replace(old, new), encoding="utf-8")
    code, out, err = slicesim("sweep", "s.yaml")
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert message in err
    assert not (written / "results").exists()


@pytest.mark.parametrize("package", ["scipy.stats", "optuna"])
def test_a_missing_package_is_one_line(slicesim, written, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "slicesim.sweeps.bayesian", raising=False)
    (written / "s.yaml").write_text(BAYESIAN if package == "optuna" else SEARCH)
    code, _, err = slicesim("sweep", "s.yaml")
    assert code == 2
    assert err.count("\n") == 1
    assert "pip install 'slicesim[search]'" in err


def test_the_front_is_shown_and_drawn(slicesim, written):
    code, out, err = slicesim("sweep", "s.yaml")
    assert code == 0, err
    frame = pd.read_parquet("results/s/sweep.parquet")
    assert len(frame) == 8
    assert frame["feasible"].all()
    front = int(frame["pareto"].sum())
    assert f"Pareto front: {front} of 8 points, 8 feasible" in out
    assert out.rstrip().endswith("(sweep.parquet, points/, pareto.png)")
    assert Path("results/s/pareto.png").read_bytes().startswith(b"\x89PNG")
    energy, rate = frame["decode.energy_pj_per_token.total"], frame["decode.tokens_per_s"]
    for own in range(8):
        beaten = ((energy <= energy[own]) & (rate >= rate[own]) & ((energy < energy[own]) | (rate > rate[own]))).any()
        assert frame["pareto"][own] == (not beaten)
    printed = json.loads(slicesim("sweep", "s.yaml", "--json").out)
    assert printed["objectives"] == {"decode.energy_mj_per_token.total": "minimise", "decode.tokens_per_s": "maximise"}
    assert printed["constraints"] == {"decode.latency_ms.mean": {"max": 1000}}
    assert (printed["found"], printed["ran"]) == (8, 0)
    settled = json.loads(frame["scenario"][0])
    assert settled["cache"]["capacity_gb"] == frame["cache.capacity_gb"][0]
    assert settled["device"]["flash"]["lane_bandwidth_gbs"]["value"] == frame["device.flash.bandwidth_gbs"][0]
    (written / "s.yaml").write_text(SEARCH.replace("1000", "0.0001").replace("  decode.tokens_per_s: maximise\n", ""))
    code, out, err = slicesim("sweep", "s.yaml")
    assert code == 0, err
    assert "none of 8 points keeps the constraints; the nearest" in out
    assert not Path("results/s/pareto.png").exists()


def test_points_that_are_no_scenario_are_left_out_and_said(slicesim, written):
    (written / "s.yaml").write_text(SEARCH.replace("[serial, layer]", "[serial, both]"))
    code, out, err = slicesim("sweep", "s.yaml")
    assert code == 0, err
    assert "4 points: 0 found finished, 4 run" in out
    assert "left out, as no valid scenario: 1 drawn points; s.yaml:9: schedule.overlap: must be 'serial'" in err


def test_every_policy_runs_every_point(written):
    (written / "s.yaml").write_text(SEARCH.replace("[dbsc]", "[dbsc, lru-high]"))
    frame = api.sweep("s.yaml")
    assert frame["policy"].tolist() == ["dbsc"] * 8 + ["lru-high"] * 8
    assert frame["cache.capacity_gb"][:8].tolist() == frame["cache.capacity_gb"][8:].tolist()


def test_a_preset_may_be_a_key(written):
    (written / "s.yaml").write_text(
        "scenario: c.yaml\nsearch: {method: random, points: 6, keys: {policy.preset: [dbsc, lru-high]}}\n"
    )
    frame = api.sweep("s.yaml")
    assert frame["policy"].tolist() == frame["policy.preset"].tolist()
    assert sorted(frame["policy"]) == ["dbsc", "lru-high"]  # the same point is one row, however often it is drawn


def test_a_bayesian_search_that_was_killed_goes_on_as_if_nothing_had_been(written, monkeypatch):
    (written / "s.yaml").write_text(BAYESIAN)
    (written / "slow.py").write_text(SLOW)
    points = written / "killed/points"
    process = subprocess.Popen([sys.executable, "slow.py"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(points.glob("[!.]*.json"))) < 7 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(list(points.glob("[!.]*.json")))
    assert 7 <= before < 20
    replayed: list[int] = []
    replay = run.replay_together
    monkeypatch.setattr(run, "replay_together", lambda sims, *rest: replayed.append(len(sims)) or replay(sims, *rest))
    outcome = prepare_sweep("s.yaml", "killed").run()
    assert (outcome.found, outcome.ran) == (before, 20 - before)
    assert sum(replayed) == 20 - before
    api.sweep("s.yaml", out="whole")
    api.sweep("s.yaml", out="two", jobs=2)
    whole = (written / "whole/sweep.parquet").read_bytes()
    assert (written / "killed/sweep.parquet").read_bytes() == whole
    assert (written / "two/sweep.parquet").read_bytes() == whole
    again = prepare_sweep("s.yaml", "whole").run()
    assert (again.found, again.ran) == (20, 0)


def test_a_bayesian_search_does_not_depend_on_when_points_finish(written, monkeypatch):
    """Points come back in another order: the next batch is the same."""
    (written / "s.yaml").write_text(BAYESIAN)
    straight = api.sweep("s.yaml", out="straight")
    own = run._run
    monkeypatch.setattr(run, "_run", lambda tasks, *rest: own(tasks[::-1], *rest))
    assert api.sweep("s.yaml", out="turned").equals(straight)
