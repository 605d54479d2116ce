"""A read benchmark on the flash law: n lanes, each issuing its next read when the one before has ended."""

from __future__ import annotations

from heapq import heapify, heapreplace

from slicesim.hardware.flash_law import FlashLaw
from slicesim.hardware.units import PS_PER_S


def read_ends_ps(law: FlashLaw, size_bytes: int, reads: int) -> list[int]:
    """End of each of so many equal reads, in order of start, all waiting from time 0 (rules 2 and 3 by hand).

    Reads reach the pipe in the order in which they started, since each waits the same time.
    """
    wait, pipe_time, lane_time = law.wait_ps, law.pipe_ps(size_bytes), law.lane_ps(size_bytes)
    free = [0] * law.in_flight
    heapify(free)
    pipe_end, ends = 0, []
    for _ in range(reads):
        start = free[0]
        pipe_end = max(pipe_end, start + wait) + pipe_time
        end = max(pipe_end, start + wait + lane_time)
        heapreplace(free, end)
        ends.append(end)
    return ends


def throughput_bytes_per_s(law: FlashLaw, size_bytes: int, rounds: int = 16) -> float:
    """Steady rate of the benchmark: so many rounds of all lanes, after four that are not counted."""
    n = law.in_flight
    ends = sorted(read_ends_ps(law, size_bytes, (4 + rounds) * n))
    return rounds * n * size_bytes * PS_PER_S / (ends[-1] - ends[4 * n - 1])
