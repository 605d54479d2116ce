"""Decode: one batch per token and MoE layer - route, look up, deny, fetch, insert, evict (semantics, section 4).

One compiled loop for every policy. Strategies come in as columns (which selections are critical), as numbers (the
ledger) or as rules that are compiled into it (routing, eviction).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import inlined, jit
from slicesim.decide.cache import look_up
from slicesim.decide.choice import leave_out, route, skip
from slicesim.decide.demand import (
    DROPPED,
    LSB_AHEAD,
    LSB_DENIED,
    LSB_FETCHED,
    LSB_HIT,
    LSB_REQUESTED,
    MSB_AHEAD,
    MSB_FETCHED,
    MSB_HIT,
    REROUTED,
    SUBSTITUTED,
)
from slicesim.decide.future import advance
from slicesim.decide.ledger import active, allows, end_token, move_price
from slicesim.decide.observe import observe
from slicesim.decide.order import expect, looked_up, make_room, refresh, settle, stamped
from slicesim.decide.read_ahead import count_batch, learn, reach, read_ahead, requested_bytes
from slicesim.policies.slices import LAYER, LSB, MSB, TOKEN
from slicesim.trace.table import ABSENT


class Tokens(NamedTuple):
    """What the router asked for.

    ids, scores, critical: [tokens, layers, top_k]. Where the trace holds logits, and 0 tokens otherwise: logits,
    all_scores (original gate scores of all experts) and all_critical, [tokens, layers, experts]. skipped: as critical,
    which experts precision leaves out; None where it never does: the code for it is left out.
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    critical: NDArray[np.bool_]
    logits: NDArray[np.float32]
    all_scores: NDArray[np.float64]
    all_critical: NDArray[np.bool_]
    skipped: NDArray[np.bool_] | None


#: Cache-aware routing's memory of a layer: sum of the spreads of its logits, and how many there were.
SPREAD = np.dtype([("total", np.float64), ("tokens", np.int64)])

#: One of a batch's slots, in look-up order: falling gate score. gate: of the expert that runs; original: of the slot's
#: stock expert; critical: whether it wants its LSB.
SLOT = np.dtype(
    [
        ("gate", np.float64),
        ("original", np.float64),
        ("expert", np.int64),
        ("outcome", np.int64),
        ("critical", np.bool_),
    ],
    align=True,
)

# What follows is compiled, and allocates nothing. slices, caches, clock: of SliceState; slots: SLOT records [top_k].


