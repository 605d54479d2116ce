"""Who leaves first: three structures that give the same order, each as fast as its kind of strategy allows; and lists.

All are called from the compiled batch loop, with ``rule`` standing for the eviction strategy. Slices looked up with
the batch in hand (stamped after it began) are protected. ``Lists`` are kept by strategies with an order that no key
tells (``decide.lists``). ``Outside`` leaves the choice to Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from slicesim.compiled import inlined, jit, overload
from slicesim.decide import lists
from slicesim.decide.cache import count, drop, evict
from slicesim.decide.observe import observes
from slicesim.policies.eviction import Eviction
from slicesim.policies.linked import Lists
from slicesim.policies.listed import Listed
from slicesim.policies.slices import BEGUN, LAYER, LSB, MSB, REQUEST, STAMP, TOKEN, IntArray, SliceState, When

#: Length of a log in slices of its cache: the longer, the more seldom it is tidied up.
LOG_LENGTH = 4

OPEN = np.iinfo(np.int64).max
USE = np.dtype([("stamp", np.int64), ("entry", np.int64)])
RANK = np.dtype([("key", np.float64), ("tie", np.int64), ("entry", np.int64)])


class Queues(NamedTuple):
    """For keys that depend on the kind of slice alone: logs of every use. A use that a later one follows is stale.

    Nothing is looked for or moved: stale uses are passed over when their turn to leave comes. log: USE [caches *
    queues, length]; ends: int64 [caches * queues, 2], where the uses not passed over begin and end; queue: of each
    kind; queues: how many for each cache.
    """

    log: Any
    ends: IntArray
    queue: IntArray
    queues: int


class Layers(NamedTuple):
    """For keys that change with their own slice's look-up only: ranks of all, and the first to leave of each layer.

    keys, ties: int64 [entries], OPEN where a slice is not resident; first: entry [layers]; stale: bool [layers], where
    ``first`` has to be found anew; layer_slices: entries of a layer; cache_layers: layers of a cache. Keys are the
    whole numbers whose order is that of the floats: the least of many is found several at a time. number, bits: one
    float, and the same memory as an integer.
    """

    keys: IntArray
    ties: IntArray
    number: Any
    bits: IntArray
    first: IntArray
    stale: Any
    layer_slices: int
    cache_layers: int


class Scan(NamedTuple):
    """For keys that change by themselves: all candidates are asked each time. ranks: RANK [entries], scratch."""

    ranks: Any


class Outside(NamedTuple):
    """For strategies that are not compiled: the batch loop stops, and Python makes room."""

    nothing: int = 0


Order = Queues | Layers | Scan | Lists | Outside


def order_of(state: SliceState, eviction: Eviction) -> Order:
    """Choose the structure for a strategy that has a ``key``."""
    entries, caches = len(state.slices), len(state.caches)
    if isinstance(eviction, Listed):
        return Lists.empty(state, eviction.lists, eviction.numbers)
    if eviction.by_kind:
        records = state.slices.view(np.recarray)
        own = [eviction.key(records[kind], 0) for kind in (MSB, LSB)]
        queue = np.array([sorted(set(own)).index(key) for key in own])
        queues = len(set(own))
        log = np.zeros((caches * queues, LOG_LENGTH * entries // caches + LOG_LENGTH), dtype=USE)
        return Queues(log, np.zeros((caches * queues, 2), dtype=np.int64), queue, queues)
    if eviction.volatile:
        return Scan(np.zeros(entries, dtype=RANK))
    of_layer = 2 * state.experts
    layers = entries // of_layer
    keys, ties, first = (np.zeros(size, dtype=np.int64) for size in (entries, entries, layers))
    number, stale = np.zeros(1), np.zeros(layers, dtype=np.bool_)
    return Layers(keys, ties, number, number.view(np.int64), first, stale, of_layer, layers // caches)


def methods_of(order: Order, eviction: Eviction) -> tuple[str, ...]:
    """Return what is compiled of a strategy for its structure."""
    if isinstance(order, Lists):
        return lists.METHODS
    if isinstance(order, Queues):
        return ()
    hooks = tuple(method for method in ("remember", "observe") if eviction.overrides(method))
    if isinstance(order, Outside):
        return hooks
    return ("key", "tie", *(("layer_key",) if eviction.overrides("layer_key") else ()), *hooks)


def rebuild_order(order: Order, rule: object, state: SliceState) -> None:
    """Take in all resident slices anew."""
    resident = np.flatnonzero(state.resident)
    by_use = resident[np.argsort(state.last_use[resident], kind="stable")]
    _rebuild(order, rule, state.slices, state.clock[0], by_use)


# What follows is compiled. ``slices`` and ``caches`` are those of SliceState, ``now`` is its clock.


def key_of(self, entry, now):
    """Return the strategy's key of a slice."""


