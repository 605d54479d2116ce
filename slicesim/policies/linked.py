"""Linked lists of slices, compiled: what strategies with lists of their own are made of.

Every list belongs to one cache and runs from its oldest to its newest slice. A list of slices that have left (a ghost
list) is one like any other. Lists are counted in bytes: slices may differ in size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from slicesim.compiled import inlined, jit
from slicesim.policies.slices import FloatArray, IntArray, SliceState

#: No slice; no list.
NOBODY = -1

#: Columns of ``Lists.links``.
OLDER, NEWER = 0, 1


class Lists(NamedTuple):
    """The lists of all caches, and what a strategy notes.

    links: int64 [entries + caches * lists, 2], neighbours of each slice; behind the slices, an end of each list that
    closes it to a ring. place: list that holds a slice, or NOBODY; held: bool, whether that is one of residents.
    mark: int64 [entries], the strategy's own, 0 when a prompt has been streamed; notes: float64 [entries, 2], the
    strategy's own, which outlive all. used: stamp of the last use.
    sizes: bytes of each slice. bytes: int64 [caches, lists]. capacity: int64 [caches], bytes. hand: int64 [caches], a
    slice, moved on to the next newer one when that leaves its list. numbers: float64 [caches, numbers], the strategy's
    own, which outlive prompts. seed: one number from 0 to 1 that was drawn. clock: of
    ``SliceState``; layers: how many there are.
    """

    links: IntArray
    place: IntArray
    held: Any
    mark: IntArray
    notes: FloatArray
    used: IntArray
    sizes: IntArray
    bytes: IntArray
    capacity: IntArray
    hand: IntArray
    numbers: FloatArray
    seed: FloatArray
    clock: IntArray
    layers: int

    @classmethod
    def empty(cls, state: SliceState, lists: int, numbers: int) -> Lists:
        """Return empty lists: so many of them, and so many numbers, for each cache."""
        entries, caches = len(state.slices), len(state.caches)
        place, mark, used = (np.full(entries, value, dtype=np.int64) for value in (NOBODY, 0, -1))
        return cls(
            np.zeros((entries + caches * lists, 2), dtype=np.int64),
            place,
            np.zeros(entries, dtype=np.bool_),
            mark,
            np.zeros((entries, 2)),
            used,
            np.ascontiguousarray(state.size_bytes),
            np.zeros((caches, lists), dtype=np.int64),
            np.ascontiguousarray(state.caches["capacity_bytes"]),
            np.full(caches, NOBODY, dtype=np.int64),
            np.zeros((caches, numbers)),
            np.zeros(1),
            state.clock,
            state.when.layers,
        )


# What follows is compiled.


@jit
def clear(lists):
    """Take all slices out of all lists."""
    entries = len(lists.place)
    for end in range(entries, len(lists.links)):
        lists.links[end, OLDER] = lists.links[end, NEWER] = end
    lists.place[:] = NOBODY
    lists.held[:] = False
    lists.mark[:] = 0
    lists.bytes[:, :] = 0
    lists.hand[:] = NOBODY


@inlined
def end_of(lists, cache, which):
    """Return what stands behind the newest and before the oldest slice of a list."""
    return len(lists.place) + lists.bytes.shape[1] * cache + which


@inlined
def is_end(lists, node):
    """Whether this is no slice, but the end of a list."""
    return node >= len(lists.place)


@jit
def push(lists, cache, which, entry):
    """Enter a slice that is in no list as the newest one."""
    end = end_of(lists, cache, which)
    newest = lists.links[end, OLDER]
    lists.links[entry, OLDER], lists.links[entry, NEWER] = newest, end
    lists.links[newest, NEWER] = lists.links[end, OLDER] = entry
    lists.place[entry] = which
    lists.bytes[cache, which] += lists.sizes[entry]


@jit
def take(lists, cache, entry):
    """Take a slice out of its list."""
    older, newer = lists.links[entry, OLDER], lists.links[entry, NEWER]
    lists.links[older, NEWER], lists.links[newer, OLDER] = newer, older
    lists.bytes[cache, lists.place[entry]] -= lists.sizes[entry]
    lists.place[entry] = NOBODY
    if lists.hand[cache] == entry:
        lists.hand[cache] = newer


@jit
def move(lists, cache, which, entry):
    """Make a slice the newest one of a list."""
    take(lists, cache, entry)
    push(lists, cache, which, entry)


@inlined
def layer_of(lists, entry):
    """Return the layer of a slice."""
    return entry * lists.layers // len(lists.place)


@inlined
def oldest(lists, cache, which):
    """Return the oldest slice of a list, or its end."""
    return lists.links[end_of(lists, cache, which), NEWER]


@jit
def first_free(lists, cache, which, begun):
    """Return the oldest slice of a list that the batch in hand does not use, or NOBODY."""
    node = oldest(lists, cache, which)
    while not is_end(lists, node):
        if lists.used[node] <= begun:
            return node
        node = lists.links[node, NEWER]
    return NOBODY


@jit
def trim(lists, cache, which, most_bytes):
    """Let the oldest slices of a ghost list go until its bytes fit."""
    while lists.bytes[cache, which] > most_bytes:
        take(lists, cache, oldest(lists, cache, which))