@jit
def serve(
    first, stop, tokens, fetches_lsb, slices, caches, clock, order, rule, tables, routing, spreads, pairs, book, window,
    future, slots, chosen, prefetch, before, guesses, depth, budget_bytes, memory, tally, out,
):  # fmt: skip
    """Serve batches from number ``first`` up to ``stop``; return the next one's number.

    tokens: Tokens; order, rule, tables: who leaves, by which strategy, and what it learns in; routing: rule of the
    routing strategy; spreads: SPREAD [layers], pairs: int32 [layers, experts, experts] or [layers, 0, 0], of the
    routing; book, window: of the Ledger; future: Future; chosen: bool [experts], scratch; prefetch: rule of the
    prefetch strategy; before: SLOT [layers, top_k] used last in each layer; guesses: GUESS records [2 * experts],
    scratch; depth: layers looked ahead, at most; budget_bytes: of prefetches in a batch; memory: what the prefetch
    strategy learns in; tally: one TALLY; out: DecodeDemand. routing, future and prefetch are None where the policy does
    without: the code for them is left out.
    It stops early where Python must make room: the batch before the returned one has overfilled the cache.
    """
    _, layers, top_k = tokens.ids.shape
    book = book[0]
    entries = len(slices) // layers  # of a layer
    token, layer = first // layers, first % layers - 1
    for batch in range(first, stop):
        layer += 1
        if layer == layers:
            token, layer = token + 1, 0
        base = entries * layer
        clock[LAYER] = layer
        if layer == 0:
            clock[TOKEN] += 1
            out.strength[token] = book.strength
            out.step[token] = book.step
        _stock(slots, tokens.ids[token, layer], tokens.scores[token, layer], tokens.critical[token, layer])
        skip(slots, tokens.skipped, tokens.ids, token, layer)
        if routing is not None:
            route(
                routing, slots, tokens, token, layer, slices, base, spreads, book.strength, chosen, pairs,
                out.expert[token, layer],
            )  # fmt: skip
        _look_up(slots, slices, base, fetches_lsb)
        leave_out(slots, routing, tokens.skipped)
        observe(rule, tables, layer, slots, slices, base)
        if active(book):
            _deny(slots, tokens, token, layer, slices, base, book)
        if future is not None:
            advance(future, slices)
        begun = now = clock[1] = clock[0]
        cache, added = slices[base].group, 0
        expect(order, slices, cache, 2 * top_k)
        for index in range(top_k):
            slot = slots[index]
            outcome = slot.outcome
            out.expert[token, layer, index] = slot.expert
            out.outcome[token, layer, index] = outcome
            out.gate[token, layer, index] = slot.original
            out.served_gate[token, layer, index] = slot.gate
            if outcome & DROPPED:
                continue
            entry = base + 2 * slot.expert
            if outcome & (LSB_HIT | LSB_FETCHED):  # stamped just before its MSB
                now += 1
                added += look_up(slices, entry + 1, outcome & LSB_FETCHED != 0, now)
                stamped(order, slices, cache, LSB, entry + 1, now)
                looked_up(order, rule, slices, caches, clock, entry + 1, outcome & LSB_FETCHED != 0, now, slot.gate)
            now += 1
            added += look_up(slices, entry, outcome & MSB_FETCHED != 0, now)
            stamped(order, slices, cache, MSB, entry, now)
            looked_up(order, rule, slices, caches, clock, entry, outcome & MSB_FETCHED != 0, now, slot.gate)
        clock[0] = now
        caches[cache].used_bytes += added
        last = layer
        if prefetch is not None:
            count_batch(tally[0], slots)
            learn(prefetch, memory, layer, slots, before, tally[0])
            for index in range(top_k):
                before[layer, index] = slots[index]
            last = min(layer + min(depth, reach(prefetch, memory)), layers - 1)
            tally[0].read += read_ahead(
                prefetch, memory, tokens, token, layer, last, before, guesses, slices, caches, clock, order, begun,
                requested_bytes(slots, slices, base), budget_bytes, out.prefetched[token, layer],
            )  # fmt: skip
        refresh(order, rule, slices, now, base)
        done = True
        for place in range(layer, last + 1):
            filled = slices[entries * place].group
            if caches[filled].used_bytes > caches[filled].capacity_bytes:
                done = make_room(order, rule, slices, caches, clock, filled)
        if prefetch is not None:
            for entry in out.prefetched[token, layer]:
                if entry >= 0:
                    settle(order, rule, slices, clock[0], entry)
                    if slices[entry].kind == LSB:
                        settle(order, rule, slices, clock[0], entry - 1)
        for slot in slots:
            outcome = slot.outcome
            if not outcome & DROPPED:
                entry = base + 2 * slot.expert
                if outcome & (LSB_HIT | LSB_FETCHED):
                    settle(order, rule, slices, clock[0], entry + 1)
                settle(order, rule, slices, clock[0], entry)
        out.resident_bytes[token, layer] = _all_bytes(caches)
        if layer == layers - 1:
            end_token(book, window)
        if not done:
            return batch + 1
    return stop


@inlined
def _all_bytes(caches):
    total = 0
    for cache in caches:
        total += cache.used_bytes
    return total


@inlined
def _stock(slots, ids, scores, critical):
    """Sort the stock experts by falling score; equal scores keep slot order. A place is counted: no branch to guess."""
    for index in range(len(slots)):
        place = 0
        for other in range(index):
            place += scores[other] >= scores[index]
        for other in range(index + 1, len(slots)):
            place += scores[other] > scores[index]
        slot = slots[place]
        slot.expert = ids[index]
        slot.gate = scores[index]
        slot.original = scores[index]
        slot.critical = critical[index]
        slot.outcome = 0


