"""``slicesim compare``: all presets, what is left out, the folder, headroom; and ``run --headroom``."""

from __future__ import annotations

import json

import pandas as pd

from slicesim.comparison import prepare
from slicesim.policies import presets

FILES = ["comparison.parquet", "pareto.png", "pareto.svg", "summary.json"]
#: Plain, sliced, constrained, offline, unbounded, of lists, with read-ahead; and one that needs logits.
KINDS = (
    "lru-high", "dbsc", "slicemoe", "belady", "belady-slices", "all-in-dram", "clock", "moe-infinity", "successor",
    "cache-prior",
)  # fmt: skip
NEED_LOGITS = "reroutes, but the trace holds only the top-k"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_preset_runs_or_is_left_out_with_a_reason(here):
    """Checked, not run: to compile all of them takes minutes."""
    prepared = prepare("c.yaml", ["all"])
    ran = {simulation.policy.label for simulation in prepared.simulations}
    assert ran | set(prepared.left_out) == set(presets())
    assert not ran & set(prepared.left_out)
    assert len(ran) > 50
    assert all(prepared.left_out.values())


def test_all(slicesim, here, monkeypatch):
    """Of some presets: one of each kind."""
    monkeypatch.setattr("slicesim.comparison.presets", lambda: {name: presets()[name] for name in KINDS})
    code, out, err = slicesim("compare", "c.yaml", "--policies", "all", "--jobs", 1)
    assert code == 0, err
    assert names(here / "results" / "c-compare") == FILES
    summary = json.loads((here / "results/c-compare/summary.json").read_text())
    ran, left_out = ({row["policy"] for row in summary[part]} for part in ("decode", "left_out"))
    assert ran | left_out == set(KINDS)
    assert not ran & left_out
    assert {"lru-high", "dbsc", "belady", "belady-slices", "slicemoe"} <= ran
    assert "cache-prior" in left_out
    energy = [row["energy_pj"] for row in summary["decode"]]
    assert energy == sorted(energy)
    assert summary["gains_against"] == "lru-high"
    headroom = {row["policy"]: row["headroom"] for row in summary["decode"]}
    assert headroom.pop("all-in-dram") is None  # its cache is larger than the one that the bound is for
    assert all(found >= 1 for found in headroom.values())
    assert summary["trace"]["synthetic"]
    assert "SYNTHETIC trace t.parquet" in out
    assert "* knows the future" in out
    assert len([line for line in out.splitlines() if line.startswith("left out: ")]) == len(left_out)
    assert f"cache-prior {NEED_LOGITS}" in out
    assert out.rstrip().endswith("written: results/c-compare/ (summary.json, comparison.parquet, pareto.png)")
    frame = pd.read_parquet(here / "results/c-compare/comparison.parquet")
    assert frame["policy"].tolist() == [row["policy"] for row in summary["decode"]]


def test_jobs_change_nothing(slicesim, here):
    policies = ("compare", "c.yaml", "--policies", "dbsc,lru-high,lru-slices,slicemoe")
    for jobs in (1, 2):
        code, out, err = slicesim(*policies, "--jobs", jobs, "--out", f"o{jobs}", "--json")
        assert code == 0, err
        assert out == (here / f"o{jobs}" / "summary.json").read_text()
    for name in FILES:
        assert (here / "o1" / name).read_bytes() == (here / "o2" / name).read_bytes(), name
    assert [row["policy"] for row in json.loads(out)["decode"]] == ["dbsc", "lru-high", "lru-slices", "slicemoe"]


def test_a_list_leaves_no_folder_unless_asked(slicesim, here):
    assert slicesim("compare", "c.yaml", "--policies", "dbsc,lru-high").code == 0
    assert not (here / "results").exists()


def test_a_named_policy_must_run(slicesim, here):
    code, _, err = slicesim("compare", "c.yaml", "--policies", "all,cache-prior")
    assert code == 2
    assert NEED_LOGITS in err
    assert not (here / "results").exists()


def test_nothing_to_decode_is_one_line(slicesim, here):
    code, out, err = slicesim("compare", "c.yaml", "--policies", "all", "--set", "trace.max_tokens=3")
    assert (code, out) == (2, "")
    assert err == (
        "slicesim: t.parquet: no decode tokens with trace.split=recorded: nothing to compare; "
        "set trace.split=all-decode, or a fraction that is prompt, such as trace.split=0.5\n"
    )
    assert not (here / "results").exists()


def test_a_mistake_that_no_preset_survives_is_one_line(slicesim, here):
    code, out, err = slicesim("compare", "c.yaml", "--policies", "all", "--set", "model=qwen1.5-moe-a2.7b")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "the model has 60" in err


def test_a_folder_that_holds_something_else(slicesim, here):
    code, _, err = slicesim("compare", "c.yaml", "--policies", "all", "--out", ".")
    assert code == 2
    assert err == "slicesim: .: is where you are working; choose another --out\n"


def test_run_with_headroom(slicesim, here):
    plain = json.loads(slicesim("run", "c.yaml", "--out", "o", "--json").out)
    bounded = json.loads(slicesim("run", "c.yaml", "--out", "o", "--json", "--headroom").out)
    optimum = bounded["decode"].pop("optimum")
    assert bounded == plain
    assert optimum["headroom"] == plain["decode"]["bytes"]["flash_read"] / optimum["flash_read_bytes_bound"] >= 1
    assert "over the least for the same look-ups" in slicesim("run", "c.yaml", "--out", "o", "--headroom").out
