"""Two results explained: keys, sources, figures, and what is not like for like."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from slicesim.cli import app
from slicesim.report.diff import Diff
from slicesim.report.saved import read_summary
from tests.report.conftest import altered


def keys(diff, what):
    return [one.key for one in diff.differences if one.what == what]


def between(folder, target, change):
    return Diff.of(read_summary(folder), read_summary(altered(folder, target, change)))


def test_equal_results_say_so(two_results):
    own = read_summary(two_results[0])
    found = Diff.of(own, own)
    assert found.describe() == {
        "equal": True,
        "like_for_like": True,
        "notes": ["equal: the same scenario, trace and figures"],
        "differences": [],
    }


def test_value_source_and_ratio(two_results, tmp_path):
    def change(summary):
        summary["scenario"]["cache"]["capacity_gb"] *= 2
        summary["scenario"]["device"]["flash"]["bandwidth_gbs"]["source"] = "measured"
        summary["decode"]["tokens_per_s"] *= 2

    found = between(two_results[0], tmp_path / "o", change)
    capacity, bandwidth, speed = found.differences
    assert (capacity.key, capacity.second / capacity.first) == ("cache.capacity_gb", 2)
    assert (bandwidth.key, bandwidth.first, bandwidth.second_source) == (
        "device.flash.bandwidth_gbs", bandwidth.second, "measured",
    )  # fmt: skip
    assert (speed.key, speed.ratio, speed.absolute) == ("decode.tokens_per_s", 2.0, speed.first)
    assert found.notes == ()


def test_leading_figures_come_first_then_what_changed_most(two_results, tmp_path):
    def change(summary):
        decode = summary["decode"]
        decode["bytes"]["dram_read"] *= 4
        decode["bytes"]["dram_write"] = 0
        decode["average_power_w"] /= 8
        decode["time_ps"]["npu"] = None
        decode["latency_ps"]["mean"] += 1
        decode["tokens_per_s"] *= 1.01

    assert keys(between(two_results[0], tmp_path / "o", change), "figure") == [
        "decode.tokens_per_s", "decode.latency_ps.mean", "decode.bytes.dram_write", "decode.average_power_w",
        "decode.bytes.dram_read", "decode.time_ps.npu",
    ]  # fmt: skip


def test_other_traces_are_not_like_for_like(two_results, tmp_path):
    def change(summary):
        summary["trace"]["sha256"] = "0" * 64

    found = between(two_results[0], tmp_path / "o", change)
    assert not found.is_like_for_like
    assert found.notes == ("the traces differ: the figures are not like for like", "all figures are equal")


def test_figures_that_differ_for_no_reason_are_said(two_results, tmp_path):
    def change(summary):
        summary["decode"]["tokens_per_s"] += 1

    (note,) = between(two_results[0], tmp_path / "o", change).notes
    assert note.startswith("nothing was set differently, but the figures differ")


def test_the_command(two_results):
    first, second = map(str, two_results)
    table = CliRunner().invoke(app, ["diff", first, second])
    assert table.exit_code == 0
    assert "decode.tokens_per_s" in table.output
    assert "--all shows them" in table.output
    every = CliRunner().invoke(app, ["diff", first, second, "--all"])
    assert len(every.output.splitlines()) > len(table.output.splitlines())
    described = json.loads(CliRunner().invoke(app, ["diff", first, second, "--json"]).output)
    assert not described["equal"]
    assert {"what": "scenario", "key": "policy.preset", "first": "slicemoe", "second": "lru-high"} in described[
        "differences"
    ]
    same = CliRunner().invoke(app, ["diff", first, first])
    assert same.output == "equal: the same scenario, trace and figures\n"