def tie_of(self, entry):
    """Return the strategy's tie-breaker of a slice."""


@overload(key_of)
def _key_of(self, entry, now):
    key = self.instance_class.compiled_key
    return lambda self, entry, now: key(self, entry, now)


@overload(tie_of)
def _tie_of(self, entry):
    tie = self.instance_class.compiled_tie
    return lambda self, entry: tie(self, entry)


def rebuild(order, rule, slices, now, entries):
    """Forget all, and take in ``entries``, which are given in order of use."""


def expect(order, slices, cache, stamps):
    """Make ready for so many stamps in a cache."""


def stamped(order, slices, cache, kind, entry, stamp):
    """Heed that a slice of this kind and cache has just been stamped."""


def looked_up(order, rule, slices, caches, clock, entry, fetched, stamp, gate):
    """Keep the statistics of a look-up, where strategies may ask for them."""


def refresh(order, rule, slices, now, base):
    """Give the slices of a layer their new places, where the strategy has observed the batch."""


def settle(order, rule, slices, now, entry):
    """Give a slice that has been stamped its new place, when room has been made."""


def make_room(order, rule, slices, caches, clock, cache):
    """Evict from one cache until its bytes fit, sparing slices stamped since the batch began; False: left to Python."""


@jit
def _rebuild(order, rule, slices, now, entries):
    rebuild(order, rule, slices, now, entries)


# ---------------------------------------------------------------- queues


@inlined
def _is_stale(use, slices):
    return (slices[use.entry].last_use != use.stamp) | (not slices[use.entry].resident)


@jit
def _tidy_up(log, ends, slices):
    """Move the uses that count to the front of a log."""
    kept = 0
    for place in range(ends[0], ends[1]):
        if not _is_stale(log[place], slices):
            log[kept].stamp, log[kept].entry = log[place].stamp, log[place].entry
            kept += 1
    ends[0], ends[1] = 0, kept


def _queues_expect(order, slices, cache, stamps):
    for number in range(order.queues * cache, order.queues * (cache + 1)):
        if order.ends[number, 1] + stamps > order.log.shape[1]:
            _tidy_up(order.log[number], order.ends[number], slices)


def _queues_stamped(order, slices, cache, kind, entry, stamp):
    number = order.queues * cache + order.queue[kind]
    place = order.ends[number, 1]
    order.log[number, place].stamp, order.log[number, place].entry = stamp, entry
    order.ends[number, 1] = place + 1


def _queues_rebuild(order, rule, slices, now, entries):
    order.ends[:, :] = 0
    for entry in entries:
        stamped(order, slices, slices[entry].group, slices[entry].kind, entry, slices[entry].last_use)


def _queues_make_room(order, rule, slices, caches, clock, cache):
    begun, capacity = clock[BEGUN], caches[cache].capacity_bytes
    for number in range(order.queues * cache, order.queues * (cache + 1)):
        place, stop = order.ends[number, 0], order.ends[number, 1]
        while caches[cache].used_bytes > capacity and place < stop:
            use = order.log[number, place]
            if use.stamp > begun:
                break
            if not _is_stale(use, slices):
                evict(slices, caches, use.entry)
            place += 1
        order.ends[number, 0] = place
    return True


# ---------------------------------------------------------------- layers


@inlined
def _ask(rule, entry, now):
    """Return the key of a slice."""
    key = float(key_of(rule, entry, now))
    if key != key:
        raise ValueError("NaN is no key")
    return key


