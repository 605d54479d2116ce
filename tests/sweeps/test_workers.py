"""Workers that are killed, here and on a cluster: nothing is lost, nothing is kept twice, the table is the same."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import slicesim as api
from slicesim.cluster import Cluster
from slicesim.errors import UserError
from slicesim.sweeps import prepare_sweep
from slicesim.sweeps.store import Store
from slicesim.workers import Processes

#: The reference engine takes its time: whoever is killed is at work.
SWEEP = """\
scenario: c.yaml
policies: [dbsc]
set: {schedule.engine: reference}
search:
  method: random
  points: 24
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
                if word in " ".join(child.cmdline()) and "tracker" not in " ".join(child.cmdline())
            )  # fmt: skip
            killed.append(worker.pid)
            worker.kill()

    monkeypatch.setattr(Store, "put", put_and_kill)
    return killed


@pytest.mark.parametrize(
    ("where", "word"), [({"jobs": 2}, "loky"), ({"cluster": "local:2"}, "multiprocessing.spawn")], ids=["jobs", "dask"]
)
def test_one_of_two_workers_is_killed_in_the_middle(folder, serial, kept, monkeypatch, where, word):
    killed = kill_after(monkeypatch, kept, 5, word)
    outcome = prepare_sweep("s.yaml", "o").run(**where)
    assert len(killed) == 1
    assert (outcome.found, outcome.ran) == (0, 24)
    assert len(kept) == len(set(kept)) == 24
    assert (folder / "o/sweep.parquet").read_bytes() == serial
    assert {file.name for file in (folder / "o/points").iterdir()} == {f"{digest}.json" for digest in kept}


@pytest.mark.parametrize("jobs", [2, 5])
def test_the_same_table_for_any_number_of_jobs(folder, serial, jobs):
    api.sweep("s.yaml", out="o", jobs=jobs)
    assert (folder / "o/sweep.parquet").read_bytes() == serial


def double(value: int, marks: str, deaths: int) -> int:
    """Die so many times over the value 3, else return twice the value."""
    mark = Path(marks) / str(len(list(Path(marks).iterdir())))
    if value == 3 and int(mark.name) < deaths:
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * value


@pytest.fixture
def marks(tmp_path: Path) -> str:
    (tmp_path / "marks").mkdir()
    return str(tmp_path / "marks")


def test_work_that_kills_its_process_now_and_then(marks):
    found = Processes(2).each(double, ((value, marks, 2) for value in range(9)))
    assert sorted(found) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert len(os.listdir(marks)) == 2


def test_work_that_always_kills_its_process_is_given_up_when_the_rest_is_done(marks):
    found = []
    with pytest.raises(UserError, match=r"killed 3 times over the same work \(out of memory\?\); points are kept"):
        for result in Processes(2).each(
            double, ((value, marks, 99) for value in (3, 1, 2, 4, 5, 6)), "; points are kept"
        ):
            found.append(result)
    assert set(found) >= {8, 10, 12}
    assert len(os.listdir(marks)) == 4  # once beside others, three times alone


def test_the_same_on_a_cluster(marks, monkeypatch):
    import dask

    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), Cluster("local:2") as cluster:
        assert cluster.slots == 2
        levels = logging.getLogger("distributed.scheduler").level
        with pytest.raises(
            UserError, match=r"--cluster local:2: 2 workers died over the same work .*; points are kept"
        ):
            list(cluster.each(double, ((value, marks, 99) for value in (3, 1, 2)), "; points are kept"))
        assert sorted(cluster.each(double, ((value, marks, 0) for value in range(4)))) == [0, 2, 4, 6]
        with pytest.raises(UserError, match="no such folder on a worker"):
            gone = Path(marks) / "gone"
            gone.mkdir()
            monkeypatch.chdir(gone)
            gone.rmdir()
            monkeypatch.setattr("os.getcwd", lambda: str(gone))
            list(cluster.each(double, [(1, marks, 0)]))
    assert logging.getLogger("distributed.scheduler").level <= levels


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


def test_a_script_without_a_guard_is_told_so(folder):
    (folder / "script.py").write_text('import slicesim\nslicesim.sweep("s.yaml", cluster="local:1")\n')
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("call slicesim.sweep under if __name__ == '__main__':")
