"""Decide batch by batch, for a model that is running: what a layer's router says depends on the layers before it.

The plane is that of ``decide``. Where that one serves tables of tokens, this one keeps a table of one token, fills in
a layer when its router has spoken, and serves that batch alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.decide import judge
from slicesim.decide.decode import Tokens
from slicesim.decide.demand import DROPPED, LSB_FETCHED, LSB_HIT, DecodeDemand, PrefillDemand, has
from slicesim.decide.plane import Plane, Request
from slicesim.decide.prefill import PromptCounts
from slicesim.errors import UserError
from slicesim.policies.precision import Asked
from slicesim.policies.slices import BoolArray, FloatArray
from slicesim.trace.table import ABSENT

Ids = NDArray[np.int32]
Logits = NDArray[np.float32]


class Batch(NamedTuple):
    """What was decided for one token in one layer, in look-up order; all [top_k].

    expert: that runs (or was dropped); weighed_as: the expert whose gate weight it is served with; outcome: bits of
    ``decide.demand``; gate: original score of the slot's stock expert; served_gate: score of weighed_as; runs: not
    dropped; high: at high precision.
    """

    expert: NDArray[np.int32]
    weighed_as: NDArray[np.int32]
    outcome: NDArray[np.uint16]
    gate: FloatArray
    served_gate: FloatArray
    runs: BoolArray
    high: BoolArray


class Stepper(Plane):
    """Decisions for one token and layer at a time; the same as those of ``decide`` on the trace of what it was asked.

    request: its trace need hold no tokens, only the header. Raises UserError where the policy knows the future.
    """

    def __init__(self, request: Request) -> None:
        policy = request.policy
        for strategy in (policy.eviction, policy.prefetch, policy.precision, policy.constraint):
            if strategy.needs_future:
                name = strategy.name or type(strategy).__name__
                raise UserError(
                    f"policy {policy.label}: {strategy.kind} {name} knows the future, which a running model does not "
                    "tell; choose another one"
                )
        super().__init__(request)
        shape = (1, self.layers, self.top_k)
        beyond = (1, self.layers, self.experts) if self._takes_logits else (0, self.layers, 1)
        self._table = Tokens(
            np.full(shape, ABSENT, dtype=np.int32),
            np.zeros(shape),
            np.zeros(shape, dtype=np.bool_),
            np.zeros(beyond, dtype=np.float32),
            np.zeros(beyond),
            np.zeros(beyond, dtype=np.bool_),
            np.zeros(shape, dtype=np.bool_) if policy.precision.skips else None,
        )
        self._demand: DecodeDemand | None = None
        self._layer = self.layers

    @property
    def _takes_logits(self) -> bool:
        return self.request.trace.header.has_logits and self.sees_logits

    def prompt_is_high(self, layer: int, ids: Ids, scores: FloatArray) -> BoolArray:
        """Return which selections of a prompt run at high precision in a layer; ids, scores: [tokens, top_k].

        layer: its index. What is resident is no matter: a prompt's experts are all streamed.
        """
        policy = self.request.policy
        if policy.precision.objects != "slices":
            return np.full(scores.shape, policy.precision.objects == "whole")
        if policy.prefill_high:
            return np.ones(scores.shape, dtype=np.bool_)
        return judge.critical(policy.precision, _of_layer(layer, ids, scores))[:, 0]

    def prompt_runs(self, layer: int, ids: Ids, scores: FloatArray) -> BoolArray:
        """Return which selections of a prompt run at all, as ``prompt_is_high``."""
        policy = self.request.policy
        if policy.prefill_high or not policy.precision.skips:
            return np.ones(scores.shape, dtype=np.bool_)
        return ~judge.skipped(policy.precision, _of_layer(layer, ids, scores))[:, 0]

    def prompt(self, request: int, ids: Ids, scores: FloatArray) -> PrefillDemand:
        """Take a whole prompt through the cache, [tokens, layers, top_k], and hand over to decode."""
        counts = PromptCounts.empty(self.layers, self.experts)
        self.count(counts, ids, scores)
        return self.stream(counts, request)

    def begin_token(self, request: int, token: int, context: int) -> DecodeDemand:
        """Go to the next decode token; return its table, to be filled in by ``step``. context: see DecodeDemand."""
        if self._layer != self.layers:
            raise ValueError(f"layer {self._layer} of the token before was not served")
        own, number, length = (np.array([figure], dtype=np.int64) for figure in (request, token, context))
        self._demand = DecodeDemand.empty(own, number, length, self._table.ids.shape, self.most_prefetches)
        self._layer = 0
        for column, nothing in ((self._table.ids, ABSENT), (self._table.scores, 0), (self._table.critical, False)):
            column[:] = nothing  # a guess at coming layers is to find nothing there
        return self._demand

    def step(self, ids: Ids, scores: FloatArray, logits: Logits | None) -> Batch:
        """Decide the token's next layer. ids, scores: [top_k]; logits: [experts], or None where there are none."""
        demand, layer = self._demand, self._layer
        if demand is None or layer == self.layers:
            raise ValueError("begin a token first")
        beyond = logits[None, None] if logits is not None and self._takes_logits else None
        _enter(self._table, self.tokens(ids[None, None], scores[None, None], beyond, layer), layer)
        self.serve(layer, layer + 1, self._table, demand)
        self._layer = layer + 1
        outcome = demand.outcome[0, layer]
        policy = self.request.policy
        whole = policy.precision.objects == "whole"
        expert = weighed_as = demand.expert[0, layer]
        if policy.routing.substitutes:  # unless the budget has put in an expert, which brings its own score
            keeps = demand.served_gate[0, layer] == demand.gate[0, layer]
            weighed_as = np.where(keeps, ids[np.argsort(-scores, kind="stable")], expert)
        return Batch(
            expert,
            weighed_as,
            outcome,
            demand.gate[0, layer],
            demand.served_gate[0, layer],
            runs=~has(outcome, DROPPED),
            high=has(outcome, LSB_HIT, LSB_FETCHED) | whole,
        )


def _of_layer(layer: int, ids: Ids, scores: FloatArray) -> Asked:
    return Asked(ids[:, None], scores[:, None], layer)


def _enter(table: Tokens, own: Tokens, layer: int) -> None:
    """Copy a table of one layer to its place."""
    columns: list[tuple[NDArray[Any] | None, NDArray[Any] | None]] = list(zip(table, own, strict=True))
    for column, row in columns:
        if column is not None and row is not None:
            column[:, layer] = row[:, 0]
