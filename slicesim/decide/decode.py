"""Decode: one batch per token and MoE layer - route, look up, deny, fetch, insert, evict (semantics, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.decide.cache import Score, evict_until_it_fits
from slicesim.decide.demand import (
    DROPPED,
    LSB_DENIED,
    LSB_FETCHED,
    LSB_HIT,
    LSB_REQUESTED,
    MSB_FETCHED,
    MSB_HIT,
    REROUTED,
    SUBSTITUTED,
)
from slicesim.decide.future import Future
from slicesim.decide.ledger import Ledger
from slicesim.policies import Policy
from slicesim.policies.routing import CachePrior
from slicesim.policies.slices import BoolArray, FloatArray, IntArray, SliceState


class Batch(NamedTuple):
    """One token's experts in one layer, slots in look-up order (falling gate score).

    experts, outcome: lists of ``top_k``; gates: scores of the experts that run; original_gates: those of the experts
    that the stock router chose for the slot.
    """

    experts: list[int]
    gates: list[float]
    original_gates: list[float]
    outcome: list[int]


@dataclass
class Router:
    """Cache-aware routing of one batch, with the running mean spread of each layer's logits (Delta)."""

    strategy: CachePrior
    renormalised: bool
    layers: int
    spread_sum: FloatArray = field(init=False)
    tokens: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.spread_sum = np.zeros(self.layers)
        self.tokens = np.zeros(self.layers, dtype=np.int64)

    def route(
        self, layer: int, stock: list[int], gates: list[float], logits: FloatArray, resident: BoolArray, strength: float
    ) -> Batch:
        """Choose the experts; a newcomer takes the slot of an original that it replaces, best with best."""
        self.spread_sum[layer] += logits.max() - logits.min()
        self.tokens[layer] += 1
        spread = self.spread_sum[layer] / self.tokens[layer]
        chosen = self.strategy.select(logits, resident, np.array(stock), spread, strength)
        staying = set(chosen.tolist())
        newcomers = sorted(staying.difference(stock), key=lambda e: (-logits[e], e))
        if not newcomers:
            return Batch(stock, gates, list(gates), [0] * len(stock))
        arriving = iter(newcomers)
        served = gate_scores(logits, stock, self.renormalised)
        slots = []
        for expert, gate in zip(stock, gates, strict=True):
            if expert in staying:
                slots.append((expert, gate, gate, 0))
            else:
                newcomer = next(arriving)
                slots.append((newcomer, float(served[newcomer]), gate, REROUTED))
        slots.sort(key=lambda slot: (-slot[1], slot[3]))  # at equal gates an original goes before a newcomer
        experts, own, original, outcome = map(list, zip(*slots, strict=True))
        return Batch(experts, own, original, outcome)


