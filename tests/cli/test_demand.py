"""The command line with a recorded load, and the commands that came with it."""

from __future__ import annotations

import json

import pytest

from tests.kit import DATA

DEMAND = """# slicesim demand v1
# model: tiny-moe
# layers: {layers}
# top_k: 2
# read_bytes: 2000
# source: made for the tests
# licence: none
token,flash_read_bytes
0,12000
1,0
"""


@pytest.fixture
def load(here):
    from tests.kit import tiny_model

    text = DEMAND.format(layers=len(tiny_model().moe_layers))
    (here / "x.demand.csv").write_text(text, encoding="utf-8")
    return here


def test_run(slicesim, load):
    output = slicesim("run", "c.yaml", "--trace", "x.demand.csv", "--out", "o")
    assert output.code == 0
    assert "no misses are counted" in output.err
    assert "none (demand" in output.out
    summary = json.loads((load / "o" / "summary.json").read_text())
    assert summary["trace"]["kind"] == "demand"
    assert summary["decode"]["requests"] == {"msb": 0, "lsb": 0}
    assert summary["decode"]["bytes"]["flash_read"] == 12000
    assert sorted(path.name for path in (load / "o").iterdir()) == [
        "overview.png", "overview.svg", "summary.json", "timeline.json", "tokens.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "mark"),
    [
        (("--policy", "dbsc"), "--policy dbsc"),
        (("--set", "cache.capacity_gb=1"), "--set cache.capacity_gb"),
        (("--set", "trace.split=0.5"), "--set trace.split"),
        (("--set", "amat.low_bits=3"), "--set amat.low_bits"),
        (("--set", "policy.warmup.name=empty"), "--set policy.warmup.name"),
        (("--set", "schedule.read_kib=128"), "--set schedule.read_kib"),
    ],
)
def test_options_that_decide_are_refused(slicesim, load, words, mark):
    output = slicesim("run", "c.yaml", "--trace", "x.demand.csv", "--out", "o", *words)
    assert output.code == 2
    assert output.err == (
        f"slicesim: {mark}: x.demand.csv is a demand trace, nothing is decided in its replay; leave the option out\n"
    )
    assert not (load / "o").exists()


def test_options_of_the_device_are_taken(slicesim, load):
    words = ("--set", "device.flash.lanes=2", "--set", "trace.max_tokens=1", "--set", "schedule.overlap=layer")
    output = slicesim("run", "c.yaml", "--trace", "x.demand.csv", "--out", "o", "--json", *words)
    assert output.code == 0
    assert json.loads(output.out)["decode"]["tokens"] == 1


@pytest.mark.parametrize("command", [("compare", "--policies", "dbsc"), ("mrc", "--policies", "dbsc")])
def test_other_commands_need_routing(slicesim, load, command):
    output = slicesim(command[0], "c.yaml", "--trace", "x.demand.csv", *command[1:])
    assert output.code == 2
    assert output.err == (
        "slicesim: x.demand.csv: a demand trace holds bytes, no routing: only slicesim run and sensitivity take it\n"
    )


def test_a_recorded_load_has_no_headroom(slicesim, load):
    code, out, err = slicesim("run", "c.yaml", "--trace", "x.demand.csv", "--out", "o", "--headroom")
    assert (code, out) == (2, "")
    assert err.endswith("slicesim: x.demand.csv is a demand trace, its look-ups are not known: leave --headroom out\n")
    assert not (load / "o").exists()


def test_sensitivity(slicesim, here):
    output = slicesim("sensitivity", "c.yaml", "--out", "s")
    assert output.code == 0
    assert "device.flash.energy_pj_per_bit" in output.out
    assert "SYNTHETIC trace t.parquet" in output.out
    assert "written: s/ (summary.json, tornado.png)" in output.out
    assert sorted(path.name for path in (here / "s").iterdir()) == ["summary.json", "tornado.png", "tornado.svg"]


def test_sensitivity_of_a_recorded_load_as_json(slicesim, load):
    output = slicesim("sensitivity", "c.yaml", "--trace", "x.demand.csv", "--out", "s", "--json")
    assert output.code == 0
    assert output.out == (load / "s" / "summary.json").read_text()
    assert json.loads(output.out)["base"]["tokens_per_s"] > 0


def test_sensitivity_needs_something_to_decode(slicesim, here):
    trace = "t.parquet"
    output = slicesim("sensitivity", "c.yaml", "--trace", trace, "--set", "trace.max_tokens=3", "--out", "s")
    assert output.code == 2
    assert "holds no decode tokens: nothing to compare; set trace.split" in output.err


def test_validate_writes_the_page(slicesim, tmp_path):
    page = tmp_path / "docs" / "v.md"
    output = slicesim("validate", "--out", page)
    assert output.code == 0
    assert output.out.startswith("predicted tokens/s (")
    text = page.read_text(encoding="utf-8")
    assert "| B5 | tokens/s, mean |" in text
    assert "issue 7" in text
    assert "not regenerated here" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere"), "nowhere: no such folder; leave --data out"),
        (("--out", "."), ".: is a folder; give the name of a file with --out"),
        (("--devices", "nowhere"), "nowhere/oneplus-15r.yaml: no such file"),
    ],
)
def test_validate_mistakes(slicesim, here, words, message):
    output = slicesim("validate", *words)
    assert output.code == 2
    assert output.err.startswith(f"slicesim: {message}")
    assert output.err.count("\n") == 1
    assert DATA.is_dir()
