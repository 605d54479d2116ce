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
from slicesim.decide import judge
from slicesim.decide.cache import evict_all, eviction_score, make_room
from slicesim.decide.decode import SLOT, SPREAD, Tokens, observe_prompt, serve
from slicesim.decide.demand import DecodeDemand, PrefillDemand, SliceSizes
from slicesim.decide.future import Future
from slicesim.decide.ledger import Ledger
from slicesim.decide.order import Order, Outside, methods_of, order_of, rebuild_order
from slicesim.decide.prefill import PromptCounts, stream_prompt
from slicesim.errors import UserError
from slicesim.policies import LSB, MSB, Policy, Prefetch, Routing, SliceState
from slicesim.policies.eviction import Eviction
from slicesim.policies.linked import Lists
from slicesim.policies.precision import Asked
from slicesim.policies.prefetch import GUESS, TALLY, ReadAhead
from slicesim.policies.slices import BEGUN, REQUEST, TOKEN, FloatArray
from slicesim.trace.gate import gate_scores
from slicesim.trace.table import Trace


@dataclass(frozen=True)
class Request:
    """What the decision plane is asked: trace, policy, cache. ``scope_layers``: one cache per layer is asked for."""

    trace: Trace
    split: str | float
    max_tokens: int | None
    policy: Policy
    sizes: SliceSizes
    capacity_bytes: int
    scope_layers: bool
    reset_each_request: bool
    seed: int

    @property
    def per_layer(self) -> bool:
        """Whether each layer has a cache of its own: the user's wish, or the eviction strategy's nature."""
        return self.scope_layers or self.policy.eviction.partitioned


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
        self.routing = _routing_rule(policy.routing)
        pairs = self.experts if policy.routing.keeps_memory else 0
        self.pairs = np.zeros((self.layers, pairs, pairs), dtype=np.int32)
        self.order, self.eviction = _order(self.state, policy.eviction)
        self.tables = policy.eviction.tables(self.layers, self.experts)
        self.remembers = rule(policy.eviction, "remember") if policy.eviction.overrides("remember") else None
        self.score = eviction_score(self.state, policy.eviction)

    @property
    def is_compiled(self) -> bool:
        """Whether it runs without Python, so that another thread can be busy meanwhile."""
        return not isinstance(self.order, Outside)

    @property
    def sees_logits(self) -> bool:
        """Whether decisions follow from the scores of experts beyond the top-k, where those are known."""
        policy = self.request.policy
        return policy.routing.sees_logits or self.ledger.denies_msb or policy.prefetch.sees_logits

    def begin_request(self) -> None:
        """Forget what counts for a request alone."""
        self.ledger.begin_request()
        self.prefetch.begin_request(self.request.policy.prefetch)
        state, eviction = self.state, self.request.policy.eviction
        state.clock[REQUEST] = state.clock[TOKEN]
        if eviction.per_request:
            for statistic in ("count", "count_since_insert", "gate_mass", "memory"):
                state.slices[statistic] = 0
            state.slices["last_token"] = state.clock[TOKEN]
        resets = self.request.reset_each_request and not eviction.keeps_all
        if resets:
            evict_all(state.slices, state.caches, np.flatnonzero(state.resident))
        if resets or eviction.per_request:
            self._rebuild_order()

    def count(self, prompt: PromptCounts, ids: NDArray[np.int32], scores: FloatArray) -> None:
        """Enter prompt tokens, [tokens, layers, top_k]."""
        self.request.policy.routing.learn(self.pairs, ids)
        prompt.add(Asked(ids, scores), self.request.policy)
        eviction = self.request.policy.eviction
        if eviction.overrides("observe"):
            critical = judge.critical(self.request.policy.precision, Asked(ids, scores))
            with _faults_of_hooks(eviction):
                observe_prompt(self.eviction, self.tables, ids, scores, critical, self.slots[0], self.state.slices)

    def stream(self, prompt: PromptCounts, request: int) -> PrefillDemand:
        """Take one whole prompt through the cache, and hand over to decode."""
        self._draw()
        with _faults_of_hooks(self.request.policy.eviction):
            demand = stream_prompt(self.state, self.request.policy, prompt, request, self.future, self.remembers)
        self._rebuild_order()
        return demand

    def serve(self, first: int, stop: int, tokens: Tokens, demand: DecodeDemand) -> int:
        """Serve the batches from ``first`` up to ``stop`` of a table of tokens; return the next one's number.

        It may stop early (see ``decode.serve``): call it again until all is done.
        """
        policy, state = self.request.policy, self.state
        cache = (state.slices, state.caches, state.clock, self.order, self.eviction, self.tables)
        fixed = (self.routing, self.spreads, self.pairs, *self.ledger, self.future, *self.slots, *self.prefetch)
        with _faults_of_rules(policy), _faults_of_hooks(policy.eviction):
            done: int = serve(first, stop, tokens, policy.fetch.lsb, *cache, *fixed, demand)
        if isinstance(self.order, Outside):
            self._make_room(done - 1, demand)
        return done

    def tokens(
        self, ids: NDArray[np.int32], scores: FloatArray, logits: NDArray[np.float32] | None, first_layer: int = 0
    ) -> Tokens:
        """Return what the router asked for as the batch loop wants it.

        ids, scores: [tokens, layers, top_k]; first_layer: index of the first of the layers.
        """
        precision, renormalised = self.request.policy.precision, self.request.trace.header.score_kind == "renormalised"
        own = Asked(ids, scores, first_layer)
        critical = judge.critical(precision, own)
        skipped = judge.skipped(precision, own) if precision.skips else None
        if logits is None or not self.sees_logits:
            nothing = np.zeros((0, 1, 1))
            return Tokens(ids, scores, critical, nothing.astype(np.float32), nothing, nothing.astype(np.bool_), skipped)
        all_scores = gate_scores(logits, ids, renormalised)
        all_critical = judge.critical(precision, Asked.all_experts(all_scores, own))
        return Tokens(ids, scores, critical, logits, all_scores, all_critical, skipped)

    def _rebuild_order(self) -> None:
        with _faults_of_key(self.request.policy.eviction):
            rebuild_order(self.order, self.eviction, self.state)

    def _draw(self) -> None:
        self.state.slices["priority"] = self.rng.random(len(self.state.slices))

    def _make_room(self, batch: int, demand: DecodeDemand) -> None:
        """Let a strategy that is not compiled choose who leaves."""
        token, layer = batch // self.layers, batch % self.layers
        make_room(self.state, np.flatnonzero(self.state.last_use > self.state.clock[BEGUN]), self.score)
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


