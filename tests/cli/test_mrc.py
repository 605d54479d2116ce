"""``slicesim mrc``: what it prints and writes, and what it says to a mistake."""

from __future__ import annotations

import json

import pandas as pd
import pytest


def test_table_notes_and_files(slicesim, here):
    code, out, err = slicesim("mrc", "c.yaml", "--points", 4)
    assert code == 0, err
    assert "Miss-ratio curves of tiny-moe, 8/4 bits: decode" in out
    assert "SYNTHETIC trace t.parquet" in out
    assert "lru-high (one pass): LRU cliff at" in out
    assert "belady (replay): optimal for objects of equal size only" in out
    assert out.rstrip().endswith("written: results/c-mrc/ (summary.json, mrc.parquet, mrc.png)")
    assert {file.name for file in (here / "results/c-mrc").iterdir()} == {
        "summary.json",
        "mrc.parquet",
        "mrc.png",
        "mrc.svg",
    }
    code, _, err = slicesim("mrc", "c.yaml", "--points", 4)  # an earlier result is replaced
    assert code == 0, err


def test_json_is_the_summary(slicesim, here):
    code, out, err = slicesim("mrc", "c.yaml", "--points", 3, "--policies", "lru-high,dbsc", "--json", "--out", "o")
    assert code == 0, err
    summary = json.loads(out)
    assert summary == json.loads((here / "o/summary.json").read_text())
    frame = pd.read_parquet(here / "o/mrc.parquet")
    assert len(frame) == len(summary["points"]) == 2 * 2 * 3
    assert summary["trace"]["synthetic"]
    assert [curve["policy"] for curve in summary["curves"]] == ["lru-high", "dbsc"]


def test_it_agrees_with_a_run(slicesim, here):
    """At the scenario's own size, which is the largest of this grid."""
    size = ("--to", "0.00004032")  # 6 experts
    code, out, err = slicesim("mrc", "c.yaml", "--points", 2, *size, "--policies", "lru-slices,dbsc", "--json")
    assert code == 0, err
    last = {
        (point["policy"], point["phase"]): point
        for point in json.loads(out)["points"]
        if point["capacity_bytes"] == 40320
    }
    for policy in ("lru-slices", "dbsc"):
        code, out, err = slicesim("run", "c.yaml", "--policy", policy, "--json", "--out", policy)
        assert code == 0, err
        for phase in ("prefill", "decode"):
            part, point = json.loads(out)[phase], last[policy, phase]
            assert point["miss_rate_slices"] == pytest.approx(part["miss_rate"]["slices"])
            assert point["flash_bytes_per_token"] == pytest.approx(part["bytes"]["flash_read"] / part["tokens"])


def test_headroom_adds_the_bound(slicesim, here):
    words = ("mrc", "c.yaml", "--policies", "dbsc,lru-high", "--points", 3)
    code, out, err = slicesim(*words, "--headroom")
    assert code == 0, err
    assert "no cache reads less for the look-ups of dbsc" in out
    plain, bounded = (json.loads(slicesim(*words, *more, "--json").out) for more in ((), ("--headroom",)))
    assert [curve["method"] for curve in bounded["curves"]] == ["replay", "one pass", "bound", "bound"]
    assert [point for point in bounded["points"] if point["method"] != "bound"] == plain["points"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policies", "lru-hihg"), "no preset 'lru-hihg' (did you mean 'lru-high'?)"),
        (("--policies", "dbsc,dbsc"), "two of the policies are called 'dbsc': leave one out"),
        (("--policies", ","), "--policies: give at least one policy"),
        (("--from", "0.000001"), "--from: 1e-06 GB hold less than one batch of experts; give at least 1.344e-05"),
        (("--to", "0.000001"), "--to: 1e-06 GB is below the smallest size of 1.344e-05 GB"),
        (("--out", "."), ".: is where you are working; choose another --out"),
        (("--trace", "nothing.parquet"), "no such trace: nothing.parquet"),
    ],
)
def test_mistakes_are_one_line(slicesim, here, words, message):
    code, out, err = slicesim("mrc", "c.yaml", *words)
    lines = [line for line in err.splitlines() if not line.startswith("warning:")]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert message in lines[0]
    assert not (here / "results").exists()


def test_a_policy_of_ones_own_at_two_jobs(slicesim, here):
    (here / "own.py").write_text(
        "from slicesim.policies import Eviction\n"
        "class Mine(Eviction):\n"
        "    def key(self, entry, now):\n"
        "        return entry.count\n"
    )
    code, out, err = slicesim("mrc", "c.yaml", "--policies", "own.py:Mine", "--jobs", 2, "--points", 5)
    assert code == 0, err
    assert "dbsc+Mine" in out
