"""The state of one replay, and what can be done with it: begin a request, take a prompt, serve decode batches.

Two drive it: ``Decision`` goes through a trace, ``Stepper`` follows a model that is running.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import NumbaError, rule
from slicesim.decide.cache import evict_all, eviction_score, make_room
from slicesim.decide.decode import SLOT, SPREAD, Tokens, serve
from slicesim.decide.demand import DecodeDemand, PrefillDemand, SliceSizes
from slicesim.decide.future import Future
from slicesim.decide.ledger import Ledger
from slicesim.decide.order import Order, Outside, Queues, order_of, rebuild_order
from slicesim.decide.prefill import PromptCounts, stream_prompt
from slicesim.errors import UserError
from slicesim.policies import LSB, MSB, Policy, Prefetch, SliceState
from slicesim.policies.eviction import Eviction
from slicesim.policies.prefetch import GUESS, TALLY, ReadAhead
from slicesim.policies.slices import FloatArray
from slicesim.trace.gate import gate_scores
from slicesim.trace.table import Trace


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


class Plane:
    """All state of one replay lives here; two replays never share anything.

    future: what offline strategies know; None where the policy has none, or nothing is known.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        header, policy = request.trace.header, request.policy
        self.layers, self.experts, self.top_k = len(header.layers), header.experts, header.top_k
        self.state = _empty_cache(request, self.layers, self.experts)
        self.rng = np.random.default_rng(request.seed)
        self._draw()
        self.future: Future | None = None
        self.spreads = np.zeros(self.layers, dtype=SPREAD)
        self.ledger = Ledger.of(policy.constraint, policy.routing.first_strength)
        self.slots = (np.zeros(header.top_k, dtype=SLOT), np.zeros(self.experts, dtype=np.bool_))
        self.prefetch = LookAhead.of(policy.prefetch, self.layers, self.experts, header.top_k, request.seed)
        depth, objects = policy.prefetch.layers_ahead, 1 + bool(request.sizes.lsb_bits)
        least = int(self.state.size_bytes[self.state.size_bytes > 0].min())
        self.most_prefetches = min(depth * objects * self.experts, self.prefetch.budget_bytes // least) if depth else 0
        self.routing = rule(policy.routing, "select") if policy.routing.reroutes else None
        self.order, self.eviction = _order(self.state, policy.eviction)
        self.score = eviction_score(self.state, policy.eviction)

    @property
    def is_compiled(self) -> bool:
        """Whether it runs without Python, so that another thread can be busy meanwhile."""
        return not isinstance(self.order, Outside)

    @property
    def sees_logits(self) -> bool:
        """Whether decisions follow from the scores of experts beyond the top-k, where those are known."""
        policy = self.request.policy
        return policy.routing.reroutes or self.ledger.denies_msb or policy.prefetch.sees_logits

    def begin_request(self) -> None:
        """Forget what counts for a request alone."""
        self.ledger.begin_request()
        self.prefetch.begin_request(self.request.policy.prefetch)
        if self.request.reset_each_request:
            evict_all(self.state.slices, self.state.caches, np.flatnonzero(self.state.resident))
            self._rebuild_order()

    def count(self, prompt: PromptCounts, ids: NDArray[np.int32], scores: FloatArray) -> None:
        """Enter prompt tokens, [tokens, layers, top_k]."""
        prompt.add(ids, scores, self.request.policy.precision.critical(scores))

    def stream(self, prompt: PromptCounts, request: int) -> PrefillDemand:
        """Take one whole prompt through the cache, and hand over to decode."""
        self._draw()
        demand = stream_prompt(self.state, self.request.policy, prompt, request, self.future)
        self._rebuild_order()
        return demand

    def serve(self, first: int, stop: int, tokens: Tokens, demand: DecodeDemand) -> int:
        """Serve the batches from ``first`` up to ``stop`` of a table of tokens; return the next one's number.

        It may stop early (see ``decode.serve``): call it again until all is done.
        """
        policy, state = self.request.policy, self.state
        cache = (state.slices, state.caches, state.clock, self.order, self.eviction)
        fixed = (self.routing, self.spreads, *self.ledger, self.future, *self.slots, *self.prefetch)
        with _faults_of_key(policy.eviction):
            done: int = serve(first, stop, tokens, policy.fetch.lsb, *cache, *fixed, demand)
        if isinstance(self.order, Outside):
            self._make_room(done - 1, demand)
        return done

    def tokens(self, ids: NDArray[np.int32], scores: FloatArray, logits: NDArray[np.float32] | None) -> Tokens:
        """Return what the router asked for as the batch loop wants it. ids, scores: [tokens, layers, top_k]."""
        policy, renormalised = self.request.policy, self.request.trace.header.score_kind == "renormalised"
        critical = policy.precision.critical(scores)
        if logits is None or not self.sees_logits:
            nothing = np.zeros((0, 1, 1))
            return Tokens(ids, scores, critical, nothing.astype(np.float32), nothing, nothing.astype(np.bool_))
        all_scores = gate_scores(logits, ids, renormalised)
        return Tokens(ids, scores, critical, logits, all_scores, policy.precision.critical(all_scores))

    def _rebuild_order(self) -> None:
        with _faults_of_key(self.request.policy.eviction):
            rebuild_order(self.order, self.eviction, self.state)

    def _draw(self) -> None:
        self.state.slices["priority"] = self.rng.random(len(self.state.slices))

    def _make_room(self, batch: int, demand: DecodeDemand) -> None:
        """Let a strategy that is not compiled choose who leaves."""
        token, layer = batch // self.layers, batch % self.layers
        make_room(self.state, np.flatnonzero(self.state.last_use > self.state.clock[1]), self.score)
        demand.resident_bytes[token, layer] = self.state.used_bytes.sum()


#: Methods of a prefetch strategy that are compiled.
_HOOKS = ("guess", "learn", "reach")


def _check_hooks(cls: type[ReadAhead]) -> None:
    """Refuse a user's strategy whose methods do not take what they are given."""
    for hook in _HOOKS:
        asked, taken = (list(signature(getattr(owner, hook)).parameters) for owner in (ReadAhead, cls))
        if len(asked) != len(taken):
            raise UserError(f"{cls.__name__}.{hook} must take ({', '.join(asked)})")


class LookAhead(NamedTuple):
    """What prefetching keeps: rule of the strategy, what was used last, scratch, bounds, what was learnt."""

    rule: object
    before: NDArray[Any]
    guesses: NDArray[Any]
    depth: int
    budget_bytes: int
    memory: Any
    tally: NDArray[Any]

    @classmethod
    def of(cls, strategy: Prefetch, layers: int, experts: int, top_k: int, seed: int) -> LookAhead:
        """Begin with nothing learnt."""
        before = np.zeros((layers, top_k), dtype=SLOT)
        before["expert"] = -1
        own, memory = None, np.zeros(0)
        if isinstance(strategy, ReadAhead):
            _check_hooks(type(strategy))
            own, memory = rule(strategy, *_HOOKS), strategy.memory(layers, experts, top_k, seed)
        return cls(
            own,
            before,
            np.zeros(2 * experts, dtype=GUESS),
            strategy.layers_ahead,
            strategy.budget_bytes,
            memory,
            np.zeros(1, dtype=TALLY),
        )

    def begin_request(self, strategy: Prefetch) -> None:
        """Forget what counts for a request alone."""
        self.before["expert"] = -1
        if isinstance(strategy, ReadAhead):
            strategy.begin_request(self.memory)


@contextmanager
def _faults_of_key(eviction: Eviction) -> Iterator[None]:
    """Turn what compiled code of a user may raise into one line."""
    try:
        yield
    except (ArithmeticError, ValueError) as error:
        raise UserError(f"{type(eviction).__name__}.key failed: {type(error).__name__}: {error}") from None


def _order(state: SliceState, eviction: Eviction) -> tuple[Order, object]:
    """Return the strategy as the batch loop wants it: compiled where it can be, else left to Python."""
    outside, cls = Outside(0), type(eviction)
    if cls.score is Eviction.score and cls.key is Eviction.key:
        raise UserError(f"{cls.__name__} must define key(entry, now) or score(state, entries)")
    if cls.score is not Eviction.score:
        return outside, outside
    order = order_of(state, eviction)
    compiled = outside if isinstance(order, Queues) else rule(eviction, "key", "tie")  # queues ask for no key
    try:
        with _faults_of_key(eviction):
            rebuild_order(order, compiled, state)
    except NumbaError:
        return outside, outside
    return order, compiled


def _empty_cache(request: Request, layers: int, experts: int) -> SliceState:
    size = np.empty((layers, experts, 2), dtype=np.int64)
    size[:, :, MSB] = request.sizes.msb_bytes[:, None]
    size[:, :, LSB] = request.sizes.lsb_bytes[:, None]
    capacity = request.capacity_bytes // (layers if request.scope_layers else 1)
    return SliceState.empty(size, capacity, per_layer=request.scope_layers)
