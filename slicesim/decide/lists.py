"""The order of leaving of strategies that keep lists of their own (``policies.listed``), as the batch loop asks for it.

A hit or a miss is told at its look-up; then room is made; what is new enters a list when that is done.
"""

from __future__ import annotations

from slicesim.compiled import jit, overload
from slicesim.decide.cache import drop
from slicesim.policies.linked import NOBODY, clear, take
from slicesim.policies.slices import BEGUN, MSB

#: What the batch loop asks of such a strategy.
METHODS = ("hit", "miss", "insert", "victim", "leave")

# What follows is compiled. ``order`` is a ``Lists``.


def hit(self, lists, cache, entry, now):
    """Tell the strategy of a hit."""


def miss(self, lists, cache, entry, now):
    """Tell the strategy of a miss."""


def insert(self, lists, cache, entry):
    """Let the strategy enter a slice."""


def victim(self, lists, cache, begun):
    """Ask who leaves next."""


def leave(self, lists, cache, entry):
    """Let the victim leave its list."""


@overload(hit)
def _hit(self, lists, cache, entry, now):
    own = self.instance_class.compiled_hit
    return lambda self, lists, cache, entry, now: own(self, lists, cache, entry, now)


@overload(miss)
def _miss(self, lists, cache, entry, now):
    own = self.instance_class.compiled_miss
    return lambda self, lists, cache, entry, now: own(self, lists, cache, entry, now)


@overload(insert)
def _insert(self, lists, cache, entry):
    own = self.instance_class.compiled_insert
    return lambda self, lists, cache, entry: own(self, lists, cache, entry)


@overload(victim)
def _victim(self, lists, cache, begun):
    own = self.instance_class.compiled_victim
    return lambda self, lists, cache, begun: own(self, lists, cache, begun)


@overload(leave)
def _leave(self, lists, cache, entry):
    own = self.instance_class.compiled_leave
    return lambda self, lists, cache, entry: own(self, lists, cache, entry)


@jit
def rebuild(order, rule, slices, entries):
    """Begin anew with these slices, which are given in order of use."""
    clear(order)
    order.seed[0] = slices[0].priority
    for entry in entries:
        order.used[entry] = slices[entry].last_use
        _enter(order, rule, slices, entry)


@jit
def _enter(order, rule, slices, entry):
    insert(rule, order, slices[entry].group, entry)
    order.held[entry] = True


@jit
def look_up(order, rule, slices, entry, fetched, stamp):
    """Tell the strategy of a look-up."""
    if fetched:
        miss(rule, order, slices[entry].group, entry, stamp)
    else:
        hit(rule, order, slices[entry].group, entry, stamp)


@jit
def settle(order, rule, slices, entry):
    """Enter a slice that has come in; one that was read ahead of its request may stand in a ghost list still."""
    if slices[entry].resident and not order.held[entry]:
        if order.place[entry] != NOBODY:
            order.mark[entry] = 0
            take(order, slices[entry].group, entry)
        _enter(order, rule, slices, entry)


@jit
def make_room(order, rule, slices, caches, clock, cache):
    """Let victims leave until the bytes fit, or only slices of the batch in hand are left."""
    while caches[cache].used_bytes > caches[cache].capacity_bytes:
        entry = victim(rule, order, cache, clock[BEGUN])
        if entry == NOBODY:
            break
        leave(rule, order, cache, entry)
        order.held[entry] = False
        drop(slices, caches, entry)
        if slices[entry].kind == MSB and slices[entry + 1].resident:
            if order.held[entry + 1]:
                take(order, cache, entry + 1)
                order.mark[entry + 1] = 0
                order.held[entry + 1] = False
            drop(slices, caches, entry + 1)
