"""What offline strategies know: every slice's next request, and its requests in the whole trace.

The recorded requests alone count (stock routing, no denials). A next use is a batch number: one batch per layer and
decode token, one per layer and prompt. The next use of an LSB is its expert's next critical request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from slicesim.policies.slices import NEVER, IntArray, SliceState


@dataclass
class Future:
    """Requested entries batch by batch, each with the batch of its next request."""

    entries: IntArray
    next_batch: IntArray
    offsets: IntArray
    batch: int = 0

    @classmethod
    def of(cls, batches: Iterable[IntArray], state: SliceState) -> Future:
        """Index the requested entries of all batches, in order; fills ``state.total_count``."""
        requested = list(batches)
        lengths = np.array([len(batch) for batch in requested], dtype=np.int64)
        entries = np.concatenate([*requested, np.zeros(0, dtype=np.int64)])
        number = np.repeat(np.arange(len(requested)), lengths)
        order = np.lexsort((number, entries))
        following = np.full(len(entries), NEVER, dtype=np.int64)
        same = entries[order][1:] == entries[order][:-1]
        following[order[:-1][same]] = number[order[1:][same]]
        state.total_count = np.bincount(entries, minlength=len(state.kind)).astype(np.int64)
        return cls(entries, following, np.concatenate(([0], np.cumsum(lengths))))

    def advance(self, state: SliceState) -> None:
        """Enter the next uses of the batch in hand, and go to the following batch."""
        span = slice(self.offsets[self.batch], self.offsets[self.batch + 1])
        state.next_use[self.entries[span]] = self.next_batch[span]
        self.batch += 1
