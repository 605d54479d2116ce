"""Who leaves first: three structures that give the same order, each as fast as its kind of strategy allows.

All are called from the compiled batch loop, with ``rule`` standing for the eviction strategy. Slices looked up with
the batch in hand (stamped after ``begun``) are protected. ``Outside`` leaves the choice to Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from slicesim.compiled import inlined, jit, overload
from slicesim.decide.cache import count, drop, evict
from slicesim.policies.eviction import Eviction
from slicesim.policies.slices import LSB, MSB, IntArray, SliceState

#: Length of a log in slices of its cache: the longer, the more seldom it is tidied up.
LOG_LENGTH = 4

OPEN = np.iinfo(np.int64).max
USE = np.dtype([("stamp", np.int64), ("entry", np.int64)])
RANK = np.dtype([("key", np.float64), ("tie", np.int64), ("entry", np.int64)])


class Queues(NamedTuple):
    """For keys that depend on the kind of slice alone: logs of every use. A use that a later one follows is stale.

    A log is cheaper than linked lists, whose every move waits for the one before: nothing is looked for, stale uses are
    passed over when their turn to leave comes. log: USE [caches * queues, length]; ends: int64 [caches * queues, 2],
    where the uses not passed over begin and end; queue: of each kind; queues: how many for each cache.
    """

    log: Any
    ends: IntArray
    queue: IntArray
    queues: int


class Tournament(NamedTuple):
    """For keys that change with their own slice's look-up only: a tree of who leaves before whom, one per cache.

    nodes: RANK [caches, 2 * width]; node n is the first to leave of nodes 2 n and 2 n + 1, leaves begin at ``width``
    in order of entries, the first of them ``start`` [caches]; a leaf whose slice is not resident is OPEN.
    """

    nodes: Any
    start: IntArray


class Scan(NamedTuple):
    """For keys that change by themselves: all candidates are asked each time. ranks: RANK [entries], scratch."""

    ranks: Any


class Outside(NamedTuple):
    """For strategies that are not compiled: the batch loop stops, and Python makes room."""

    nothing: int = 0


Order = Queues | Tournament | Scan | Outside


def order_of(state: SliceState, eviction: Eviction) -> Order:
    """Choose the structure for a strategy that has a ``key``."""
    entries, caches = len(state.slices), len(state.caches)
    if eviction.by_kind:
        records = state.slices.view(np.recarray)
        own = [eviction.key(records[kind], 0) for kind in (MSB, LSB)]
        queue = np.array([sorted(set(own)).index(key) for key in own])
        queues = len(set(own))
        log = np.zeros((caches * queues, LOG_LENGTH * entries // caches + LOG_LENGTH), dtype=USE)
        return Queues(log, np.zeros((caches * queues, 2), dtype=np.int64), queue, queues)
    if eviction.volatile:
        return Scan(np.zeros(entries, dtype=RANK))
    width = 1 << (entries // caches - 1).bit_length()
    return Tournament(np.zeros((caches, 2 * width), dtype=RANK), np.arange(caches) * (entries // caches))


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


def looked_up(order, slices, entry, fetched, stamp, gate):
    """Keep the statistics of a look-up, where strategies may ask for them."""


def settle(order, rule, slices, now, entry):
    """Give a slice that has been stamped its new place, when room has been made."""


def make_room(order, rule, slices, caches, now, cache, begun):
    """Evict from one cache until its bytes fit, sparing slices stamped after ``begun``; False: left to Python."""


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


def _queues_make_room(order, rule, slices, caches, now, cache, begun):
    capacity = caches[cache].capacity_bytes
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


# ---------------------------------------------------------------- tournament


@inlined
def _ask(rank, rule, entry, now):
    """Enter the key and tie of a slice."""
    key = float(key_of(rule, entry, now))
    if key != key:
        raise ValueError("NaN is no key")
    rank.key, rank.tie, rank.entry = key, tie_of(rule, entry), entry.number


@inlined
def _leaves_before(a, b):
    return (a.key < b.key) | ((a.key == b.key) & ((a.tie < b.tie) | ((a.tie == b.tie) & (a.entry < b.entry))))


@inlined
def _climb(nodes, node):
    """Decide anew every match above a leaf."""
    while node > 1:
        node //= 2
        left, right, above = nodes[2 * node], nodes[2 * node + 1], nodes[node]
        first = right if _leaves_before(right, left) else left
        if above.key == first.key and above.tie == first.tie and above.entry == first.entry:
            break
        above.key, above.tie, above.entry = first.key, first.tie, first.entry


@inlined
def _open(nodes, node):
    nodes[node].key, nodes[node].tie, nodes[node].entry = np.inf, OPEN, OPEN
    _climb(nodes, node)


def _tournament_rebuild(order, rule, slices, now, entries):
    for cache in range(len(order.start)):
        for node in order.nodes[cache]:
            node.key, node.tie, node.entry = np.inf, OPEN, OPEN
    for entry in entries:
        _take(order, rule, slices, now, entry)


@inlined
def _take(order, rule, slices, now, entry):
    cache = slices[entry].group
    nodes = order.nodes[cache]
    leaf = len(nodes) // 2 + entry - order.start[cache]
    _ask(nodes[leaf], rule, slices[entry], now)
    _climb(nodes, leaf)


def _tournament_settle(order, rule, slices, now, entry):
    _take(order, rule, slices, now, entry)


def _tournament_make_room(order, rule, slices, caches, now, cache, begun):
    nodes = order.nodes[cache]
    first_leaf = len(nodes) // 2 - order.start[cache]
    while caches[cache].used_bytes > caches[cache].capacity_bytes and nodes[1].entry != OPEN:
        entry = nodes[1].entry
        _open(nodes, first_leaf + entry)
        if slices[entry].last_use > begun:  # settled with the rest of the batch
            continue
        drop(slices, caches, entry)
        if slices[entry].kind == MSB and slices[entry + 1].resident:
            _open(nodes, first_leaf + entry + 1)
            drop(slices, caches, entry + 1)
    return True


# ---------------------------------------------------------------- scan


def _nothing_to_rebuild(order, rule, slices, now, entries):
    pass


def _nothing_to_expect(order, slices, cache, stamps):
    pass


def _nothing_to_heed(order, slices, cache, kind, entry, stamp):
    pass


def _count(order, slices, entry, fetched, stamp, gate):
    count(slices, entry, fetched, stamp, gate)


def _nobody_asks(order, slices, entry, fetched, stamp, gate):
    pass


def _nothing_to_settle(order, rule, slices, now, entry):
    pass


def _scan_make_room(order, rule, slices, caches, now, cache, begun):
    ranks, count = order.ranks, 0
    for entry in range(len(slices)):
        if slices[entry].resident and slices[entry].group == cache and slices[entry].last_use <= begun:
            _ask(ranks[count], rule, slices[entry], now)
            count += 1
    while caches[cache].used_bytes > caches[cache].capacity_bytes and count > 0:
        place = 0
        for other in range(1, count):
            if _leaves_before(ranks[other], ranks[place]):
                place = other
        victim, count = ranks[place].entry, count - 1
        ranks[place] = ranks[count]
        evict(slices, caches, victim)  # nothing happens where an LSB has left with its MSB
    return True


# ---------------------------------------------------------------- outside


def _outside_make_room(order, rule, slices, caches, now, cache, begun):
    return False


def _choose(**implementations: Any) -> Callable[[Any], Any]:
    """Return what numba asks: the implementation for the type of structure that comes."""
    return lambda order: implementations[order.instance_class.__name__]


_REBUILD = _choose(
    Queues=_queues_rebuild, Tournament=_tournament_rebuild, Scan=_nothing_to_rebuild, Outside=_nothing_to_rebuild
)
_EXPECT = _choose(
    Queues=_queues_expect, Tournament=_nothing_to_expect, Scan=_nothing_to_expect, Outside=_nothing_to_expect
)
_STAMPED = _choose(Queues=_queues_stamped, Tournament=_nothing_to_heed, Scan=_nothing_to_heed, Outside=_nothing_to_heed)
_LOOKED_UP = _choose(Queues=_nobody_asks, Tournament=_count, Scan=_count, Outside=_count)
_SETTLE = _choose(
    Queues=_nothing_to_settle, Tournament=_tournament_settle, Scan=_nothing_to_settle, Outside=_nothing_to_settle
)
_MAKE_ROOM = _choose(
    Queues=_queues_make_room, Tournament=_tournament_make_room, Scan=_scan_make_room, Outside=_outside_make_room
)
overload(rebuild)(lambda order, rule, slices, now, entries: _REBUILD(order))
overload(expect)(lambda order, slices, cache, stamps: _EXPECT(order))
overload(stamped)(lambda order, slices, cache, kind, entry, stamp: _STAMPED(order))
overload(looked_up)(lambda order, slices, entry, fetched, stamp, gate: _LOOKED_UP(order))
overload(settle)(lambda order, rule, slices, now, entry: _SETTLE(order))
overload(make_room)(lambda order, rule, slices, caches, now, cache, begun: _MAKE_ROOM(order))
