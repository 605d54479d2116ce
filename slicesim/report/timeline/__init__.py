"""The timeline of a run's first tokens: bars on tracks, counters, flows from misses to their use; for Perfetto."""

from slicesim.report.timeline.bars import events
from slicesim.report.timeline.part import Part
from slicesim.report.timeline.trace_events import write_timeline

__all__ = ["Part", "events", "write_timeline"]
