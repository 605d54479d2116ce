"""Cut a trace into prefill and decode segments (semantics, section 9: ``trace.split`` and ``trace.max_tokens``)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from slicesim.errors import UserError
from slicesim.trace.order import OrderCheck
from slicesim.trace.table import ABSENT, DECODE, PREFILL, MemoryTrace, Trace, TraceBlock, require_faultless


class Segment(NamedTuple):
    """Consecutive tokens of one request in one phase; ``first_position`` counts tokens from the request's start."""

    block: TraceBlock
    request: int
    phase: int
    first_position: int
    starts_request: bool


def segments(trace: Trace, split: str | float, max_tokens: int | None = None) -> Iterator[Segment]:
    """Yield the segments of a trace in order, checking every block before it is used.

    split: ``recorded``, ``all-decode``, or the fraction of each request that is prompt (at least one token of a
    request is prompt, and at least one is decode where it has two). Raises UserError for faulty rows.
    """
    lengths = trace.request_lengths() if isinstance(split, float) else {}
    left = max_tokens
    request, position = None, 0
    order = OrderCheck()
    for whole in trace.blocks():
        if not (isinstance(trace, MemoryTrace) and trace.is_faultless):
            require_faultless(trace.header, whole, trace.name)
        for index, message in order.faults(whole):
            raise UserError(f"{trace.name}: request {whole.request[index]}, token {whole.token[index]}: {message}")
        block = whole.part(0, len(whole) if left is None else min(left, len(whole)))
        starts = np.flatnonzero(np.diff(block.request, prepend=block.request[:1] - 1))
        for start, stop in pairwise([*starts.tolist(), len(block)]):
            here = int(block.request[start])
            is_new = here != request
            if is_new:
                request, position = here, 0
            part = block.part(start, stop)
            prompt = _prompt_tokens(part, split, position, lengths.get(here, 0))
            for begin, end, phase in ((0, prompt, PREFILL), (prompt, len(part), DECODE)):
                if end > begin:
                    yield Segment(part.part(begin, end), here, phase, position + begin, is_new)
                    is_new = False
            if (part.ids[prompt:] == ABSENT).any():
                raise UserError(
                    f"{trace.name}: request {here}: some prompt tokens have no row for every layer, so they cannot be "
                    "replayed as decode; set trace.split=recorded"
                )
            position += len(part)
        if left is not None:
            left -= len(block)
            if left == 0:
                return


def _prompt_tokens(part: TraceBlock, split: str | float, position: int, length: int) -> int:
    """Return how many of the part's tokens are prompt; they come first."""
    if split == "all-decode":
        return 0
    if isinstance(split, float):
        prompt = min(max(1, round(split * length)), max(1, length - 1))
        return int(np.clip(prompt - position, 0, len(part)))
    return int((part.phase == PREFILL).sum())
