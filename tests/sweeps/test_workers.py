"""Workers that are killed, here and on a cluster: nothing is lost, nothing is kept twice, the table is the same."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import slicesim as api
from slicesim import workers
from slicesim.cluster import Cluster
from slicesim.errors import UserError
from slicesim.sweeps import prepare_sweep
from slicesim.sweeps.store import Store
from slicesim.workers import Processes
from tests.sweeps.deadly import double

#: The reference engine takes its time: whoever is killed is at work.
SWEEP = """\
scenario: c.yaml
policies: [dbsc]
set: {schedule.engine: reference}
search:
  method: random
  points: 12
  keys:
    cache.capacity_gb: {low: 0.00005, high: 0.0001}
"""


@pytest.fixture
def serial(folder: Path) -> bytes:
    """The table of a sweep in one process."""
    (folder / "s.yaml").write_text(SWEEP)
    api.sweep("s.yaml", out="serial")
    return (folder / "serial/sweep.parquet").read_bytes()


@pytest.fixture
def kept(monkeypatch) -> list[str]:
    """Digests that are put into the store."""
    digests: list[str] = []
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda self, digest, text: digests.append(digest) or put(self, digest, text))
    return digests


def kill_after(monkeypatch, kept: list[str], count: int, word: str) -> list[int]:
    """Kill a child process whose command line holds a word when so many points are kept; return its id later."""
    import psutil

    killed: list[int] = []
    put = Store.put

    def put_and_kill(self: Store, digest: str, text: str) -> None:
        put(self, digest, text)
        if len(kept) == count and not killed:
            children = psutil.Process().children(recursive=True)
            worker = next(
                child for child in children
                if word in " ".join(child.cmdline()) and "resource_tracker" not in " ".join(child.cmdline())
            )  # fmt: skip
            killed.append(worker.pid)
            worker.kill()

    monkeypatch.setattr(Store, "put", put_and_kill)
    return killed


@pytest.mark.parametrize(
    ("where", "word"), [({"jobs": 2}, "loky"), ({"cluster": "local:2"}, "multiprocessing.spawn")], ids=["jobs", "dask"]
)
def test_one_of_two_workers_is_killed_in_the_middle(folder, serial, kept, monkeypatch, where, word):
    killed = kill_after(monkeypatch, kept, 3, word)
    outcome = prepare_sweep("s.yaml", "o").run(**where)
    assert len(killed) == 1
    assert (outcome.found, outcome.ran) == (0, 12)
    assert len(kept) == len(set(kept)) == 12
    assert (folder / "o/sweep.parquet").read_bytes() == serial
    assert {file.name for file in (folder / "o/points").iterdir()} == {f"{digest}.json" for digest in kept}


@pytest.fixture
def marks(tmp_path: Path) -> str:
    (tmp_path / "marks").mkdir()
    return str(tmp_path / "marks")


def calls(marks: str, deaths: int) -> Iterator[tuple[int, str, int]]:
    return ((value, marks, deaths) for value in (3, 1, 2, 4, 5, 6))


def test_work_that_kills_its_process_once(marks):
    assert sorted(Processes(2).each(double, calls(marks, 1))) == [2, 4, 6, 8, 10, 12]
    assert len(os.listdir(marks)) == 1


def test_work_that_always_kills_its_process_is_given_up_when_the_rest_is_done(marks, monkeypatch):
    monkeypatch.setattr(workers, "_DEATHS", 2)
    results, found = Processes(2).each(double, calls(marks, 99), "; points are kept"), []
    with pytest.raises(UserError, match=r"killed 2 times over the same work \(out of memory\?\); points are kept"):
        found += results
    assert set(found) >= {10, 12}
    assert len(os.listdir(marks)) == 3  # once beside others, twice alone


def test_the_same_on_a_cluster(marks, tmp_path, monkeypatch):
    import dask
    import distributed  # noqa: F401 - its defaults must be there before: what is set is taken back whole

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), Cluster("local:2") as cluster:
        assert cluster.slots == 2
        with pytest.raises(UserError, match=r"local:2: 1 workers died over the same work .*; points are kept"):
            list(cluster.each(double, calls(marks, 99), "; points are kept"))
        assert sorted(cluster.each(double, calls(marks, 0))) == [2, 4, 6, 8, 10, 12]
        monkeypatch.setattr("slicesim.cluster.os.getcwd", lambda: str(tmp_path / "gone"))
        with pytest.raises(UserError, match="gone: no such folder on a worker of the cluster"):
            list(cluster.each(double, calls(marks, 0)))
    assert logging.getLogger("distributed.scheduler").level < logging.CRITICAL


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cluster", "local:0"], "--cluster local:0: give tcp://HOST:PORT of a dask scheduler, or local:N"),
        (["--cluster", "localhost:8786"], "give tcp://HOST:PORT of a dask scheduler, or local:N"),
        (["--cluster", "tcp://127.0.0.1:9"], "--cluster tcp://127.0.0.1:9: no scheduler answers there"),
        (["--cluster", "local:2", "--jobs", "2"], "jobs and cluster do not go together"),
    ],
)
def test_a_mistake_is_one_line(slicesim, folder, monkeypatch, words, message):
    monkeypatch.setattr("slicesim.cluster._PATIENCE_S", 1)
    code, out, err = slicesim("sweep", "s.yaml", *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert message in err
    assert not (folder / "results/s/sweep.parquet").exists()


def test_without_the_package_the_line_says_what_to_install(slicesim, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = slicesim("sweep", "s.yaml", "--cluster", "local:2")
    assert code == 2
    assert err == "slicesim: --cluster local:2: needs dask's package distributed: pip install 'slicesim[cluster]'\n"


def test_nothing_is_started_where_nothing_is_missing(folder, serial, monkeypatch):
    monkeypatch.setattr("slicesim.cluster._local_cluster", None)
    assert prepare_sweep("s.yaml", "serial").run(cluster="local:2").ran == 0
