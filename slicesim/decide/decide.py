"""The decision plane: trace in, demand tables out, in program order and without a clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from slicesim.decide import judge
from slicesim.decide.demand import (
    LSB_FETCHED,
    LSB_HIT,
    MSB_FETCHED,
    MSB_HIT,
    DecodeDemand,
    Demand,
    PrefillDemand,
    has,
)
from slicesim.decide.faults import faults_of
from slicesim.decide.future import Future
from slicesim.decide.plane import Plane, Request
from slicesim.decide.prefill import PromptCounts
from slicesim.decide.residency import Residency
from slicesim.errors import UserError
from slicesim.policies import LSB, MSB
from slicesim.policies.constraint import NoConstraint
from slicesim.policies.precision import Asked
from slicesim.policies.slices import IntArray
from slicesim.trace.split import Segment, segments
from slicesim.trace.table import PREFILL, TraceBlock

#: Decode tokens in one demand table; bounds the memory of everything behind it.
TOKENS_PER_TABLE = 512


def decide(request: Request, residency: Residency | None = None) -> Decision:
    """Return the demand tables, to be gone through once.

    One PrefillDemand per prompt and DecodeDemands of at most TOKENS_PER_TABLE tokens, in trace order.
    residency: takes snapshots of the cache on the way.
    """
    return Decision(request, residency)


class Decision(Plane):
    """One replay of a trace; where its constraint must know the future, after as many before it as that asks for."""

    def __init__(self, request: Request, residency: Residency | None = None) -> None:
        if request.policy.constraint.needs_future:
            request = _with_strength(request, _strength(request))
        super().__init__(request)
        self.residency = residency
        self._last = (-1, -1)
        if request.policy.eviction.needs_future:
            self.future = Future.of(self._requested(), self.state)

    def __iter__(self) -> Iterator[Demand]:
        """Go through the trace."""
        return self.run()

    def run(self) -> Iterator[Demand]:
        """Go through the trace once."""
        prompt: PromptCounts | None = None
        request = -1
        for segment in self._segments():
            if segment.starts_request:
                if prompt is not None:
                    yield self._prefill(prompt, request)
                    prompt = None
                request = segment.request
                self.begin_request()
            if segment.phase == PREFILL:
                prompt = prompt or PromptCounts.empty(self.layers, self.experts)
                self.count(prompt, segment.block.ids, segment.block.scores)
            else:
                if prompt is not None:
                    yield self._prefill(prompt, request)
                    prompt = None
                for start in range(0, len(segment.block), TOKENS_PER_TABLE):
                    part = segment.block.part(start, start + TOKENS_PER_TABLE)
                    yield self._decode(part, segment.first_position + start)
        if prompt is not None:
            yield self._prefill(prompt, request)
        if self.residency is not None:
            self.residency.end(*self._last, self.state)

    def _prefill(self, prompt: PromptCounts, request: int) -> PrefillDemand:
        demand = self.stream(prompt, request)
        self._passed(1, request, -1)
        return demand

    def _passed(self, rows: int, request: int, token: int) -> None:
        if self.residency is not None:
            self._last = request, token
            self.residency.passed(rows, request, token, self.state)

    def _segments(self) -> Iterator[Segment]:
        return segments(self.request.trace, self.request.split, self.request.max_tokens)

    def _decode(self, block: TraceBlock, first_position: int) -> DecodeDemand:
        context = first_position + 1 + np.arange(len(block), dtype=np.int64)
        demand = DecodeDemand.empty(block.request, block.token, context, block.ids.shape, self.most_prefetches)
        tokens = self.tokens(block.ids, block.scores, block.logits)
        done = 0
        while done < len(block):
            # The loop is only interrupted where a snapshot is due.
            stop = len(block) if self.residency is None else min(len(block), done + self.residency.rows_left)
            batch = done * self.layers
            while batch < stop * self.layers:
                batch = self.serve(batch, stop * self.layers, tokens, demand)
            self._passed(stop - done, int(block.request[stop - 1]), int(block.token[stop - 1]))
            done = stop
        return demand

    def _requested(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Go through the whole trace once for what offline strategies know."""
        policy = self.request.policy
        prompt: PromptCounts | None = None
        for segment in self._segments():
            if prompt is not None and (segment.starts_request or segment.phase != PREFILL):
                yield from (_one_batch(prompt.entries(layer, policy)) for layer in range(self.layers))
                prompt = None
            if segment.phase == PREFILL:
                prompt = prompt or PromptCounts.empty(self.layers, self.experts)
                self.count(prompt, segment.block.ids, segment.block.scores)
                continue
            block = segment.block
            entries = np.empty((*block.ids.shape, 2), dtype=np.int64)
            entries[..., MSB] = 2 * (np.arange(self.layers)[:, None] * self.experts + block.ids)
            entries[..., LSB] = entries[..., MSB] + 1
            asked = Asked(block.ids, block.scores)
            wanted = np.ones(entries.shape, dtype=np.bool_)
            wanted[..., MSB] = ~judge.skipped(policy.precision, asked)
            wanted[..., LSB] = judge.critical(policy.precision, asked)
            yield entries[wanted], wanted.sum(axis=(2, 3)).reshape(-1)
        if prompt is not None:
            yield from (_one_batch(prompt.entries(layer, policy)) for layer in range(self.layers))


def _with_strength(request: Request, strength: float) -> Request:
    """Fix the strength of cache-aware routing, and constrain nothing."""
    policy = request.policy
    routing = policy.routing.model_copy(update={"strength": strength})
    return replace(request, policy=replace(policy, routing=routing, constraint=NoConstraint()))


def _strength(request: Request) -> float:
    """Ask the constraint, which may replay the trace."""
    constraint = request.policy.constraint
    with faults_of(constraint, "strength"):
        strength = constraint.strength(partial(_rate_at, request, constraint.counted_from))
    if not isinstance(strength, (int, float)) or not 0 <= strength <= 1:
        raise UserError(f"{type(constraint).__name__}.strength must return a number from 0 to 1")
    return float(strength)


def _rate_at(request: Request, start_step: int, strength: float) -> float:
    """Return the miss rate of slice requests at a strength, over decode steps from ``start_step`` of each request."""
    misses = lookups = 0
    for demand in Decision(_with_strength(request, strength)):
        if isinstance(demand, DecodeDemand):
            counted = demand.outcome[demand.step >= start_step]
            missed = sum(int(has(counted, bit).sum()) for bit in (MSB_FETCHED, LSB_FETCHED))
            lookups += missed + sum(int(has(counted, bit).sum()) for bit in (MSB_HIT, LSB_HIT))
            misses += missed
    return misses / lookups if lookups else 0.0


def _one_batch(entries: IntArray) -> tuple[IntArray, IntArray]:
    return entries, np.array([len(entries)])
