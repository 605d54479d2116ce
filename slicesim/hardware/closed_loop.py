"""The flash law run by itself: a batch of reads, and the benchmark of n lanes that each read without a pause."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace

from slicesim.hardware.flash_law import FlashLaw
from slicesim.hardware.units import PS_PER_S


def read_ends_ps(law: FlashLaw, sizes_bytes: Sequence[int]) -> list[int]:
    """End of each read of a batch, in its order, all waiting from time 0 on an idle device (rules 2 and 3).

    Reads reach the pipe in the order in which they started, since each waits the same time. So all is maxima and sums
    over sorted times, and no coefficient that gets better, no read that gets shorter, can end the batch later.
    """
    times = {size: (law.pipe_ps(size), law.lane_ps(size)) for size in set(sizes_bytes)}
    free = [0] * law.in_flight
    pipe_end, ends = 0, []
    for size in sizes_bytes:
        ready = free[0] + law.wait_ps
        pipe_time, lane_time = times[size]
        pipe_end = max(pipe_end, ready) + pipe_time
        ends.append(max(pipe_end, ready + lane_time))
        heapreplace(free, ends[-1])
    return ends


def throughput_bytes_per_s(law: FlashLaw, size_bytes: int, rounds: int = 16) -> float:
    """Steady rate of equal reads: so many rounds of all lanes, after four that are not counted.

    A lane that reads again as soon as its read has ended sees what a lane sees in one long batch.
    """
    n = law.in_flight
    ends = sorted(read_ends_ps(law, [size_bytes] * ((4 + rounds) * n)))
    return rounds * n * size_bytes * PS_PER_S / (ends[-1] - ends[4 * n - 1])
