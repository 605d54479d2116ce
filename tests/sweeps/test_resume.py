"""What is finished stays finished: after kill -9, beside other sweeps, and only for the same scenario."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import slicesim as api
from slicesim import simulation
from slicesim.errors import UserError
from slicesim.sweeps import prepare_sweep, run
from slicesim.trace.store import write_trace
from tests.kit import random_trace
from tests.sweeps.conftest import SWEEP

#: Runs a sweep that takes its time over every point that it keeps.
SLOW = """
import sys, time, slicesim
from slicesim.sweeps.store import Store
put = Store.put
Store.put = lambda *words: (put(*words), time.sleep(0.1))
if __name__ == "__main__":
    slicesim.sweep("s.yaml", out="killed", jobs=int(sys.argv[1]))
"""


def mtimes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.json")}


@pytest.fixture
def replayed(monkeypatch) -> list[int]:
    """Points of each call of replay_together."""
    calls: list[int] = []
    replay = run.replay_together
    monkeypatch.setattr(run, "replay_together", lambda sims, *rest: calls.append(len(sims)) or replay(sims, *rest))
    return calls


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_in_the_middle(folder, replayed, jobs):
    (folder / "slow.py").write_text(SLOW)
    points = folder / "killed/points"
    process = subprocess.Popen([sys.executable, "slow.py", str(jobs)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(mtimes(points)) < 6 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = mtimes(points)
    assert 6 <= len(before) < 24
    assert not (folder / "killed/sweep.parquet").exists()
    outcome = prepare_sweep("s.yaml", "killed").run()
    assert (outcome.found, outcome.ran) == (len(before), 24 - len(before))
    assert sum(replayed) == outcome.ran
    after = mtimes(points)
    assert len(after) == 24
    assert {name: after[name] for name in before} == before
    api.sweep("s.yaml", out="whole")
    assert (folder / "killed/sweep.parquet").read_bytes() == (folder / "whole/sweep.parquet").read_bytes()
    assert {file.name: file.read_bytes() for file in points.iterdir()} == {
        file.name: file.read_bytes() for file in (folder / "whole/points").iterdir()
    }


def test_half_written_files_are_cleaned_and_run_again(folder, replayed):
    frame = api.sweep("s.yaml", out="o")
    replayed.clear()
    points = folder / "o/points"
    broken = points / f"{frame['point'][3]}.json"
    broken.write_text(broken.read_text()[:100])
    (points / f".{'0' * 32}.json.partial").write_text("{")
    (folder / "o/.sweep.parquet.partial").write_text("PAR1")
    again = api.sweep("s.yaml", out="o")
    assert replayed == [1]
    assert again.equals(frame)
    assert len(list(points.iterdir())) == 24
    assert {file.name for file in (folder / "o").iterdir()} == {"points", "sweep.parquet", ".lock"}


def test_a_larger_grid_runs_only_what_is_new(folder, replayed):
    api.sweep("s.yaml", out="o")
    replayed.clear()
    (folder / "s.yaml").write_text(SWEEP.replace("[1.0, 2.0]", "[1.0, 1.5, 2.0]"))
    outcome = prepare_sweep("s.yaml", "o").run()
    assert (outcome.found, outcome.ran) == (24, 12)
    assert sum(replayed) == 12


def test_words_and_places_do_not_count(folder, monkeypatch):
    api.sweep("s.yaml", out="o")
    (folder / "s.yaml").write_text("# moved down by a line\n" + SWEEP)
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert prepare_sweep("../s.yaml", "../o").run().ran == 0


@pytest.mark.parametrize("change", ["version", "trace", "scenario", "code"])
def test_what_counts_is_run_again(folder, monkeypatch, change):
    own = "from slicesim.policies import Eviction\nclass Mine(Eviction):\n    def key(self, entry, now):\n"
    (folder / "own.py").write_text(f"{own}        return entry.count\n")
    (folder / "s.yaml").write_text("scenario: c.yaml\npolicies: [own.py:Mine]\ngrid: {seed: [1, 2]}\n")
    assert prepare_sweep("s.yaml", "o").run().ran == 2
    assert prepare_sweep("s.yaml", "o").run().ran == 0
    if change == "version":
        monkeypatch.setattr(simulation, "__version__", "9.9")
    elif change == "trace":
        trace = random_trace(2, 24, requests=2, prompt=6)
        write_trace(folder / "t.parquet", trace.header, trace.blocks())
    elif change == "scenario":
        text = (folder / "c.yaml").read_text()
        (folder / "c.yaml").write_text(text.replace("{value: 1.5, low: 1.5", "{value: 2.5, low: 1.5"))
    else:
        (folder / "own.py").write_text(f"{own}        return -entry.count\n")
    outcome = prepare_sweep("s.yaml", "o").run()
    assert (outcome.found, outcome.ran) == (0, 2)


def test_two_at_once_do_not_share_a_folder(folder):
    prepared = prepare_sweep("s.yaml", "o")
    with prepared.store.opened(), pytest.raises(UserError, match="o: another sweep is at work here"):
        prepare_sweep("s.yaml", "o").run()
    assert prepared.run().ran == 24


def test_folders_that_are_not_a_sweeps(slicesim, folder):
    (folder / "other").mkdir()
    (folder / "other/thesis.tex").write_text("all of it")
    for out, message in (
        ("other", "other: holds other files, not an earlier result"),
        (".", "is where you are working"),
    ):
        code, _, err = slicesim("sweep", "s.yaml", "--out", out)
        assert code == 2
        assert message in err
    assert [file.name for file in (folder / "other").iterdir()] == ["thesis.tex"]
    assert slicesim("run", "c.yaml", "--out", "run").code == 0
    assert slicesim("sweep", "s.yaml", "--out", "run").code == 2
    assert slicesim("sweep", "s.yaml", "--out", "o").code == 0
    assert slicesim("run", "c.yaml", "--out", "o").code == 2


def test_a_point_that_is_no_json(folder):
    frame = api.sweep("s.yaml", out="o")
    file = folder / f"o/points/{frame['point'][0]}.json"
    file.write_text("{what}\n")
    with pytest.raises(UserError, match="is no point of a sweep; remove it"):
        api.sweep("s.yaml", out="o")


def test_jobs_below_one(folder):
    with pytest.raises(UserError, match="jobs must be at least 1"):
        api.sweep("s.yaml", jobs=0)
    assert not (folder / "results").exists()
