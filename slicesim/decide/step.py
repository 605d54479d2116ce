"""Decide batch by batch, for a model that is running: what a layer's router says depends on the layers before it.

The plane is that of ``decide``. Where that one serves tables of tokens, this one keeps a table of one token, fills in
a layer when its router has spoken, and serves that batch alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.decide.decode import Tokens
from slicesim.decide.demand import DROPPED, LSB_FETCHED, LSB_HIT, DecodeDemand, PrefillDemand, has
from slicesim.decide.plane import Plane, Request
from slicesim.decide.prefill import PromptCounts
from slicesim.errors import UserError
from slicesim.policies.slices import BoolArray, FloatArray
from slicesim.trace.table import ABSENT

Ids = NDArray[np.int32]
Logits = NDArray[np.float32]


class Batch(NamedTuple):
    """What was decided for one token in one layer, in look-up order; all [top_k].

    expert: that runs (or was dropped); outcome: bits of ``decide.demand``; gate: original score of the slot's stock
    expert; served_gate: that of the expert; runs: not dropped; high: at high precision.
    """

    expert: NDArray[np.int32]
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
        for strategy in (policy.eviction, policy.prefetch):
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
        )
        self._demand: DecodeDemand | None = None
        self._layer = self.layers

    @property
    def _takes_logits(self) -> bool:
        return self.request.trace.header.has_logits and self.sees_logits

    def prompt_is_high(self, scores: FloatArray) -> BoolArray:
        """Return which selections of a prompt run at high precision; scores: any shape. What is resident is no matter:
        a prompt's experts are all streamed.
        """
        policy = self.request.policy
        if policy.precision.objects != "slices":
            return np.full(scores.shape, policy.precision.objects == "whole")
        return np.ones(scores.shape, dtype=np.bool_) if policy.prefill_high else policy.precision.critical(scores)

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
        _enter(self._table, self.tokens(ids[None, None], scores[None, None], beyond), layer)
        self.serve(layer, layer + 1, self._table, demand)
        self._layer = layer + 1
        outcome = demand.outcome[0, layer]
        whole = self.request.policy.precision.objects == "whole"
        return Batch(
            demand.expert[0, layer],
            outcome,
            demand.gate[0, layer],
            demand.served_gate[0, layer],
            runs=~has(outcome, DROPPED),
            high=has(outcome, LSB_HIT, LSB_FETCHED) | whole,
        )


def _enter(table: Tokens, own: Tokens, layer: int) -> None:
    """Copy a table of one layer to its place."""
    columns: list[tuple[NDArray[Any], NDArray[Any]]] = list(zip(table, own, strict=True))
    for column, row in columns:
        column[:, layer] = row[:, 0]
