"""timeline.json: Chrome trace events that add up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from slicesim.report.timeline import write_timeline
from tests.kit import random_trace, run

DEVICE = {"device.flash.latency_us": 0.5, "device.flash.lanes": 3, "device.flash.lane_bandwidth_gbs": 0.6}
CASES = [
    (overlap, lanes, policy)
    for overlap in ("serial", "layer")
    for lanes in ({}, DEVICE)
    for policy in ("dbsc", "lru-high", "slicemoe")
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{'3' if case[1] else '1'}lane-{case[2]}")
def result(request):
    overlap, device, policy = request.param
    trace = random_trace(5, 20, requests=2, prompt=6)
    warmup = {"policy.warmup": {"name": "pcw-topup"}} if policy == "slicemoe" else {}
    return run(trace, policy=policy, **{"schedule.overlap": overlap, **device, **warmup})


def test_bars_of_one_track_never_overlap(result):
    bars = result.events()
    assert {"token", "NPU", "DRAM", "flash pipe", "flash lane 0"} <= set(bars["track"])
    assert (bars["duration_ps"] > 0).all()
    for track, own in bars.groupby("track"):
        own = own.sort_values("start_ps")
        ends = (own["start_ps"] + own["duration_ps"]).to_numpy()
        assert (ends[:-1] <= own["start_ps"].to_numpy()[1:]).all(), track


def test_bars_lie_within_their_token(result):
    bars = result.events()
    tokens = bars[bars["track"] == "token"].set_index("step")
    start = tokens["start_ps"].reindex(bars["step"]).to_numpy()
    end = start + tokens["duration_ps"].reindex(bars["step"]).to_numpy()
    assert (bars["start_ps"].to_numpy() >= start).all()
    assert (bars["start_ps"].to_numpy() + bars["duration_ps"].to_numpy() <= end).all()


def test_token_bars_add_up_to_the_latency(result):
    """The window holds the first prompt and, here, all decode tokens."""
    bars = result.events()
    tokens = bars[bars["track"] == "token"]
    prompt = tokens["step"].str.contains("prefill")
    assert tokens[~prompt]["duration_ps"].sum() == result.decode["latency_ps"]["total"]
    first = result.tokens[result.tokens["phase"] == "prefill"].iloc[0]
    assert tokens[prompt]["duration_ps"].tolist() == [first["latency_ps"]]


def test_busy_time_is_the_bars_of_the_window(result):
    bars = result.events()
    decode = ~bars["step"].str.contains("prefill")
    rows = result.tokens[result.tokens["phase"] == "decode"]
    for track, column in (("flash pipe", "flash_busy_ps"), ("DRAM", "dram_busy_ps")):
        assert bars[decode & (bars["track"] == track)]["duration_ps"].sum() == rows[column].sum(), track


def test_the_file(result, tmp_path):
    path = tmp_path / "timeline.json"
    write_timeline(result.window.parts, result.summary["trace"], path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["otherData"]["synthetic"] is True
    entries = content["traceEvents"]
    about = [e for e in entries if e["ph"] == "M"]
    bars = [e for e in entries if e["ph"] == "X"]
    assert {e["ph"] for e in entries} == {"M", "X", "C", "s", "f"}
    assert next(e for e in about if e["name"] == "process_name")["args"]["name"] == "slicesim (synthetic trace)"
    named = {e["tid"]: e["args"]["name"] for e in about if e["name"] == "thread_name"}
    frame = result.events()
    assert [named[e["tid"]] for e in bars] == frame["track"].tolist()
    assert [e["cat"] for e in bars] == frame["phase"].tolist()
    assert [e["args"]["duration_ps"] for e in bars] == frame["duration_ps"].tolist()
    start, end = frame["start_ps"].to_numpy(), (frame["start_ps"] + frame["duration_ps"]).to_numpy()
    written = np.array([[e["ts"], e["ts"] + e["dur"]] for e in bars])
    assert np.array_equal(np.rint(written * 1000).astype(np.int64).T, (np.stack((start, end)) + 500) // 1000)
    for key in ("request", "token", "layer", "expert", "bytes", "busy_ps", "slice", "cache", "why"):
        known = frame[key].notna()
        assert [e["args"].get(key) for e in bars] == [v if k else None for v, k in zip(frame[key], known, strict=True)]


def test_a_step_is_computing_and_stalls(result):
    """Of each step: its operations' computing time, and what the NPU waited for, by cause, are its latency."""
    bars = result.events()
    spent = bars[bars["track"].isin(["stall: flash", "stall: DRAM"])].groupby("step")["duration_ps"].sum()
    busy = bars[bars["track"] == "NPU"].groupby("step")["busy_ps"].sum()
    tokens = bars[bars["track"] == "token"].set_index("step")["duration_ps"]
    assert (busy.add(spent) == tokens.reindex(busy.index)).all()
    assert len(busy) == len(tokens)


def test_the_window_is_bounded():
    trace = random_trace(5, 20, requests=2, prompt=6)
    few = run(trace, **{"schedule.timeline_tokens": 3}).events()
    tokens = few[few["track"] == "token"]["step"].tolist()
    assert tokens == ["request 0 prefill (6 tokens)", "request 0 token 6", "request 0 token 7", "request 0 token 8"]
    assert set(few["step"]) == set(tokens)


def test_no_window(tmp_path):
    result = run(random_trace(5, 8), **{"schedule.timeline_tokens": 0})
    assert result.events().empty
    write_timeline(result.window.parts, result.summary["trace"], tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"][0]["ph"] == "M"


def test_a_recorded_trace_is_not_called_synthetic(tmp_path):
    result = run(random_trace(5, 4))
    write_timeline(result.window.parts, {**result.summary["trace"], "synthetic": False}, tmp_path / "t.json")
    assert "(synthetic trace)" not in (tmp_path / "t.json").read_text()
