"""A strict reader of Chrome trace events: tables that are called as Perfetto's are, or a refusal.

It knows the part of the format that timeline.json uses, and refuses what Perfetto would drop, guess or count as an
error: bars that overlap without nesting, flows that begin or end where no bar is, times finer than a nanosecond.
"""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

TABLES = """
CREATE TABLE thread (utid INTEGER PRIMARY KEY, tid, name);
CREATE TABLE thread_track (id INTEGER PRIMARY KEY, utid);
CREATE TABLE process_counter_track (id INTEGER PRIMARY KEY, name UNIQUE);
CREATE TABLE slice (id INTEGER PRIMARY KEY, ts, dur, category, name, track_id, depth, arg_set_id);
CREATE TABLE counter (id INTEGER PRIMARY KEY, ts, track_id, value);
CREATE TABLE flow (id INTEGER PRIMARY KEY, slice_out, slice_in, arg_set_id);
"""
ROW = {"thread": 3, "thread_track": 2, "process_counter_track": 2, "slice": 8, "counter": 4, "flow": 4}


class RefusedError(ValueError):
    """The file is not what Perfetto would take whole."""


class ChromeTrace:
    """One file in SQLite, with the function extract_arg(arg_set_id, key)."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(":memory:")
        self.database.executescript(TABLES)
        self.database.create_function("extract_arg", 2, self._argument, deterministic=True)
        self.args: list[dict[str, Any]] = []
        content = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        by_phase: dict[str, list[dict[str, Any]]] = {kind: [] for kind in "MXCsf"}
        for event in content["traceEvents"]:
            if event["ph"] not in by_phase or event["pid"] != 1:
                raise RefusedError(f"unknown event: {event}")
            by_phase[event["ph"]].append(event)
        self._name_threads(by_phase["M"])
        self._place_bars(by_phase["X"])
        self._count(by_phase["C"])
        self._tie(by_phase["s"], by_phase["f"])

    def value(self, sql: str) -> float | None:
        """Return the only number of the answer."""
        ((number,),) = self.database.execute(sql).fetchall()
        return number

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the whole answer."""
        return self.database.execute(sql).fetchall()

    def _argument(self, arg_set_id: int | None, key: str) -> Any:
        return None if arg_set_id is None else self.args[arg_set_id].get(key)

    def _arguments(self, known: dict[str, Any]) -> int:
        self.args.append(known)
        return len(self.args) - 1

    def _add(self, table: str, *row: Any) -> None:
        self.database.execute(f"INSERT INTO {table} VALUES ({','.join('?' * ROW[table])})", row)

    def _name_threads(self, events: list[dict[str, Any]]) -> None:
        names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
        if len(set(names.values())) < len(names):
            raise RefusedError("two tracks of one name")
        for thread, name in names.items():
            self._add("thread", thread, thread, name)
            self._add("thread_track", thread, thread)
        self.threads = set(names)

    def _place_bars(self, events: list[dict[str, Any]]) -> None:
        self.open_at: dict[int, list[tuple[int, int, int]]] = {thread: [] for thread in self.threads}
        timed = sorted(((_ns(e["ts"]), -_ns(e["dur"]), e) for e in events), key=lambda row: row[:2])
        stacks: dict[int, list[int]] = {thread: [] for thread in self.threads}
        for number, (start, negative, event) in enumerate(timed):
            thread, end = event["tid"], start - negative
            if thread not in stacks:
                raise RefusedError(f"a bar on a track without a name: {event}")
            stack = stacks[thread]
            while stack and stack[-1] <= start:
                stack.pop()
            if stack and end > stack[-1]:
                raise RefusedError(f"bars overlap: {event}")
            arg_set = self._arguments({f"args.{key}": value for key, value in event.get("args", {}).items()})
            self._add("slice", number, start, -negative, event["cat"], event["name"], thread, len(stack), arg_set)
            stack.append(end)
            self.open_at[thread].append((start, end, number))

    def _count(self, events: list[dict[str, Any]]) -> None:
        tracks: dict[str, int] = {}
        latest: dict[str, int] = {}
        for number, event in enumerate(events):
            ((unit, value),) = event["args"].items()
            name, time = f"{event['name']} {unit}", _ns(event["ts"])
            if time < latest.get(name, 0):
                raise RefusedError(f"a counter goes back in time: {event}")
            latest[name] = time
            if name not in tracks:
                tracks[name] = len(tracks)
                self._add("process_counter_track", tracks[name], name)
            self._add("counter", number, time, tracks[name], float(value))

    def _tie(self, begins: list[dict[str, Any]], ends: list[dict[str, Any]]) -> None:
        first = {event["id"]: event for event in begins}
        last = {event["id"]: event for event in ends}
        if len(first) < len(begins) or len(last) < len(ends) or set(first) != set(last):
            raise RefusedError("a flow does not begin once and end once")
        for number, begin in first.items():
            end = last[number]
            if _ns(end["ts"]) < _ns(begin["ts"]) or end.get("bp") != "e":
                raise RefusedError(f"a flow ends before it begins, or at the next bar: {end}")
            arg_set = self._arguments({"cat": begin["cat"], "name": begin["name"]})
            self._add("flow", number, self._bar_at(begin), self._bar_at(end), arg_set)

    def _bar_at(self, event: dict[str, Any]) -> int:
        """The bar that begins where the flow does."""
        from bisect import bisect_left

        bars, time = self.open_at.get(event["tid"], []), _ns(event["ts"])
        place = bisect_left(bars, (time, -1, -1))
        if place == len(bars) or bars[place][0] != time:
            raise RefusedError(f"a flow binds to no bar: {event}")
        return bars[place][2]


def _ns(microseconds: Decimal | int) -> int:
    time = Decimal(microseconds) * 1000
    if time != int(time) or time < 0:
        raise RefusedError(f"not whole nanoseconds: {microseconds}")
    return int(time)
