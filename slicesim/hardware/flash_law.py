"""The time of one flash read: latency on a lane, then a shared pipe (semantics, section 5, rule 3; hardware.md 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from slicesim.hardware.thermal import PARTS, Thermal
from slicesim.hardware.units import duration_ps


@dataclass(frozen=True)
class FlashLaw:
    """Lanes behind a bounded command queue, and the pipe that they share.

    A read that starts at s moves over the pipe once its data is ready and the pipe has turned round, and holds its
    lane for what that takes by itself too:

        pipe end = max(end of the read before + gap / n, s + latency) + size / ceiling
        lane end = max(pipe end, s + latency + size / lane rate)

    n is the number of commands in flight: min(lanes, queues x queue depth); a read beyond them waits outside, in
    order, which is the same as waiting for a lane. ``gap / n`` is how long the pipe stands empty between two reads.
    Lanes take times that scatter; if the scatter of each is exponential with mean ``gap``, the first of n is ready
    gap / n after the pipe falls free. It hides in the latency of a read that finds the pipe idle, so one read alone
    takes latency + size / rate whatever n is; only reads in a row pay it.

    For the engines (rule 3) the same is said as: wait ``wait_ps``, hold the pipe for ``pipe_ps``, free the lane at
    max(pipe end, s + wait_ps + lane_ps). All are whole picoseconds.
    """

    latency_ps: int
    lane_bytes_per_s: int
    ceiling_bytes_per_s: int
    gap_ps: int = 0
    lanes: int = 1
    queue_depth: int | None = None
    queues: int = 1
    thermal: Thermal = field(default_factory=Thermal)

    @property
    def in_flight(self) -> int:
        """Reads in service at once."""
        return self.lanes if self.queue_depth is None else min(self.lanes, self.queues * self.queue_depth)

    @property
    def turn_ps(self) -> int:
        """gap / n, rounded up; at most the latency, in which it hides."""
        return min(-(-self.gap_ps // self.in_flight), max(0, self.latency_ps - 1))

    @property
    def wait_ps(self) -> int:
        """From taking a lane to asking for the pipe: the latency without the turn that the pipe's time begins with."""
        return max(1, self.latency_ps - self.turn_ps)

    def pipe_ps(self, size_bytes: int, busy_ps: int = 0) -> int:
        """Time on the shared pipe, turn and bytes, after it has been busy for ``busy_ps`` since the device was cold."""
        share = PARTS if self.thermal.hot_share >= 1 or busy_ps <= 0 else self.thermal.share_parts(busy_ps)
        rate = max(1, self.ceiling_bytes_per_s * share // PARTS)
        return self.turn_ps + duration_ps(size_bytes, rate)

    def lane_ps(self, size_bytes: int) -> int:
        """Time that the lane itself needs after ``wait_ps``: the turn, and the bytes at the lane's rate."""
        return self.turn_ps + duration_ps(size_bytes, self.lane_bytes_per_s)

    def pipe_series_ps(self, sizes_bytes: Iterable[int], busy_ps: int = 0) -> tuple[list[int], int]:
        """Pipe times of reads one after another on a warming device, and the busy time at their end.

        The pipe's busy time is the sum of what it served, in order: no clock is needed, so the table of durations can
        still be worked out before any engine runs.
        """
        times = []
        for size_bytes in sizes_bytes:
            times.append(self.pipe_ps(size_bytes, busy_ps))
            busy_ps += times[-1]
        return times, busy_ps
