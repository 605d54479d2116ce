"""What run, compare, schema and trace print and leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from slicesim.compiled import COMPILING
from tests.kit import DATA, ROOT

FILES = ["overview.png", "overview.svg", "residency.parquet", "summary.json", "timeline.json", "tokens.parquet"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_run(slicesim, here):
    output = slicesim("run", "c.yaml", "--out", "a/b")
    assert output.code == 0
    assert names(here / "a" / "b") == FILES
    assert names(here / "a") == ["b"]
    assert "SYNTHETIC trace t.parquet" in output.out
    assert "written: a/b/" in output.out
    assert len(pd.read_parquet(here / "a" / "b" / "tokens.parquet")) == 2 + 36


def test_run_names_the_folder_after_the_config(slicesim, here):
    assert slicesim("run", "c.yaml").code == 0
    assert names(here / "results" / "c") == FILES


def test_json_is_the_summary_and_nothing_else(slicesim, here):
    output = slicesim(
        "run", "c.yaml", "--out", "o", "--json", "--policy", "lru-high", "--set", "cache.capacity_gb=2e-5"
    )
    assert output.code == 0
    assert output.out == (here / "o" / "summary.json").read_text()
    assert json.loads(output.out)["policy"] == "lru-high"
    assert output.err.startswith("warning: LRU cliff")


def test_same_run_same_bytes(slicesim, here):
    for out in ("o", "p"):
        assert slicesim("run", "c.yaml", "--out", out).code == 0
    for name in FILES:
        assert (here / "o" / name).read_bytes() == (here / "p" / name).read_bytes(), name


def test_an_earlier_result_is_replaced(slicesim, here):
    (here / "o").mkdir()
    (here / "o" / "summary.json").write_text("old")
    (here / "o" / "sketch.png").write_text("old")
    assert slicesim("run", "c.yaml", "--out", "o", "--set", "seed=5").code == 0
    assert names(here / "o") == FILES
    assert json.loads((here / "o" / "summary.json").read_text())["scenario"]["seed"] == 5
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


def test_out_may_be_a_link(slicesim, here):
    (here / "real").mkdir()
    (here / "link").symlink_to("real")
    assert slicesim("run", "c.yaml", "--out", "link").code == 0
    assert (here / "link").is_symlink()
    assert names(here / "real") == FILES
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


def test_set_keeps_the_unit_and_becomes_the_source(slicesim, here):
    output = slicesim("run", "c.yaml", "--out", "o", "--json", "--set", "device.flash.lanes=2")
    lanes = json.loads(output.out)["scenario"]["device"]["flash"]["lanes"]
    assert lanes == {"value": 2.0, "source": "--set device.flash.lanes"}


def test_last_set_counts(slicesim, here):
    output = slicesim("run", "c.yaml", "--out", "o", "--json", "--set", "seed=1", "--set", "seed=2")
    assert json.loads(output.out)["scenario"]["seed"] == 2


def test_paths_in_a_file_are_relative_to_it(slicesim, here, monkeypatch):
    (here / "sub").mkdir()
    (here / "sub" / "x.yaml").write_text("extends: ../c.yaml\nmodel: m.yaml\n")
    (here / "sub" / "m.yaml").write_text((DATA / "tiny-moe.yaml").read_text())
    monkeypatch.chdir(here / "sub")
    assert slicesim("run", "x.yaml", "--out", "o").code == 0
    monkeypatch.chdir("/")
    assert slicesim("run", here / "sub" / "x.yaml", "--out", here / "p").code == 0


def test_model_by_path(slicesim, here):
    (here / "m.yaml").write_text((DATA / "tiny-moe.yaml").read_text())
    assert slicesim("run", "c.yaml", "--out", "o", "--model", "m.yaml").code == 0


def test_no_decode_tokens_is_said(slicesim, here):
    output = slicesim("run", "c.yaml", "--out", "o", "--set", "trace.max_tokens=3")
    assert output.code == 0
    assert "warning: no decode tokens in this trace as it is split: set trace.split to all-decode" in output.err


def test_compare(slicesim, here):
    words = ("compare", "c.yaml", "--policies", "lru-high, dbsc,belady")
    table, data = slicesim(*words), slicesim(*words, "--json")
    assert table.code == data.code == 0
    assert [row["policy"] for row in json.loads(data.out)["decode"]] == ["lru-high", "dbsc", "belady"]
    for policy in ("lru-high", "dbsc", "belady", "SYNTHETIC trace t.parquet"):
        assert policy in table.out
    assert names(here) == ["c.yaml", "l.parquet", "t.parquet"]


def test_schema(slicesim):
    assert json.loads(slicesim("schema").out)["title"] == "slicesim scenario"


def test_trace_info_and_validate(slicesim, here):
    assert json.loads(slicesim("trace", "info", "t.parquet", "--json").out)["name"] == "t.parquet"
    assert "SYNTHETIC trace t.parquet" in slicesim("trace", "info", "t.parquet").out
    assert slicesim("trace", "validate", "t.parquet").out == "t.parquet: valid\n"


def test_synth_then_validate(slicesim, here):
    profile = ROOT / "traces" / "deepseek-v2-lite-twin.yaml"
    assert "SYNTHETIC" in slicesim("trace", "synth", profile, "-o", "s.parquet", "--tokens", "8").out
    assert slicesim("trace", "validate", "s.parquet").code == 0


def test_version_and_help(slicesim):
    assert slicesim("--version").out.startswith("slicesim ")
    assert "compare" in slicesim("--help").out


# ---- Ctrl-C

#: Strategies that press Ctrl-C themselves: no clock decides when.
PRESS = """
import os, signal
from slicesim.policies import Eviction

