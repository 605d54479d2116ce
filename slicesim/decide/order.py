"""Who leaves first: three structures that give the same order, each as fast as its kind of strategy allows.

All are called from the compiled batch loop, with ``rule`` standing for the eviction strategy. Slices looked up with
the batch in hand (stamped after ``begun``) are protected. ``Outside`` leaves the choice to Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from slicesim.compiled import jit, overload
from slicesim.decide.cache import drop, evict
from slicesim.policies.eviction import Eviction
from slicesim.policies.slices import LSB, MSB, IntArray, SliceState

NOBODY = -1
OPEN = np.iinfo(np.int64).max
LINK = np.dtype([("before", np.int32), ("after", np.int32)])
ENDS = np.dtype([("first", np.int32), ("last", np.int32)])
RANK = np.dtype([("key", np.float64), ("tie", np.int64), ("entry", np.int64)])


class Queues(NamedTuple):
    """For keys that depend on the kind of slice alone: doubly linked lists in order of use.

    links: LINK [entries]; ends: ENDS [caches, queues]; queue: of each kind.
    """

    links: Any
    ends: Any
    queue: IntArray


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
        return Queues(np.zeros(entries, dtype=LINK), np.zeros((caches, len(set(own))), dtype=ENDS), queue)
    if eviction.volatile:
        return Scan(np.zeros(entries, dtype=RANK))
    width = 1 << (entries // caches - 1).bit_length()
    return Tournament(np.zeros((caches, 2 * width), dtype=RANK), np.arange(caches) * (entries // caches))


def rebuild_order(order: Order, rule: object, state: SliceState) -> None:
    """Take in all resident slices anew."""
    resident = np.flatnonzero(state.resident)
    by_use = resident[np.argsort(state.last_use[resident], kind="stable")]
    _rebuild(order, rule, state.slices, state.clock[0], by_use)


# ruff: noqa: ANN001, ANN202, ARG001
# What follows is compiled. ``slices`` and ``caches`` are those of SliceState, ``now`` is its clock.


def key_of(self, entry, now):  # type: ignore[no-untyped-def]
    """Return the strategy's key of a slice."""


def tie_of(self, entry):  # type: ignore[no-untyped-def]
    """Return the strategy's tie-breaker of a slice."""


@overload(key_of)
def _key_of(self, entry, now):  # type: ignore[no-untyped-def]
    key = self.instance_class.compiled_key
    return lambda self, entry, now: key(self, entry, now)


@overload(tie_of)
def _tie_of(self, entry):  # type: ignore[no-untyped-def]
    tie = self.instance_class.compiled_tie
    return lambda self, entry: tie(self, entry)


def rebuild(order, rule, slices, now, entries):  # type: ignore[no-untyped-def]
    """Forget all, and take in ``entries``, which are given in order of use."""


def settle(order, rule, slices, now, entry, is_new):  # type: ignore[no-untyped-def]
    """Give a slice that has been looked up its new place, when room has been made."""


def make_room(order, rule, slices, caches, now, cache, begun):  # type: ignore[no-untyped-def]
    """Evict from one cache until its bytes fit, sparing slices stamped after ``begun``; False: left to Python."""


@jit
def _rebuild(order, rule, slices, now, entries):  # type: ignore[no-untyped-def]
    rebuild(order, rule, slices, now, entries)


# ---------------------------------------------------------------- queues


@jit
def _unlink(links, ends, cache, queue, entry):  # type: ignore[no-untyped-def]
    before, after = links[entry].before, links[entry].after
    if before == NOBODY:
        ends[cache, queue].first = after
    else:
        links[before].after = after
    if after == NOBODY:
        ends[cache, queue].last = before
    else:
        links[after].before = before


@jit
def _append(links, ends, cache, queue, entry):  # type: ignore[no-untyped-def]
    last = ends[cache, queue].last
    links[entry].before, links[entry].after = last, NOBODY
    if last == NOBODY:
        ends[cache, queue].first = entry
    else:
        links[last].after = entry
    ends[cache, queue].last = entry


def _queues_rebuild(order, rule, slices, now, entries):  # type: ignore[no-untyped-def]
    for cache in range(order.ends.shape[0]):
        for queue in range(order.ends.shape[1]):
            order.ends[cache, queue].first = order.ends[cache, queue].last = NOBODY
    for entry in entries:
        _append(order.links, order.ends, slices[entry].group, order.queue[slices[entry].kind], entry)


def _queues_settle(order, rule, slices, now, entry, is_new):  # type: ignore[no-untyped-def]
    cache, queue = slices[entry].group, order.queue[slices[entry].kind]
    if not is_new:
        if order.links[entry].after == NOBODY:
            return
        _unlink(order.links, order.ends, cache, queue, entry)
    _append(order.links, order.ends, cache, queue, entry)