def _routing_rule(strategy: Routing) -> object:
    """Return the strategy as the batch loop wants it; None where the model's own choice stays as it is."""
    if not strategy.changes_choice:
        return None
    return rule(strategy, "select" if strategy.sees_logits else "amend")


@contextmanager
def _faults_of_key(eviction: Eviction) -> Iterator[None]:
    """Turn what compiled code of a user may raise into one line."""
    try:
        yield
    except (ArithmeticError, ValueError) as error:
        raise UserError(f"{type(eviction).__name__}.key failed: {type(error).__name__}: {error}") from None


@contextmanager
def _faults_of_hooks(eviction: Eviction) -> Iterator[None]:
    """The same, where code is met that must be compiled: there is no other way to run it."""
    try:
        with _faults_of_key(eviction):
            yield
    except NumbaError as error:
        if type(eviction).is_shipped():
            raise
        raise _not_compiled(eviction, error) from None


@contextmanager
def _faults_of_rules(policy: Policy) -> Iterator[None]:
    """Turn what a user's routing or prefetch strategy does beyond compiled code into one line."""
    try:
        yield
    except NumbaError as error:
        own = [cls for cls in (type(policy.routing), type(policy.prefetch)) if not cls.is_shipped()]
        if not own:
            raise
        names = " or ".join(cls.__name__ for cls in own)
        raise UserError(
            f"{names} cannot be compiled ({type(error).__name__}): write it with numbers, arrays and loops alone"
        ) from None


def _order(state: SliceState, eviction: Eviction) -> tuple[Order, object]:
    """Return the strategy as the batch loop wants it: compiled where it can be, else left to Python."""
    outside, cls = Outside(), type(eviction)
    if cls.score is Eviction.score and cls.key is Eviction.key:
        raise UserError(f"{cls.__name__} must define key(entry, now) or score(state, entries)")
    if cls.score is not Eviction.score:
        return outside, _rule(outside, eviction)
    order = order_of(state, eviction)
    compiled = _rule(order, eviction)
    try:
        with _faults_of_key(eviction):
            rebuild_order(order, compiled, state)
    except NumbaError as error:
        if isinstance(order, Lists):
            raise _not_compiled(eviction, error) from None
        return outside, _rule(outside, eviction)
    return order, compiled


def _rule(order: Order, eviction: Eviction) -> object:
    """Return what stands for the strategy; what is compiled for one that is asked nothing serves all such."""
    methods = methods_of(order, eviction)
    return rule(eviction, *methods) if methods else Outside()


def _not_compiled(eviction: Eviction, error: NumbaError) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{type(eviction).__name__}: numba does not take what must be compiled of it: {reason}")


def _empty_cache(request: Request, layers: int, experts: int) -> SliceState:
    size = np.empty((layers, experts, 2), dtype=np.int64)
    size[:, :, MSB] = request.sizes.msb_bytes[:, None]
    size[:, :, LSB] = request.sizes.lsb_bytes[:, None]
    if not request.policy.eviction.keeps_all:
        capacity = request.capacity_bytes // (layers if request.per_layer else 1)
        return SliceState.empty(size, capacity, per_layer=request.per_layer)
    state = SliceState.empty(size, int(size.sum()))
    state.resident[:] = state.size_bytes > 0
    state.caches["used_bytes"] = state.caches["capacity_bytes"]
    return state