@inlined
def _look_up(slots, slices, base, fetches_lsb):
    """Judge every request against what is resident now, before anything moves."""
    for slot in slots:
        entry = base + 2 * slot.expert
        outcome = _hit(slices, entry, MSB_HIT, MSB_AHEAD) if slices[entry].resident else MSB_FETCHED
        if slot.critical:
            if slices[entry + 1].resident:
                outcome |= LSB_REQUESTED | _hit(slices, entry + 1, LSB_HIT, LSB_AHEAD)
            else:
                outcome |= LSB_REQUESTED | (LSB_FETCHED if fetches_lsb else LSB_DENIED)
        slot.outcome |= outcome


@inlined
def _hit(slices, entry, hit, ahead):
    return hit | ahead if slices[entry].ahead else hit


@inlined
def count_lookups(slots):
    """Return (misses, look-ups) of a batch's slices; denied requests are no look-ups."""
    misses = hits = 0
    for slot in slots:
        outcome = slot.outcome
        misses += (outcome & MSB_FETCHED != 0) + (outcome & LSB_FETCHED != 0)
        hits += (outcome & MSB_HIT != 0) + (outcome & LSB_HIT != 0)
    return misses, misses + hits


@inlined
def _deny(slots, tokens, token, layer, slices, base, book):
    """Deny what is below the price, and more until the budget holds: lowest-gate LSBs first, then missing experts."""
    misses, lookups = count_lookups(slots)
    if book.denies_lsb:
        for index in range(len(slots) - 1, -1, -1):
            if allows(book, misses, lookups) and not book.paces:
                break
            if slots[index].outcome & LSB_FETCHED:
                slots[index].outcome ^= LSB_FETCHED | LSB_DENIED
                misses, lookups = misses - 1, lookups - 1
    if book.denies_msb:
        for index in range(len(slots) - 1, 0, -1):
            if allows(book, misses, lookups) and slots[index].gate >= book.price:
                break
            if slots[index].outcome & MSB_FETCHED:
                _replace(slots, index, tokens, token, layer, slices, base)
                misses, lookups = count_lookups(slots)
    book.misses += misses
    book.lookups += lookups
    if book.paces:
        move_price(book, misses, lookups)


@jit
def _replace(slots, index, tokens, token, layer, slices, base):
    """Put the best-scored resident expert in the slot, or drop the slot's expert."""
    slot = slots[index]
    kept = slot.outcome & (LSB_REQUESTED | LSB_DENIED | REROUTED)
    best = -1
    if len(tokens.logits) > 0:
        scores = tokens.all_scores[token, layer]
        for expert in range(len(scores)):
            better = slices[base + 2 * expert].resident and (best < 0 or scores[expert] > scores[best])
            if better and not _holds(slots, expert):
                best = expert
    if best < 0:
        slot.outcome = kept | DROPPED
        return
    slot.expert = best
    slot.gate = tokens.all_scores[token, layer, best]
    entry = base + 2 * best
    slot.outcome = kept | SUBSTITUTED | _hit(slices, entry, MSB_HIT, MSB_AHEAD)
    if not kept & LSB_DENIED and tokens.all_critical[token, layer, best]:
        lsb = _hit(slices, entry + 1, LSB_HIT, LSB_AHEAD) if slices[entry + 1].resident else LSB_DENIED
        slot.outcome |= LSB_REQUESTED | lsb


@jit
def _holds(slots, expert):
    """Whether an expert runs in the batch; one that was dropped does not."""
    held = False
    for slot in slots:
        held |= (slot.expert == expert) & (slot.outcome & DROPPED == 0)
    return held


@jit
def observe_prompt(rule, tables, ids, scores, critical, slots, slices):
    """Let the eviction strategy learn from prompt tokens. ids, scores, critical: [tokens, layers, top_k]."""
    tokens, layers, _ = ids.shape
    for token in range(tokens):
        for layer in range(layers):
            if ids[token, layer, 0] != ABSENT:
                _stock(slots, ids[token, layer], scores[token, layer], critical[token, layer])
                observe(rule, tables, layer, slots, slices, len(slices) // layers * layer)
