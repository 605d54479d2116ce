"""A flash device that warms up: the level of heat of each step is part of the kind of its reads.

So durations stay a table that both engines are given, and neither knows of heat (semantics, section 5, rule 1).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from slicesim.schedule.workload import Workload


class Heat:
    """Adds up the time for which the pipe has been busy since the run began; it never cools."""

    def __init__(self, starts_ps: tuple[int, ...]) -> None:
        self.starts_ps = starts_ps
        self.busy_ps = 0

    def __call__(self, workload: Workload, pipe_ps: NDArray[np.int64]) -> Workload:
        """Give each step's reads the level at which the step begins. pipe_ps: [levels x kinds of reads]."""
        if len(self.starts_ps) == 1:
            return workload
        by_level = pipe_ps.reshape(len(self.starts_ps), -1)
        kinds = by_level.shape[1]
        bounds = workload.step_read().tolist()
        levels = np.empty(workload.steps, dtype=workload.read_kind.dtype)
        for step in range(workload.steps):
            levels[step] = level = bisect_right(self.starts_ps, self.busy_ps) - 1
            self.busy_ps += int(by_level[level, workload.read_kind[bounds[step] : bounds[step + 1]]].sum())
        return replace(
            workload,
            read_kind=workload.read_kind + kinds * np.repeat(levels, np.diff(bounds)),
            read_sizes=np.tile(workload.read_sizes, (len(self.starts_ps), 1, 1)),
            moe_layers=np.tile(workload.moe_layers, len(self.starts_ps)),
        )
