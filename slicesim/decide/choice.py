"""What runs instead of a token's own choice: experts that routing picks, replaces or drops, or that precision skips.

Compiled into the batch loop, each part only for policies that use it. slots: SLOT records of ``decode``.
"""

from __future__ import annotations

import numpy as np
from numba import types

from slicesim.compiled import inlined, jit, overload
from slicesim.decide.demand import DROPPED, REROUTED, SUBSTITUTED


def select(self, logits, slices, base, slots, spread, strength, chosen):
    """Mark the experts that the routing strategy chooses."""


@overload(select)
def _select(self, logits, slices, base, slots, spread, strength, chosen):
    own = self.instance_class.compiled_select
    return lambda self, logits, slices, base, slots, spread, strength, chosen: own(
        self, logits, slices, base, slots, spread, strength, chosen
    )


def amend(self, slots, slices, base, memory):
    """Drop or replace the experts that the routing strategy chooses to."""


@overload(amend)
def _amend(self, slots, slices, base, memory):
    own = self.instance_class.compiled_amend
    return lambda self, slots, slices, base, memory: own(self, slots, slices, base, memory)


def route(self, slots, tokens, token, layer, slices, base, spreads, strength, chosen, memory, stock):
    """Let the routing strategy change the choice, by logits or slot by slot."""


@overload(route)
def _route(self, slots, tokens, token, layer, slices, base, spreads, strength, chosen, memory, stock):
    if hasattr(self.instance_class, "compiled_select"):
        return lambda self, slots, tokens, token, layer, slices, base, spreads, strength, chosen, memory, stock: (
            _choose(self, slots, tokens, token, layer, slices, base, spreads, strength, chosen)
        )
    return lambda self, slots, tokens, token, layer, slices, base, spreads, strength, chosen, memory, stock: (
        _go_through(self, slots, slices, base, memory[layer], stock)
    )


def skip(slots, skipped, ids, token, layer):
    """Drop the experts that precision leaves out."""


@overload(skip)
def _skip(slots, skipped, ids, token, layer):
    if isinstance(skipped, types.NoneType):
        return lambda slots, skipped, ids, token, layer: None
    return lambda slots, skipped, ids, token, layer: _drop_skipped(slots, skipped[token, layer], ids[token, layer])


def leave_out(slots, routing, skipped):
    """Take back what was found out about experts that are dropped."""


@overload(leave_out)
def _leave_out(slots, routing, skipped):
    if isinstance(routing, types.NoneType) and isinstance(skipped, types.NoneType):
        return lambda slots, routing, skipped: None
    return lambda slots, routing, skipped: _forget_dropped(slots)


@inlined
def _spread(logits):
    low = high = np.float64(logits[0])
    for logit in logits:
        low, high = min(low, np.float64(logit)), max(high, np.float64(logit))
    return high - low


@jit
def _choose(routing, slots, tokens, token, layer, slices, base, spreads, strength, chosen):
    """Let the strategy choose anew by the scores of all experts."""
    spreads[layer].total += _spread(tokens.logits[token, layer])
    spreads[layer].tokens += 1
    spread = spreads[layer].total / spreads[layer].tokens
    select(routing, tokens.logits[token, layer], slices, base, slots, spread, strength, chosen)
    _reroute(slots, tokens, token, layer, chosen)


@jit
def _go_through(routing, slots, slices, base, memory, stock):
    """Let the strategy drop or replace experts slot by slot; stock: scratch [top_k]."""
    for index in range(len(slots)):
        stock[index] = slots[index].expert
        if slots[index].outcome & DROPPED:
            slots[index].expert = -1
    amend(routing, slots, slices, base, memory)
    for index in range(len(slots)):
        slot = slots[index]
        if slot.expert < 0:
            slot.outcome = DROPPED
            slot.expert = stock[index]
        elif slot.expert != stock[index]:
            slot.outcome = SUBSTITUTED


@jit
def _drop_skipped(slots, skipped, ids):
    for index in range(len(ids)):
        if skipped[index]:
            for slot in slots:
                if slot.expert == ids[index]:
                    slot.outcome = DROPPED


@jit
def _forget_dropped(slots):
    for slot in slots:
        if slot.outcome & DROPPED:
            slot.outcome = DROPPED


@jit
def _reroute(slots, tokens, token, layer, chosen):
    """Newcomers take the slots of the originals that they replace, best with best; leaves ``chosen`` all false.

    Where there are fewer newcomers, the originals left over are dropped.
    """
    left = 0
    for slot in slots:
        if chosen[slot.expert]:
            chosen[slot.expert] = False  # what stays marked is new
        else:
            slot.outcome = REROUTED
            left += 1
    if left == 0:
        return
    logits = tokens.logits[token, layer]
    for slot in slots:
        if slot.outcome & REROUTED:
            newcomer = -1
            for expert in range(len(logits)):
                if chosen[expert] and (newcomer < 0 or logits[expert] > logits[newcomer]):
                    newcomer = expert
            if newcomer < 0:
                slot.outcome = DROPPED
                continue
            chosen[newcomer] = False
            slot.expert = newcomer
            slot.gate = tokens.all_scores[token, layer, newcomer]
            slot.critical = tokens.all_critical[token, layer, newcomer]
    for index in range(1, len(slots)):  # by falling gate; at equal gates an original goes before a newcomer
        place = index
        while place > 0 and _goes_before(slots[place], slots[place - 1]):
            _swap(slots, place)
            place -= 1


@jit
def _goes_before(a, b):
    return a.gate > b.gate or (a.gate == b.gate and a.outcome < b.outcome)


@jit
def _swap(slots, place):
    a, b = slots[place - 1], slots[place]
    a.gate, b.gate = b.gate, a.gate
    a.original, b.original = b.original, a.original
    a.expert, b.expert = b.expert, a.expert
    a.outcome, b.outcome = b.outcome, a.outcome
    a.critical, b.critical = b.critical, a.critical
