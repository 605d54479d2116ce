"""What offline strategies know: every slice's next request, and its requests in the whole trace.

The recorded requests alone count (stock routing, no denials). A next use is a batch number: one batch per layer and
decode token, one per layer and prompt. The next use of an LSB is its expert's next critical request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from slicesim.compiled import jit
from slicesim.policies.slices import NEVER, IntArray, SliceState


class Future(NamedTuple):
    """Requested entries batch by batch (from ``offsets``), each with the batch of its next request.

    batch: one number, the batch in hand.
    """

    entries: IntArray
    next_batch: IntArray
    offsets: IntArray
    batch: IntArray

    @classmethod
    def of(cls, batches: Iterable[tuple[IntArray, IntArray]], state: SliceState) -> Future:
        """Index the requested entries of all batches; fills ``state.total_count``.

        batches: (entries, how many of them each batch requests) of consecutive batches, in order.
        """
        parts = [*batches, (np.zeros(0, dtype=np.int64),) * 2]
        entries, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
        number = np.repeat(np.arange(len(lengths)), lengths)
        order = np.argsort(entries, kind="stable")  # batch numbers rise within an entry
        following = np.full(len(entries), NEVER, dtype=np.int64)
        same = entries[order][1:] == entries[order][:-1]
        following[order[:-1][same]] = number[order[1:][same]]
        state.total_count[:] = np.bincount(entries, minlength=len(state.slices))
        return cls(entries, following, np.concatenate(([0], np.cumsum(lengths))), np.zeros(1, dtype=np.int64))


@jit
def advance(future, slices):
    """Enter the next uses of the batch in hand, and go to the following batch. slices: SLICE records."""
    number = future.batch[0]
    for index in range(future.offsets[number], future.offsets[number + 1]):
        slices[future.entries[index]].next_use = future.next_batch[index]
    future.batch[0] = number + 1
