"""The cache's two operations beyond look-up: make room, and hand over to decode."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence

import numpy as np

from slicesim.errors import UserError
from slicesim.policies.base import Keys
from slicesim.policies.eviction import Eviction
from slicesim.policies.slices import IntArray, SliceState
from slicesim.policies.warmup import Warmup

Score = Callable[[IntArray], Keys]


def evict_until_it_fits(state: SliceState, protected: Sequence[int], score: Score) -> None:
    """Evict by rising score, equal ones by last use, then entry, until every cache's bytes fit.

    Slices in ``protected`` are not touched: a batch that alone exceeds the cache stays, the caller reports it.
    """
    if state.used_bytes.max() <= state.capacity_bytes:
        return
    free = state.resident.copy()
    free[protected] = False
    for group in np.flatnonzero(state.used_bytes > state.capacity_bytes):
        candidates = np.flatnonzero(free & (state.group == group) if len(state.used_bytes) > 1 else free)
        for entry in candidates[_order(state, candidates, score)].tolist():
            if state.used_bytes[group] <= state.capacity_bytes:
                break
            if state.resident[entry]:  # an LSB may have left with its MSB
                state.evict(entry)


def _order(state: SliceState, candidates: IntArray, score: Score) -> IntArray:
    keys = (*score(candidates), state.last_use[candidates])
    # lexsort is stable and candidates rise, so the entry number is the last key of all
    return np.lexsort(keys[::-1])


def eviction_score(state: SliceState, eviction: Eviction) -> Score:
    """Bind an eviction strategy to the state."""
    return guarded(eviction, lambda entries: eviction.score(state, entries))


def streaming_score(state: SliceState, warmup: Warmup, eviction: Eviction, layer: int) -> Score:
    """Order of leaving when prefill is done with ``layer``: the warm-up's own, layers not yet processed after it."""
    own = guarded(warmup, lambda entries: warmup.score(state, entries, eviction))
    return lambda entries: (state.layer[entries] > layer, *own(entries))


def guarded(strategy: object, score: Score) -> Score:
    """Check what a strategy returns, and turn a failure of the user's code into one line."""
    name = f"{type(strategy).__name__}.score"

    def checked(entries: IntArray) -> Keys:
        entries.setflags(write=False)
        try:
            keys = score(entries)
        except (Exception, SystemExit) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename}:{frame.lineno}"
            raise UserError(f"{name} failed at {place}: {type(error).__name__}: {error}") from None
        keys = keys if isinstance(keys, tuple) else (keys,)
        if not all(_orders(key, entries) for key in keys):
            raise UserError(f"{name} must return arrays of numbers as long as the entries, without NaN")
        return keys

    return checked


def _orders(key: object, entries: IntArray) -> bool:
    if not isinstance(key, np.ndarray) or key.shape != entries.shape or key.dtype.kind not in "biuf":
        return False
    return key.dtype.kind != "f" or not np.isnan(key).any()


def hand_over(state: SliceState, warmup: Warmup) -> IntArray:
    """Carry out the warm-up's hand-over; return the slices that it reads from flash."""
    keep, read, recency = warmup.hand_over(state)
    leave = state.resident.copy()
    leave[keep] = False
    for entry in np.flatnonzero(leave).tolist():
        if state.resident[entry]:
            state.evict(entry)
    for entry in read.tolist():
        state.insert(entry)
    if recency is not None:
        state.last_use[recency] = state.stamp + 1 + np.arange(len(recency))
        state.stamp += len(recency)
    return read
