"""The LRU stack of slices, compiled: how many bytes were looked up since a slice's own last look-up.

A Fenwick tree over stamps holds the bytes of the slice that bears each stamp, so a depth is one sum. Stamps rise with
every look-up; when they run out, those in use are numbered anew from 1 and the order stays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import jit
from slicesim.decide import SliceSizes
from slicesim.policies import LSB, MSB
from slicesim.policies.slices import BoolArray, FloatArray, IntArray

#: Depth of a slice that is not in the stack: it misses at every size. No cache is as large.
COLD = np.iinfo(np.int64).max

#: Stands in place of a depth where an expert does not request its LSB.
NOT_REQUESTED = -1

#: Stamps per slice before they are numbered anew; more of them cost memory, fewer cost time.
_STAMPS_PER_SLICE = 4


class RecencyStack(NamedTuple):
    """The stack, and what the compiled code writes to; entries are numbered as in SliceState.

    size_bytes, stamp (0: not in the stack): int64 [entries]; tree: int64 [stamps + 1], stamps being a power of two;
    owner: int64 [stamps + 1], the last entry that was given each stamp; clock: (last stamp, bytes in the stack);
    slots: int64 [top_k], scratch.
    """

    size_bytes: IntArray
    stamp: IntArray
    tree: IntArray
    owner: IntArray
    clock: IntArray
    slots: IntArray

    @classmethod
    def empty(cls, sizes: SliceSizes, experts: int, top_k: int) -> RecencyStack:
        """Return a stack in which every slice is cold."""
        size = np.empty((len(sizes.msb_bytes), experts, 2), dtype=np.int64)
        size[:, :, MSB] = sizes.msb_bytes[:, None]
        size[:, :, LSB] = sizes.lsb_bytes[:, None]
        stamps = 1 << (_STAMPS_PER_SLICE * size.size - 1).bit_length()
        tree, owner = np.zeros((2, stamps + 1), dtype=np.int64)
        return cls(
            size.reshape(-1),
            np.zeros(size.size, np.int64),
            tree,
            owner,
            np.zeros(2, np.int64),
            np.zeros(top_k, np.int64),
        )

    def clear(self) -> None:
        """Make every slice cold."""
        for column in (self.stamp, self.tree, self.clock):
            column[:] = 0

    def decode(self, ids: NDArray[np.int32], scores: FloatArray, critical: BoolArray, depths: IntArray) -> None:
        """Take decode tokens through the stack, batch by batch, in falling order of score.

        ids, scores, critical: [tokens, layers, top_k]; depths: int64 [tokens, layers, top_k, 2], filled in: the depth
        in bytes of each requested slice when its batch began, itself included.
        """
        _decode(self, ids, scores, critical, depths)

    def stream(self, layer: int, entries: IntArray) -> IntArray:
        """Look up what a layer of a prompt requests, in this order; return the depths in bytes.

        Here only a prompt that meets an empty cache may come: every look-up is cold.
        """
        _touch_all(self, entries)
        return np.full(len(entries), COLD)


# What follows is compiled, and allocates nothing.


@jit
def _decode(
    stack: RecencyStack, ids: NDArray[np.int32], scores: FloatArray, critical: BoolArray, depths: IntArray
) -> None:
    count, layers, top_k = ids.shape
    per_layer = len(stack.stamp) // layers
    for token in range(count):
        for layer in range(layers):
            sort_slots(stack.slots, scores[token, layer])
            for slot in range(top_k):
                entry = layer * per_layer + 2 * ids[token, layer, slot]
                depths[token, layer, slot, MSB] = _depth(stack, entry)
                wants = critical[token, layer, slot]
                depths[token, layer, slot, LSB] = _depth(stack, entry + 1) if wants else NOT_REQUESTED
            for slot in stack.slots:
                entry = layer * per_layer + 2 * ids[token, layer, slot]
                if critical[token, layer, slot]:
                    _touch(stack, entry + 1)
                _touch(stack, entry)


@jit
def _touch_all(stack: RecencyStack, entries: IntArray) -> None:
    for entry in entries:
        _touch(stack, entry)


@jit
def sort_slots(slots: IntArray, scores: FloatArray) -> None:
    """Order slots by falling score; equal scores keep slot order."""
    for slot in range(len(scores)):
        place = slot
        while place > 0 and scores[slots[place - 1]] < scores[slot]:
            slots[place] = slots[place - 1]
            place -= 1
        slots[place] = slot


@jit
def _depth(stack: RecencyStack, entry: int) -> int:
    stamp = stack.stamp[entry]
    if stamp == 0:
        return COLD
    below, node = 0, stamp - 1
    while node > 0:
        below += stack.tree[node]
        node &= node - 1
    depth: int = stack.clock[1] - below
    return depth


@jit
def _touch(stack: RecencyStack, entry: int) -> None:
    size = stack.size_bytes[entry]
    if stack.clock[0] == len(stack.tree) - 1:
        _number_anew(stack)
    if stack.stamp[entry] == 0:
        stack.clock[1] += size
    else:
        _add(stack.tree, stack.stamp[entry], -size)
    stack.clock[0] += 1
    stack.stamp[entry] = stack.clock[0]
    stack.owner[stack.clock[0]] = entry
    _add(stack.tree, stack.clock[0], size)


@jit
def _add(tree: IntArray, stamp: int, size: int) -> None:
    while stamp < len(tree):
        tree[stamp] += size
        stamp += stamp & -stamp


@jit
def _number_anew(stack: RecencyStack) -> None:
    last, tree = 0, stack.tree
    for stamp in range(1, len(tree)):
        tree[stamp] = 0
        entry = stack.owner[stamp]
        if stack.stamp[entry] == stamp:
            last += 1
            stack.stamp[entry] = last
            stack.owner[last] = entry
            tree[last] = stack.size_bytes[entry]
    stack.clock[0] = last
    for stamp in range(1, len(tree)):  # every node hands its sum to the one above it
        above = stamp + (stamp & -stamp)
        if above < len(tree):
            tree[above] += tree[stamp]