class Stop(Eviction):
    def score(self, state, entries):
        os.kill(os.getpid(), signal.SIGINT)
        return ()

class Swallow(Eviction):
    def score(self, state, entries):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            pass
        return ()
"""


@pytest.mark.parametrize("strategy", ["Stop", "Swallow"])
def test_interrupt_while_replaying(slicesim, here, strategy):
    (here / "press.py").write_text(PRESS)
    before = names(here)
    for command in (
        ("run", "c.yaml", "--out", "o", "--policy", f"press.py:{strategy}"),
        ("compare", "c.yaml", "--policies", f"lru-high,press.py:{strategy}"),
    ):
        assert slicesim(*command) == (130, "", "slicesim: interrupted\n")
    assert [name for name in names(here) if name != "__pycache__"] == before


def test_interrupt_while_loading(slicesim, here, monkeypatch):
    """Modules that are just being imported may make another error of the interruption."""

    def load(*_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            raise AttributeError("partially initialized module") from None

    monkeypatch.setattr("slicesim.simulation.load_trace", load)
    assert slicesim("run", "c.yaml", "--out", "o") == (130, "", "slicesim: interrupted\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_while_saving_keeps_the_earlier_result(slicesim, here, monkeypatch, number, code):
    (here / "o").mkdir()
    (here / "o" / "summary.json").write_text("old")
    before = sorted(here.rglob("*"))
    monkeypatch.setattr("slicesim.report.plots.overview", lambda *_: os.kill(os.getpid(), number))
    output = slicesim("run", "c.yaml", "--out", "o")
    assert (output.code, output.out) == (code, "")
    assert output.err == "slicesim: interrupted\n"
    assert sorted(here.rglob("*")) == before
    assert (here / "o" / "summary.json").read_text() == "old"


# ---- in a shell


def shell(*words, **more):
    command = [sys.executable, "-m", "slicesim", *map(str, words)]
    return subprocess.run(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, **more)


def test_a_closed_pipe_is_no_crash(here):
    reader, writer = os.pipe()
    os.close(reader)
    end = shell("schema", stdout=writer)
    os.close(writer)
    assert end.stderr == b""


def test_interrupt_in_a_shell(here):
    (here / "press.py").write_text(PRESS)
    end = shell("run", "c.yaml", "--out", "o", "--policy", "press.py:Stop", stdout=subprocess.PIPE)
    said = end.stderr.replace(COMPILING.encode(), b"")
    assert (end.returncode, end.stdout, said) == (130, b"", b"slicesim: interrupted\n")
    assert not (here / "o").exists()


def test_import_and_help_load_no_heavy_library():
    code = (
        "import sys, slicesim, slicesim.cli\n"
        "heavy = {'torch', 'matplotlib', 'pandas', 'pyarrow', 'numpy', 'scipy', 'pydantic', 'simpy', 'numba'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    end = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, cwd=ROOT)
    assert end.returncode == 0, end.stderr
