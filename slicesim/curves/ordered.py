"""The stack of objects of one size under any order of leaving that is the same for all cache sizes, compiled.

Place n holds the object that a cache of n + 1 objects keeps and one of n does not. When a batch comes in, a cache of
one more object has at most one candidate more, so it keeps what the smaller one keeps and the best that is left: one
walk down the stack, with the displaced objects in hand (Mattson et al., IBM Systems Journal 9(2), 1970). For plain
LRU that is the order of use, for which ``recency`` is faster; prefill needs it, where layers that are not yet
processed leave last. With objects of unequal size the argument fails.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import jit
from slicesim.curves.recency import COLD, NOT_REQUESTED, sort_slots
from slicesim.decide import SliceSizes
from slicesim.policies import LSB, MSB
from slicesim.policies.slices import BoolArray, FloatArray, IntArray

NOBODY = NOWHERE = -1


class OrderedStack(NamedTuple):
    """The stack, and what the compiled code writes to; an object is number ``layer * experts + expert``.

    size_bytes: of each object; layer, last_use (a stamp), place: int64 [objects]; occupant: int64 [objects], by place;
    clock: int64 [1]; hand: int64, scratch: objects on their way, best first; slots: int64 [top_k], scratch.
    """

    size_bytes: int
    layer: IntArray
    last_use: IntArray
    place: IntArray
    occupant: IntArray
    clock: IntArray
    hand: IntArray
    slots: IntArray

    @classmethod
    def empty(cls, sizes: SliceSizes, experts: int, top_k: int) -> OrderedStack:
        """Return a stack in which every object is cold."""
        layer = np.repeat(np.arange(len(sizes.msb_bytes)), experts)
        last_use, place, occupant = np.full((3, len(layer)), NOWHERE)
        hand, slots = np.zeros(len(layer) + experts, np.int64), np.zeros(top_k, np.int64)
        return cls(int(sizes.msb_bytes[0]), layer, last_use, place, occupant, np.zeros(1, np.int64), hand, slots)

    def clear(self) -> None:
        """Make every object cold."""
        self.place[:] = NOWHERE
        self.occupant[:] = NOBODY

    def decode(self, ids: NDArray[np.int32], scores: FloatArray, critical: BoolArray, depths: IntArray) -> None:
        """See RecencyStack.decode; nothing is critical where an expert is one object."""
        depths[..., LSB] = NOT_REQUESTED
        _decode(self, ids, scores, depths)

    def stream(self, layer: int, entries: IntArray) -> IntArray:
        """See RecencyStack.stream."""
        objects = entries // 2  # an entry is a slice: the object is its expert
        depths = np.empty(len(objects), dtype=np.int64)
        _stream(self, layer, objects, depths)
        return depths


# What follows is compiled, and allocates nothing.


@jit
def _decode(stack: OrderedStack, ids: NDArray[np.int32], scores: FloatArray, depths: IntArray) -> None:
    count, layers, top_k = ids.shape
    experts = len(stack.layer) // layers
    for token in range(count):
        for layer in range(layers):
            sort_slots(stack.slots, scores[token, layer])
            for slot in range(top_k):
                depths[token, layer, slot, MSB] = _depth(stack, layer * experts + ids[token, layer, slot])
            for rank in range(top_k):
                chosen = layer * experts + ids[token, layer, stack.slots[rank]]
                _take(stack, chosen, top_k - 1 - rank)  # looked up last, leaves last
            _put_back(stack, top_k, layers)


@jit
def _stream(stack: OrderedStack, layer: int, objects: IntArray, depths: IntArray) -> None:
    for index in range(len(objects)):
        depths[index] = _depth(stack, objects[index])
    for index in range(len(objects)):
        _take(stack, objects[index], len(objects) - 1 - index)
    _put_back(stack, len(objects), layer)


@jit
def _depth(stack: OrderedStack, number: int) -> int:
    place = stack.place[number]
    depth: int = COLD if place == NOWHERE else (place + 1) * stack.size_bytes
    return depth


@jit
def _take(stack: OrderedStack, number: int, into: int) -> None:
    """Take an object in hand, as the one looked up last."""
    if stack.place[number] != NOWHERE:
        stack.occupant[stack.place[number]] = NOBODY
    stack.clock[0] += 1
    stack.last_use[number] = stack.clock[0]
    stack.hand[into] = number


@jit
def _put_back(stack: OrderedStack, last: int, layer: int) -> None:
    """Walk down, giving each place the best of the ``last`` objects in hand and of who was there."""
    hand, first = stack.hand, 0
    while first < last:
        place = first
        other = stack.occupant[place]
        if other != NOBODY:
            rank = last
            while rank > first and _stays_longer(stack, other, hand[rank - 1], layer):
                hand[rank] = hand[rank - 1]
                rank -= 1
            hand[rank] = other
            last += 1
        stack.occupant[place] = hand[first]
        stack.place[hand[first]] = place
        first += 1


@jit
def _stays_longer(stack: OrderedStack, a: int, b: int, layer: int) -> bool:
    """Layers that are not yet processed stay longest, then those used last."""
    a_waits, b_waits = stack.layer[a] > layer, stack.layer[b] > layer
    longer: bool = stack.last_use[a] > stack.last_use[b] if a_waits == b_waits else a_waits
    return longer