@inlined
def _leaves_before(order, a, b):
    """Whether an entry leaves before another one with a higher number."""
    return (order.keys[a] < order.keys[b]) | ((order.keys[a] == order.keys[b]) & (order.ties[a] <= order.ties[b]))


def stays_after(self, order, slices, when, a, b):
    """Whether the first slice of a later layer leaves after that of an earlier one, or neither is there."""


@overload(stays_after)
def _stays_after(self, order, slices, when, a, b):
    key = getattr(self.instance_class, "compiled_layer_key", None)
    if key is None:
        return lambda self, order, slices, when, a, b: _leaves_before(order, a, b)

    def by_layer(self, order, slices, when, a, b):
        if order.ties[a] == OPEN or order.ties[b] == OPEN:
            return order.ties[b] == OPEN
        first, second = float(key(self, slices[a], when)), float(key(self, slices[b], when))
        if first != first or second != second:
            raise ValueError("NaN is no key")
        return first < second or (first == second and _leaves_before(order, a, b))

    return by_layer


@inlined
def _open(order, entry):
    order.keys[entry] = order.ties[entry] = OPEN
    order.stale[entry // order.layer_slices] = True


@jit
def _find_first(order, layer):
    start = order.layer_slices * layer
    keys, ties = order.keys[start : start + order.layer_slices], order.ties[start : start + order.layer_slices]
    key = tie = OPEN
    for place in range(len(keys)):
        key = min(key, keys[place])
    for place in range(len(keys)):
        tie = min(tie, ties[place] if keys[place] == key else OPEN)
    place = 0
    while keys[place] != key or ties[place] != tie:
        place += 1
    order.first[layer] = start + place
    order.stale[layer] = False


@inlined
def _enter(order, rule, slices, now, entry):
    """Give a slice its rank."""
    order.number[0] = _ask(rule, slices[entry], now) + 0.0  # minus zero is zero
    bits = order.bits[0]
    order.keys[entry] = bits if bits >= 0 else bits ^ OPEN  # of two negative floats the larger one has fewer bits
    order.ties[entry] = tie_of(rule, slices[entry])


def _layers_rebuild(order, rule, slices, now, entries):
    for entry in range(len(order.keys)):
        _open(order, entry)
    for entry in entries:
        _enter(order, rule, slices, now, entry)


def _layers_settle(order, rule, slices, now, entry):
    _enter(order, rule, slices, now, entry)
    order.stale[slices[entry].layer] = True


def _layers_refresh(order, rule, slices, now, base):
    for entry in range(base, base + order.layer_slices):
        if slices[entry].resident:
            _enter(order, rule, slices, now, entry)
    order.stale[slices[base].layer] = True


def _layers_make_room(order, rule, slices, caches, clock, cache):
    layers, begun = order.cache_layers, clock[BEGUN]
    when = When(clock[STAMP], clock[LAYER], len(order.first), clock[TOKEN], clock[REQUEST])
    while caches[cache].used_bytes > caches[cache].capacity_bytes:
        victim = -1
        for layer in range(layers * cache, layers * (cache + 1)):
            if order.stale[layer]:
                _find_first(order, layer)
            entry = order.first[layer]
            if victim < 0 or not stays_after(rule, order, slices, when, victim, entry):
                victim = entry
        if order.ties[victim] == OPEN:
            break
        key = order.keys[victim]
        _open(order, victim)
        if slices[victim].last_use > begun:  # settled with the rest of the batch
            continue
        order.bits[0] = key if key >= 0 else key ^ OPEN
        caches[cache].floor = order.number[0]
        drop(slices, caches, victim)
        if slices[victim].kind == MSB and slices[victim + 1].resident:
            _open(order, victim + 1)
            drop(slices, caches, victim + 1)
    return True


# ---------------------------------------------------------------- scan


def _nothing_to_rebuild(order, rule, slices, now, entries):
    pass


def _nothing_to_expect(order, slices, cache, stamps):
    pass


def _nothing_to_heed(order, slices, cache, kind, entry, stamp):
    pass


def _count(order, rule, slices, caches, clock, entry, fetched, stamp, gate):
    count(rule, slices, caches, clock, entry, fetched, stamp, gate)


def _nobody_asks(order, rule, slices, caches, clock, entry, fetched, stamp, gate):
    pass


def _nothing_to_refresh(order, rule, slices, now, base):
    pass


def _nothing_to_settle(order, rule, slices, now, entry):
    pass


def _scan_make_room(order, rule, slices, caches, clock, cache):
    ranks, count, now, begun = order.ranks, 0, clock[STAMP], clock[BEGUN]
    for entry in range(len(slices)):
        if slices[entry].resident and slices[entry].group == cache and slices[entry].last_use <= begun:
            rank = ranks[count]
            rank.key, rank.tie, rank.entry = _ask(rule, slices[entry], now), tie_of(rule, slices[entry]), entry
            count += 1
    while caches[cache].used_bytes > caches[cache].capacity_bytes and count > 0:
        place = 0
        for other in range(1, count):
            a, b = ranks[other], ranks[place]
            if a.key < b.key or (a.key == b.key and (a.tie < b.tie or (a.tie == b.tie and a.entry < b.entry))):
                place = other
        victim, count = ranks[place].entry, count - 1
        ranks[place] = ranks[count]
        evict(slices, caches, victim)  # nothing happens where an LSB has left with its MSB
    return True


# ---------------------------------------------------------------- lists


def _lists_rebuild(order, rule, slices, now, entries):
    lists.rebuild(order, rule, slices, entries)


def _lists_stamped(order, slices, cache, kind, entry, stamp):
    order.used[entry] = stamp


def _lists_looked_up(order, rule, slices, caches, clock, entry, fetched, stamp, gate):
    lists.look_up(order, rule, slices, entry, fetched, stamp)


def _lists_settle(order, rule, slices, now, entry):
    lists.settle(order, rule, slices, entry)


def _lists_make_room(order, rule, slices, caches, clock, cache):
    lists.make_room(order, rule, slices, caches, clock, cache)
    return True


# ---------------------------------------------------------------- outside


def _outside_make_room(order, rule, slices, caches, clock, cache):
    return False


def _choose(**implementations: Any) -> Callable[[Any], Any]:
    """Return what numba asks: the implementation for the type of structure that comes."""
    return lambda order: implementations[order.instance_class.__name__]


_REBUILD = _choose(
    Queues=_queues_rebuild,
    Layers=_layers_rebuild,
    Scan=_nothing_to_rebuild,
    Lists=_lists_rebuild,
    Outside=_nothing_to_rebuild,
)
_EXPECT = _choose(
    Queues=_queues_expect,
    Layers=_nothing_to_expect,
    Scan=_nothing_to_expect,
    Lists=_nothing_to_expect,
    Outside=_nothing_to_expect,
)
_STAMPED = _choose(
    Queues=_queues_stamped,
    Layers=_nothing_to_heed,
    Scan=_nothing_to_heed,
    Lists=_lists_stamped,
    Outside=_nothing_to_heed,
)
_LOOKED_UP = _choose(Queues=_nobody_asks, Layers=_count, Scan=_count, Lists=_lists_looked_up, Outside=_count)
_SETTLE = _choose(
    Queues=_nothing_to_settle,
    Layers=_layers_settle,
    Scan=_nothing_to_settle,
    Lists=_lists_settle,
    Outside=_nothing_to_settle,
)
_MAKE_ROOM = _choose(
    Queues=_queues_make_room,
    Layers=_layers_make_room,
    Scan=_scan_make_room,
    Lists=_lists_make_room,
    Outside=_outside_make_room,
)
overload(rebuild)(lambda order, rule, slices, now, entries: _REBUILD(order))
overload(expect)(lambda order, slices, cache, stamps: _EXPECT(order))
overload(stamped)(lambda order, slices, cache, kind, entry, stamp: _STAMPED(order))
overload(looked_up)(lambda order, rule, slices, caches, clock, entry, fetched, stamp, gate: _LOOKED_UP(order))
overload(refresh)(
    lambda order, rule, slices, now, base: (
        _layers_refresh if observes(rule) and order.instance_class is Layers else _nothing_to_refresh
    )
)
overload(settle)(lambda order, rule, slices, now, entry: _SETTLE(order))
overload(make_room)(lambda order, rule, slices, caches, clock, cache: _MAKE_ROOM(order))
