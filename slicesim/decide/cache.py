"""The cache's moves, compiled: insert, look up, drop; and what is done to many slices at once outside decode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from slicesim.compiled import inlined, jit, overload
from slicesim.decide.faults import faults_of
from slicesim.errors import UserError
from slicesim.policies.base import Keys, Strategy
from slicesim.policies.eviction import Eviction
from slicesim.policies.slices import MSB, TOKEN, IntArray, SliceState
from slicesim.policies.warmup import Warmup

Score = Callable[[IntArray], Keys]

# Compiled functions take records: ``slices`` and ``caches`` of SliceState, and its ``clock``.


@inlined
def insert(slices, caches, clock, entry):
    """Make a slice resident."""
    slices[entry].resident = True
    slices[entry].inserted = clock[0]
    slices[entry].count_since_insert = 0
    caches[slices[entry].group].used_bytes += slices[entry].size_bytes


@inlined
def look_up(slices, entry, fetched, stamp):
    """Stamp a slice, and make it resident; return the bytes that this adds to its cache.

    Without a branch: hits and misses come at random.
    """
    record = slices[entry]
    record.resident = True
    record.ahead = False
    record.last_use = stamp
    return record.size_bytes if fetched else 0


def remember(self, entry, fetched, now, gate):
    """Let the strategy note what it wants to know of a look-up."""


@overload(remember)
def _remember(self, entry, fetched, now, gate):
    own = getattr(getattr(self, "instance_class", None), "compiled_remember", None)
    if own is None:
        return lambda self, entry, fetched, now, gate: None
    return lambda self, entry, fetched, now, gate: own(self, entry, fetched, now, gate)


@inlined
def count(rule, slices, caches, clock, entry, fetched, stamp, gate):
    """Keep the statistics of a look-up, for strategies that ask for them. rule: of the strategy, or None."""
    record = slices[entry]
    record.last_token = clock[TOKEN]
    record.floor = caches[record.group].floor
    record.inserted = stamp - 1 if fetched else record.inserted
    record.count_since_insert = 1 if fetched else record.count_since_insert + 1
    record.count += 1
    record.gate_mass += gate
    remember(rule, record, fetched, stamp, gate)


@inlined
def drop(slices, caches, entry):
    """Take one resident slice out; its LSB, where it has one, is the caller's business."""
    slices[entry].resident = False
    slices[entry].ahead = False
    caches[slices[entry].group].used_bytes -= slices[entry].size_bytes


@inlined
def evict(slices, caches, entry):
    """Take out a slice where it is resident; an LSB never outlives its MSB."""
    if slices[entry].resident:
        drop(slices, caches, entry)
        if slices[entry].kind == MSB and slices[entry + 1].resident:
            drop(slices, caches, entry + 1)


@jit
def evict_all(slices, caches, entries):
    """Evict all of these."""
    for entry in entries:
        evict(slices, caches, entry)


@jit
def evict_in_order(slices, caches, entries):
    """Evict in this order until every cache's bytes fit."""
    for entry in entries:
        cache = slices[entry].group
        if caches[cache].used_bytes > caches[cache].capacity_bytes:
            evict(slices, caches, entry)


@jit
def look_up_all(slices, caches, clock, entries, gates, rule=None):
    """Record look-ups in this order, inserting what is not resident. rule: see ``count``."""
    for index in range(len(entries)):
        entry = entries[index]
        clock[0] += 1
        fetched = not slices[entry].resident
        caches[slices[entry].group].used_bytes += look_up(slices, entry, fetched, clock[0])
        count(rule, slices, caches, clock, entry, fetched, clock[0], gates[index])


def make_room(state: SliceState, protected: IntArray, score: Score) -> None:
    """Evict by rising score, equal ones by last use, then entry, until every cache's bytes fit.

    Slices in ``protected`` are not touched: a batch that alone exceeds the cache stays, the caller reports it.
    """
    full = state.used_bytes > state.caches["capacity_bytes"]
    if not full.any():
        return
    free = state.resident & full[state.group]
    free[protected] = False
    candidates = np.flatnonzero(free)
    keys = (*score(candidates), state.last_use[candidates])
    # lexsort is stable and candidates rise, so the entry number is the last key of all
    evict_in_order(state.slices, state.caches, candidates[np.lexsort(keys[::-1])])


def eviction_score(state: SliceState, eviction: Eviction) -> Score:
    """Bind an eviction strategy to the state."""
    return guarded(eviction, lambda entries: eviction.score(state, entries))


def streaming_score(state: SliceState, warmup: Warmup, eviction: Eviction, layer: int) -> Score:
    """Order of leaving when prefill is done with ``layer``: the warm-up's own, layers not yet processed after it."""
    own = guarded(warmup, lambda entries: warmup.score(state, entries, eviction))
    return lambda entries: (state.layer[entries] > layer, *own(entries))


def guarded(strategy: Strategy, score: Score) -> Score:
    """Check what a strategy returns, and turn a failure of the user's code into one line."""
    name = f"{type(strategy).__name__}.score"

    def checked(entries: IntArray) -> Keys:
        entries.setflags(write=False)
        with faults_of(strategy, "score"):
            keys = score(entries)
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
    evict_all(state.slices, state.caches, np.flatnonzero(leave))
    for entry in read.tolist():
        insert(state.slices, state.caches, state.clock, entry)
    if recency is not None:
        state.last_use[recency] = state.clock[0] + 1 + np.arange(len(recency))
        state.clock[0] += len(recency)
    return read
