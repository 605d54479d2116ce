"""The decision plane: trace in, demand tables out, in program order and without a clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from slicesim.decide.cache import eviction_score
from slicesim.decide.decode import Batch, DecodeCache, Router, gate_scores
from slicesim.decide.demand import DecodeDemand, Demand, SliceSizes
from slicesim.decide.future import Future
from slicesim.decide.ledger import Ledger
from slicesim.decide.prefill import PromptCounts, stream_prompt
from slicesim.policies import LSB, MSB, Policy, SliceState
from slicesim.policies.routing import CachePrior
from slicesim.policies.slices import IntArray
from slicesim.trace.split import Segment, segments
from slicesim.trace.table import PREFILL, Trace, TraceBlock

#: Decode tokens in one demand table; bounds the memory of everything behind it.
TOKENS_PER_TABLE = 256


@dataclass(frozen=True)
class Request:
    """What the decision plane is asked: trace, policy, cache. ``scope_layers``: one cache per layer."""

    trace: Trace
    split: str | float
    max_tokens: int | None
    policy: Policy
    sizes: SliceSizes
    capacity_bytes: int
    scope_layers: bool
    reset_each_request: bool
    seed: int


def decide(request: Request) -> Iterator[Demand]:
    """Yield one PrefillDemand per prompt and DecodeDemands of at most TOKENS_PER_TABLE tokens, in trace order."""
    return Decision(request).run()


class Decision:
    """One replay. All its state lives here; two replays never share anything."""

    def __init__(self, request: Request) -> None:
        self.request = request
        header, policy = request.trace.header, request.policy
        self.layers, self.experts = len(header.layers), header.experts
        self.state = _empty_cache(request, self.layers, self.experts)
        self.future = self._look_ahead() if policy.eviction.needs_future else None
        routing = policy.routing
        self.router = (
            Router(routing, header.score_kind == "renormalised", self.layers)
            if isinstance(routing, CachePrior)
            else None
        )
        self.ledger = Ledger(policy.constraint, routing.strength if isinstance(routing, CachePrior) else 0.0)
        score = eviction_score(self.state, policy.eviction)
        self.cache = DecodeCache(self.state, policy, self.ledger, score, self.future)

    def run(self) -> Iterator[Demand]:
        """Go through the trace once."""
        prompt: PromptCounts | None = None
        request = -1
        for segment in self._segments():
            if segment.starts_request:
                if prompt is not None:
                    yield self._stream(prompt, request)
                    prompt = None
                request = segment.request
                self._begin_request()
            if segment.phase == PREFILL:
                prompt = prompt or PromptCounts.empty(self.layers, self.experts)
                self._count(prompt, segment.block)
            else:
                if prompt is not None:
                    yield self._stream(prompt, request)
                    prompt = None
                for start in range(0, len(segment.block), TOKENS_PER_TABLE):
                    part = segment.block.part(start, start + TOKENS_PER_TABLE)
                    yield self._decode(part, segment.first_position + start)
        if prompt is not None:
            yield self._stream(prompt, request)

    def _segments(self) -> Iterator[Segment]:
        return segments(self.request.trace, self.request.split, self.request.max_tokens)

    def _begin_request(self) -> None:
        self.ledger.begin_request()
        if self.request.reset_each_request:
            for entry in np.flatnonzero(self.state.resident).tolist():
                if self.state.resident[entry]:
                    self.state.evict(entry)

    def _count(self, prompt: PromptCounts, block: TraceBlock) -> None:
        prompt.add(block.ids, block.scores, self.request.policy.precision.critical(block.scores))

    def _stream(self, prompt: PromptCounts, request: int) -> Demand:
        return stream_prompt(self.state, self.request.policy, prompt, request, self.future)

    def _decode(self, block: TraceBlock, first_position: int) -> DecodeDemand:
        order = np.argsort(-block.scores, axis=2, kind="stable")  # equal scores keep slot order
        stock = np.take_along_axis(block.ids, order, axis=2)
        gates = np.take_along_axis(block.scores, order, axis=2)
        shape = stock.shape
        expert = np.empty(shape, dtype=np.int32)
        outcome = np.empty(shape, dtype=np.uint16)
        gate, served_gate = np.empty(shape), np.empty(shape)
        resident_bytes = np.empty(shape[:2], dtype=np.int64)
        strength = np.empty(shape[0])
        for token, (token_experts, token_gates) in enumerate(zip(stock.tolist(), gates.tolist(), strict=True)):
            strength[token] = self.ledger.strength
            for layer, (experts, scores) in enumerate(zip(token_experts, token_gates, strict=True)):
                logits = None if block.logits is None else block.logits[token, layer].astype(np.float64)
                batch = self._route(layer, experts, scores, logits)
                scores_of_all = None
                if logits is not None and self.ledger.denies_msb:
                    scores_of_all = gate_scores(logits, experts, self._renormalised)
                self.cache.serve(layer, batch, scores_of_all)
                expert[token, layer] = batch.experts
                outcome[token, layer] = batch.outcome
                gate[token, layer] = batch.original_gates
                served_gate[token, layer] = batch.gates
                resident_bytes[token, layer] = self.state.used_bytes.sum()
            self.ledger.end_token()
        context = first_position + 1 + np.arange(shape[0], dtype=np.int64)
        return DecodeDemand(
            block.request, block.token, context, expert, outcome, gate, served_gate, resident_bytes, strength
        )

    def _route(self, layer: int, experts: list[int], gates: list[float], logits: np.ndarray | None) -> Batch:
        if self.router is None or logits is None:
            return Batch(experts, gates, list(gates), [0] * len(experts))
        base = 2 * self.experts * layer
        resident = self.state.resident[base : base + 2 * self.experts : 2]
        return self.router.route(layer, experts, gates, logits, resident, self.ledger.strength)

    @property
    def _renormalised(self) -> bool:
        return self.request.trace.header.score_kind == "renormalised"

    def _look_ahead(self) -> Future:
        """Go through the whole trace once for what offline strategies know."""
        return Future.of(self._requested_entries(), self.state)

    def _requested_entries(self) -> Iterator[IntArray]:
        policy = self.request.policy
        prompt: PromptCounts | None = None
        for segment in self._segments():
            if prompt is not None and (segment.starts_request or segment.phase != PREFILL):
                yield from (prompt.entries(layer, policy) for layer in range(self.layers))
                prompt = None
            if segment.phase == PREFILL:
                prompt = prompt or PromptCounts.empty(self.layers, self.experts)
                self._count(prompt, segment.block)
                continue
            critical = policy.precision.critical(segment.block.scores)
            base = 2 * (np.arange(self.layers)[:, None] * self.experts + segment.block.ids.astype(np.int64))
            for token, is_critical in zip(base, critical, strict=True):
                for entries, wants_lsb in zip(token, is_critical, strict=True):
                    yield np.concatenate((entries, entries[wants_lsb] + 1))
        if prompt is not None:
            yield from (prompt.entries(layer, policy) for layer in range(self.layers))


def _empty_cache(request: Request, layers: int, experts: int) -> SliceState:
    size = np.empty((layers, experts, 2), dtype=np.int64)
    size[:, :, MSB] = request.sizes.msb_bytes[:, None]
    size[:, :, LSB] = request.sizes.lsb_bytes[:, None]
    scope = np.repeat(np.arange(layers), 2 * experts) if request.scope_layers else np.zeros(size.size, np.int64)
    return SliceState(
        experts=experts,
        size_bytes=size.reshape(-1),
        group=scope,
        capacity_bytes=request.capacity_bytes // (layers if request.scope_layers else 1),
        rng=np.random.default_rng(request.seed),
    )
