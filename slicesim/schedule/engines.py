"""The two engines by name: the fast one, and the reference that it must equal to the picosecond."""

from __future__ import annotations

from typing import Protocol

from slicesim.schedule.plan import Plan
from slicesim.schedule.timeline import Timeline


class Engine(Protocol):
    """Puts plans on one clock, one after another."""

    def run(self, plan: Plan) -> Timeline:
        """Run a plan's steps to their end; the clock goes on from the plan before."""

    def finish(self) -> None:
        """Let prefetches that nobody waits for come to their end, when the last plan has been run."""


def engine(name: str, overlap: str) -> Engine:
    """Make an engine. name: ``fast`` or ``reference``; overlap: ``serial``, ``layer`` or ``prefetch``."""
    if name == "reference":
        from slicesim.schedule.reference import ReferenceEngine  # loads SimPy, which only this engine needs

        return ReferenceEngine(overlap)
    from slicesim.schedule.events import EventEngine
    from slicesim.schedule.fast import FastEngine

    return EventEngine() if overlap == "prefetch" else FastEngine(overlap)
