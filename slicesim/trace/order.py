"""The order of tokens: requests whole and one after another, numbers rising by one, the prompt first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from slicesim.trace.table import DECODE, PREFILL, TraceBlock


class OrderCheck:
    """Finds faults of order in blocks that are given one after another."""

    def __init__(self) -> None:
        self._requests: set[int] = set()
        self._last: tuple[int, int, int] | None = None  # request, token, phase

    def faults(self, block: TraceBlock) -> Iterator[tuple[int, str]]:
        """Yield (token index in the block, what is wrong)."""
        if not len(block):
            return
        before = self._last or (int(block.request[0]) - 1, 0, PREFILL)
        request = np.concatenate(([before[0]], block.request))
        token = np.concatenate(([before[1]], block.token))
        phase = np.concatenate(([before[2]], block.phase))
        begins = request[1:] != request[:-1]
        jumps = ~begins & (token[1:] != token[:-1] + 1)
        turns = ~begins & (phase[1:] == PREFILL) & (phase[:-1] == DECODE)
        for index in np.flatnonzero(begins | jumps | turns):
            here = int(request[index + 1])
            if begins[index]:
                if here in self._requests:
                    yield int(index), "this request appears again after another one: keep its tokens together"
                self._requests.add(here)
            if jumps[index]:
                yield int(index), f"token numbers must rise by one, the one before is {token[index]}"
            if turns[index]:
                yield int(index), "prefill after decode: a request's prompt comes first"
        self._last = (int(request[-1]), int(token[-1]), int(phase[-1]))
