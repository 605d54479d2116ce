"""Flows: from a slice's last flash read to the operation that waits for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from slicesim.report.timeline.part import IntArray, Part
from slicesim.schedule.workload import NO_OP


class Flows(NamedTuple):
    """Flows of one kind: ``miss`` or ``prefetch``; pipe_ps: the read takes the flash pipe; grant_ps: its use begins."""

    kind: str
    pipe_ps: IntArray
    grant_ps: IntArray


def flows(parts: Sequence[Part]) -> Iterator[Flows]:
    """Yield one flow per missed slice, and one per slice whose prefetch is looked up; both ends are shown."""
    for part in parts:
        yield _misses(part)
    yield from _prefetches(parts)


def _misses(part: Part) -> Flows:
    work, times = part.plan.workload, part.timeline
    read = np.flatnonzero(work.read_op[: part.reads] != NO_OP)
    batch = np.searchsorted(work.batch_read, read, side="right") - 1
    last = _last_of_each(batch, *_slice_of(part, read))
    return Flows("miss", times.read_pipe[read[last]], times.op_grant[work.read_op[read[last]]])


def _prefetches(parts: Sequence[Part]) -> Iterator[Flows]:
    """A claim names its read by a number over the whole run; only those of parts that are shown are known."""
    if not parts:
        return
    number = np.concatenate([part.plan.workload.first_read + np.arange(part.reads) for part in parts])
    pipe = np.concatenate([part.timeline.read_pipe[: part.reads] for part in parts])
    slices = np.concatenate([np.stack(_slice_of(part, np.arange(part.reads))) for part in parts], axis=1)
    for part in parts:
        work = part.plan.workload
        shown = np.isin(work.claim_read, number) & (work.claim_op < part.ops)
        place = np.searchsorted(number, work.claim_read[shown])
        op = work.claim_op[shown].astype(np.int64)
        batch = np.searchsorted(work.batch_op, op, side="right") - 1
        last = _last_of_each(batch, *slices[:, place])
        yield Flows("prefetch", pipe[place[last]], part.timeline.op_grant[op[last]])


def _slice_of(part: Part, read: IntArray) -> tuple[IntArray, IntArray]:
    """Return kind of slice (2 x layer, + 1 for an LSB) and expert of some reads."""
    work = part.plan.workload
    return work.read_kind[read] // work.read_sizes.shape[2], work.read_expert[read].astype(np.int64)


def _last_of_each(*keys: IntArray) -> IntArray:
    """Return the last place of each combination of keys, in rising order."""
    table = np.stack(keys, axis=1)[::-1]
    _, first = np.unique(table, axis=0, return_index=True)
    return np.sort(len(table) - 1 - first)