def gate_scores(logits: FloatArray, stock: list[int], renormalised: bool) -> FloatArray:
    """Return every expert's original gate score [experts], from the router's logits."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / (weights[stock].sum() if renormalised else weights.sum()))


@dataclass
class DecodeCache:
    """The cache during decode: state, policy, and the look-up, denial and replacement of one batch."""

    state: SliceState
    policy: Policy
    ledger: Ledger
    score: Score
    future: Future | None

    def serve(self, layer: int, batch: Batch, scores: FloatArray | None) -> None:
        """Serve one batch; its outcome (and, for substitutes, its experts and gates) are written into it.

        scores: original gate scores of all experts where the trace holds logits, for choosing substitutes.
        """
        base = 2 * self.state.experts * layer
        self._look_up(base, batch)
        self._deny(base, batch, scores)
        touched = self._insert(base, batch)
        if self.future is not None:
            self.future.advance(self.state)
        evict_until_it_fits(self.state, touched, self.score)

    def _look_up(self, base: int, batch: Batch) -> None:
        """Judge every request against what is resident now, before anything moves."""
        resident = self.state.resident
        sliced = self.policy.precision.objects == "slices"
        critical = self.policy.precision.critical(np.array(batch.gates)).tolist() if sliced else None
        for slot, expert in enumerate(batch.experts):
            entry = base + 2 * expert
            outcome = MSB_HIT if resident[entry] else MSB_FETCHED
            if critical is not None and critical[slot]:
                if resident[entry + 1]:
                    outcome |= LSB_REQUESTED | LSB_HIT
                else:
                    outcome |= LSB_REQUESTED | (LSB_FETCHED if self.policy.fetch.lsb else LSB_DENIED)
            batch.outcome[slot] |= outcome

    def _deny(self, base: int, batch: Batch, scores: FloatArray | None) -> None:
        """Deny requests until the budget holds: lowest-gate LSBs first, then lowest-gate missing experts."""
        outcome = batch.outcome
        misses, lookups = count_lookups(outcome)
        ledger = self.ledger
        if ledger.denies_lsb:
            for slot in range(len(outcome) - 1, -1, -1):
                if ledger.allows(misses, lookups):
                    break
                if outcome[slot] & LSB_FETCHED:
                    outcome[slot] ^= LSB_FETCHED | LSB_DENIED
                    misses, lookups = misses - 1, lookups - 1
        if ledger.denies_msb:
            for slot in range(len(outcome) - 1, 0, -1):
                if ledger.allows(misses, lookups):
                    break
                if outcome[slot] & MSB_FETCHED:
                    self._replace(base, batch, slot, scores)
                    misses, lookups = count_lookups(outcome)
        ledger.add(misses, lookups)

    def _replace(self, base: int, batch: Batch, slot: int, scores: FloatArray | None) -> None:
        """Put the best-scored resident expert in the slot, or drop the slot's expert."""
        resident = self.state.resident
        kept = batch.outcome[slot] & (LSB_REQUESTED | LSB_DENIED | REROUTED)
        substitute = None if scores is None else _best_resident(scores, resident, base, batch.experts)
        if substitute is None:
            batch.outcome[slot] = kept | DROPPED
            return
        gate = float(scores[substitute])  # type: ignore[index]
        batch.experts[slot] = substitute
        batch.gates[slot] = gate
        batch.outcome[slot] = kept | SUBSTITUTED | MSB_HIT
        if not kept & LSB_DENIED and self._wants_lsb(gate):
            lsb_there = resident[base + 2 * substitute + 1]
            batch.outcome[slot] |= LSB_REQUESTED | (LSB_HIT if lsb_there else LSB_DENIED)

    def _wants_lsb(self, gate: float) -> bool:
        precision = self.policy.precision
        return precision.objects == "slices" and bool(precision.critical(np.array([gate]))[0])

    def _insert(self, base: int, batch: Batch) -> list[int]:
        """Record the look-ups in order and insert what was fetched; return the slices that were looked up."""
        state = self.state
        touched = []
        for expert, gate, outcome in zip(batch.experts, batch.gates, batch.outcome, strict=True):
            if outcome & DROPPED:
                continue
            entry = base + 2 * expert
            if outcome & (LSB_HIT | LSB_FETCHED):  # stamped just before its MSB
                if outcome & LSB_FETCHED:
                    state.insert(entry + 1)
                state.touch(entry + 1, gate)
                touched.append(entry + 1)
            if outcome & MSB_FETCHED:
                state.insert(entry)
            state.touch(entry, gate)
            touched.append(entry)
        return touched


def count_lookups(outcome: list[int]) -> tuple[int, int]:
    """Return (misses, look-ups) of a batch's slices; denied requests are no look-ups."""
    misses = hits = 0
    for bits in outcome:
        misses += bool(bits & MSB_FETCHED) + bool(bits & LSB_FETCHED)
        hits += bool(bits & MSB_HIT) + bool(bits & LSB_HIT)
    return misses, misses + hits


def _best_resident(scores: FloatArray, resident: NDArray[np.bool_], base: int, taken: list[int]) -> int | None:
    free = resident[base : base + 2 * len(scores) : 2].copy()
    free[taken] = False
    candidates = np.flatnonzero(free)
    return int(candidates[np.argmax(scores[candidates])]) if len(candidates) else None
