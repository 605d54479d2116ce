"""timeline.json: Chrome trace events, which Perfetto opens.

Perfetto counts whole nanoseconds. So both ends of a bar are rounded to them, which keeps bars apart that do not meet;
the exact duration stands in the bar's arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slicesim.report.label import flags, kind, label_of
from slicesim.report.timeline.bars import FLASH_PIPE, NPU, ORDER, Bars, bars_of
from slicesim.report.timeline.counters import Counter, counters
from slicesim.report.timeline.flows import Flows, flows
from slicesim.report.timeline.part import IntArray, Part

PROCESS = 1
PS_PER_NS = 1000
NS_PER_US = 1000


def write_timeline(parts: Sequence[Part], trace: Mapping[str, Any], path: Path) -> None:
    """Write bars, counters and flows of all parts. ``trace`` is the summary's part of that name."""
    bars = [(part.phase, own) for part in parts for own in bars_of(part)]
    tracks = {track: number for number, track in enumerate(sorted({own.track for _, own in bars}, key=_track_order), 1)}
    name = f"slicesim ({kind(trace)})" if label_of(trace) else "slicesim"
    with path.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ns","otherData":')
        file.write(json.dumps({"trace": trace["path"], **flags(trace)}))
        file.write(',"traceEvents":[\n')
        file.write(",\n".join(_about(name, tracks)))
        for phase, own in bars:
            file.writelines(_bar_lines(own, phase, tracks[own.track]))
        for counter in counters(parts):
            file.writelines(_counter_lines(counter))
        number = 0
        for group in flows(parts):
            file.writelines(_flow_lines(group, tracks, number))
            number += len(group.pipe_ps)
        file.write("\n]}\n")


def _about(name: str, tracks: Mapping[str, int]) -> Iterator[str]:
    """Name the process and its tracks, in order."""
    yield _name("process_name", 0, name=name)
    for track, number in tracks.items():
        yield _name("thread_name", number, name=track)
        yield _name("thread_sort_index", number, sort_index=number)


def _name(what: str, thread: int, **arguments: str | int) -> str:
    return json.dumps({"ph": "M", "pid": PROCESS, "tid": thread, "name": what, "args": arguments})


def _track_order(track: str) -> tuple[int, int]:
    """Flash lanes come last, by number."""
    return (ORDER.index(track), 0) if track in ORDER else (len(ORDER), int(track.split()[-1]))


def _nanoseconds(time_ps: IntArray) -> IntArray:
    return (time_ps + PS_PER_NS // 2) // PS_PER_NS


def _microseconds(time_ns: IntArray) -> tuple[list[int], list[int]]:
    """Return whole microseconds, as the format counts, and nanoseconds behind the point."""
    return (time_ns // NS_PER_US).tolist(), (time_ns % NS_PER_US).tolist()


def _bar_lines(bars: Bars, phase: str, thread: int) -> Iterator[str]:
    """Names and texts are our own and hold nothing that JSON would escape."""
    start = _nanoseconds(bars.start_ps)
    length = _nanoseconds(bars.start_ps + bars.duration_ps) - start
    more = "".join(
        f',"{key}":%d' if values and isinstance(values[0], int) else f',"{key}":"%s"'
        for key, values in bars.args.items()
    )
    line = (
        f',\n{{"ph":"X","pid":{PROCESS},"tid":{thread},"cat":"{phase}","name":"%s","ts":%d.%03d,"dur":%d.%03d,'
        f'"args":{{"duration_ps":%d{more}}}}}'
    )
    columns = (*_microseconds(start), *_microseconds(length), bars.duration_ps.tolist(), *bars.args.values())
    return (line % row for row in zip(bars.name, *columns, strict=True))


def _counter_lines(counter: Counter) -> Iterator[str]:
    line = f',\n{{"ph":"C","pid":{PROCESS},"name":"{counter.name}","ts":%d.%03d,"args":{{"{counter.unit}":%s}}}}'
    values = [f"{value:.15g}" for value in counter.value.tolist()]
    return (line % row for row in zip(*_microseconds(_nanoseconds(counter.time_ps)), values, strict=True))


def _flow_lines(group: Flows, tracks: Mapping[str, int], first: int) -> Iterator[str]:
    """Begin and end of each flow; they bind to the bars that begin at these times."""
    head = f'"pid":{PROCESS},"cat":"{group.kind}","name":"{group.kind}"'
    ends = (*_microseconds(_nanoseconds(group.pipe_ps)), *_microseconds(_nanoseconds(group.grant_ps)))
    for number, (us, ns, later_us, later_ns) in enumerate(zip(*ends, strict=True), first):
        yield f',\n{{"ph":"s",{head},"tid":{tracks[FLASH_PIPE]},"id":{number},"ts":{us}.{ns:03d}}}'
        yield f',\n{{"ph":"f","bp":"e",{head},"tid":{tracks[NPU]},"id":{number},"ts":{later_us}.{later_ns:03d}}}'
