"""Reading ahead in decode: what a prefetch strategy guesses of the coming layers, as far as budget and room allow.

Compiled into the batch loop; see ``decode.serve`` for the arguments, ``policies.prefetch`` for what strategies say.
"""

from __future__ import annotations

from slicesim.compiled import inlined, jit, overload
from slicesim.decide.cache import insert
from slicesim.decide.demand import DROPPED, LSB_AHEAD, LSB_FETCHED, LSB_HIT, MSB_AHEAD, MSB_FETCHED
from slicesim.decide.order import expect, stamped
from slicesim.policies.slices import LSB, MSB


def guess(self, memory, tokens, token, layer, ahead, before, guesses):
    """Enter the slices that the prefetch strategy would read ahead; return how many."""


@overload(guess)
def _guess(self, memory, tokens, token, layer, ahead, before, guesses):
    own = self.instance_class.compiled_guess
    return lambda self, memory, tokens, token, layer, ahead, before, guesses: own(
        self, memory, tokens, token, layer, ahead, before, guesses
    )


def learn(self, memory, layer, slots, before, tally):
    """Let the prefetch strategy take in a batch."""


@overload(learn)
def _learn(self, memory, layer, slots, before, tally):
    own = self.instance_class.compiled_learn
    return lambda self, memory, layer, slots, before, tally: own(self, memory, layer, slots, before, tally)


def reach(self, memory):
    """Return how many layers the prefetch strategy looks ahead now."""


@overload(reach)
def _reach(self, memory):
    own = self.instance_class.compiled_reach
    return lambda self, memory: own(self, memory)


@jit
def read_ahead(
    prefetch, memory, tokens, token, layer, last, before, guesses, slices, caches, clock, order, begun, requested_bytes,
    budget_bytes, out,
):  # fmt: skip
    """Insert the best-guessed missing slices of the coming layers, as far as budget and unprotected room allow.

    Returns how many.
    """
    count, left, kept_ahead = 0, budget_bytes, 0
    layer_slices = len(guesses)
    own = slices[layer_slices * layer].group
    for target in range(layer + 1, last + 1):
        base = layer_slices * target
        cache = slices[base].group
        if cache != own:
            requested_bytes, kept_ahead = 0, 0  # a cache for each layer
        room = caches[cache].capacity_bytes - requested_bytes - kept_ahead
        least = min(slices[base].size_bytes, slices[base + 1].size_bytes or slices[base].size_bytes)
        guessed = guess(prefetch, memory, tokens, token, target, target - layer, before, guesses)
        guessed = _missing(guesses, guessed, slices, base)
        while count < len(out) and least <= left:
            best, best_points = -1, 0.0
            for place in range(guessed):
                if guesses[place].points > best_points:
                    number = guesses[place].slice
                    if number % 2 == MSB or slices[base + number - 1].resident:  # an LSB follows its MSB
                        best, best_points = place, guesses[place].points
            if best < 0:
                break
            guesses[best].points = 0.0
            entry = base + guesses[best].slice
            size = slices[entry].size_bytes
            kept = size
            if slices[entry].kind == LSB and slices[entry - 1].last_use <= begun:  # its MSB is to stay with it
                kept += slices[entry - 1].size_bytes
            if slices[entry].resident or size > left or kept > room:
                continue
            left, room, kept_ahead = left - size, room - kept, kept_ahead + kept
            expect(order, slices, cache, 2)
            insert(slices, caches, clock, entry)
            slices[entry].ahead = True
            for read in range(entry, entry - slices[entry].kind - 1, -1):
                clock[0] += 1
                slices[read].last_use = clock[0]
                stamped(order, slices, cache, slices[read].kind, read, clock[0])
            out[count] = entry
            count += 1
    return count


@inlined
def _missing(guesses, guessed, slices, base):
    """Keep the guesses of slices that could be read, in their order; return how many."""
    count = 0
    for place in range(guessed):
        points, number = guesses[place].points, guesses[place].slice
        entry = base + number
        if points > 0.0 and not slices[entry].resident and slices[entry].size_bytes > 0:
            guesses[count].points, guesses[count].slice = points, number
            count += 1
    return count


@inlined
def count_batch(tally, slots):
    """Count a batch's misses, and its first look-ups of slices read ahead."""
    for slot in slots:
        outcome = slot.outcome
        tally.used += (outcome & MSB_AHEAD != 0) + (outcome & LSB_AHEAD != 0)
        tally.missed += (outcome & MSB_FETCHED != 0) + (outcome & LSB_FETCHED != 0)


@jit
def requested_bytes(slots, slices, base):
    """Bytes of the slices that a batch has stamped."""
    total = 0
    for slot in slots:
        if not slot.outcome & DROPPED:
            entry = base + 2 * slot.expert
            lsb = slot.outcome & (LSB_HIT | LSB_FETCHED) != 0
            total += slices[entry].size_bytes + (slices[entry + 1].size_bytes if lsb else 0)
    return total