def _queues_make_room(order, rule, slices, caches, now, cache, begun):  # type: ignore[no-untyped-def]
    links, ends, capacity = order.links, order.ends, caches[cache].capacity_bytes
    for queue in range(ends.shape[1]):
        entry = ends[cache, queue].first
        while entry != NOBODY and caches[cache].used_bytes > capacity:
            following, lsb = links[entry].after, entry + 1
            if slices[entry].last_use <= begun:
                _unlink(links, ends, cache, queue, entry)
                drop(slices, caches, entry)
                if slices[entry].kind == MSB and slices[lsb].resident:
                    if following == lsb:
                        following = links[lsb].after
                    _unlink(links, ends, cache, order.queue[LSB], lsb)
                    drop(slices, caches, lsb)
            entry = following
    return True


# ---------------------------------------------------------------- tournament


@jit
def _ask(rank, rule, entry, now):  # type: ignore[no-untyped-def]
    """Enter the key and tie of a slice."""
    key = float(key_of(rule, entry, now))
    if key != key:
        raise ValueError("NaN is no key")
    rank.key, rank.tie, rank.entry = key, tie_of(rule, entry), entry.number


@jit
def _leaves_before(a, b):  # type: ignore[no-untyped-def]
    return (a.key < b.key) | ((a.key == b.key) & ((a.tie < b.tie) | ((a.tie == b.tie) & (a.entry < b.entry))))


@jit
def _climb(nodes, node):  # type: ignore[no-untyped-def]
    """Decide anew every match above a leaf."""
    while node > 1:
        node //= 2
        left, right, above = nodes[2 * node], nodes[2 * node + 1], nodes[node]
        first = right if _leaves_before(right, left) else left
        if above.key == first.key and above.tie == first.tie and above.entry == first.entry:
            break
        above.key, above.tie, above.entry = first.key, first.tie, first.entry


@jit
def _open(nodes, node):  # type: ignore[no-untyped-def]
    nodes[node].key, nodes[node].tie, nodes[node].entry = np.inf, OPEN, OPEN
    _climb(nodes, node)


def _tournament_rebuild(order, rule, slices, now, entries):  # type: ignore[no-untyped-def]
    for cache in range(len(order.start)):
        for node in order.nodes[cache]:
            node.key, node.tie, node.entry = np.inf, OPEN, OPEN
    for entry in entries:
        _take(order, rule, slices, now, entry)


@jit
def _take(order, rule, slices, now, entry):  # type: ignore[no-untyped-def]
    cache = slices[entry].group
    nodes = order.nodes[cache]
    leaf = len(nodes) // 2 + entry - order.start[cache]
    _ask(nodes[leaf], rule, slices[entry], now)
    _climb(nodes, leaf)


def _tournament_settle(order, rule, slices, now, entry, is_new):  # type: ignore[no-untyped-def]
    _take(order, rule, slices, now, entry)


def _tournament_make_room(order, rule, slices, caches, now, cache, begun):  # type: ignore[no-untyped-def]
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


def _nothing_to_rebuild(order, rule, slices, now, entries):  # type: ignore[no-untyped-def]
    pass


def _nothing_to_settle(order, rule, slices, now, entry, is_new):  # type: ignore[no-untyped-def]
    pass


def _scan_make_room(order, rule, slices, caches, now, cache, begun):  # type: ignore[no-untyped-def]
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


def _outside_make_room(order, rule, slices, caches, now, cache, begun):  # type: ignore[no-untyped-def]
    return False


def _choose(**implementations: Any) -> Callable[[Any], Any]:
    """Return what numba asks: the implementation for the type of structure that comes."""
    return lambda order: implementations[order.instance_class.__name__]


_REBUILD = _choose(
    Queues=_queues_rebuild, Tournament=_tournament_rebuild, Scan=_nothing_to_rebuild, Outside=_nothing_to_rebuild
)
_SETTLE = _choose(
    Queues=_queues_settle, Tournament=_tournament_settle, Scan=_nothing_to_settle, Outside=_nothing_to_settle
)
_MAKE_ROOM = _choose(
    Queues=_queues_make_room, Tournament=_tournament_make_room, Scan=_scan_make_room, Outside=_outside_make_room
)
overload(rebuild)(lambda order, rule, slices, now, entries: _REBUILD(order))
overload(settle)(lambda order, rule, slices, now, entry, is_new: _SETTLE(order))
overload(make_room)(lambda order, rule, slices, caches, now, cache, begun: _MAKE_ROOM(order))
