"""Routing: which experts a token is sent to."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from slicesim.compiled import register_jitable
from slicesim.policies.base import Strategy
from slicesim.policies.slices import BoolArray


class Routing(Strategy):
    """Base of all routing strategies. ``select`` is compiled into the batch loop.

    reroutes: sees logits and residency; steered: heeds ``strength``, which a constraint may move.
    """

    kind: ClassVar[str] = "routing"
    reroutes: ClassVar[bool] = False
    steered: ClassVar[bool] = True

    @property
    def first_strength(self) -> float:
        """Strength that a constraint takes over from."""
        return 0.0

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Mark the ``len(slots)`` experts to run in ``chosen``, which is all false.

        logits, chosen: [experts]; slots: records whose ``expert`` is the model's own top-k in falling order of score;
        slices: all slices, the MSB of this layer's expert e being ``slices[base + 2 * e]``; spread: running mean of
        max - min of the layer's logits; strength: lambda.
        """
        raise NotImplementedError(f"{type(self).__name__} must define select")


class Stock(Routing):
    """The model's own top-k."""

    name: ClassVar[str] = "stock"

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Take them as they are."""
        for slot in slots:
            chosen[slot.expert] = True


@register_jitable  # type: ignore[untyped-decorator]
def keep_best(slots: Any, top_j: int, chosen: Any) -> int:
    """Mark the ``top_j`` best originals, at most all; return how many."""
    forced = min(top_j, len(slots))
    for place in range(forced):
        chosen[slots[place].expert] = True
    return forced


class CachePrior(Routing):
    """Cache-Prior (arXiv 2412.00099): resident experts get a bonus in the ranking, gate weights stay the original.

    z' = z + strength x Delta x resident, Delta being the running mean of max(z) - min(z) of the layer;
    the ``top_j`` best originals are always kept. Strength 0 is stock routing.
    """

    name: ClassVar[str] = "cache-prior"
    reroutes: ClassVar[bool] = True
    strength: float = Field(0.0, ge=0, le=1, description="lambda; the bias constraint takes over from this value")
    top_j: int = Field(2, ge=0)

    @property
    def first_strength(self) -> float:
        """Lambda."""
        return self.strength

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Take the best by biased logit; equal ones by stock order, then by id."""
        forced = keep_best(slots, self.top_j, chosen)
        bonus = strength * spread
        for _ in range(forced, len(slots)):
            best, best_value = -1, 0.0
            for candidate in range(len(slots) + len(logits)):  # the stock experts first: they win at equal logits
                expert = slots[candidate].expert if candidate < len(slots) else candidate - len(slots)
                value = np.float64(logits[expert]) + bonus * slices[base + 2 * expert].resident
                if not chosen[expert] and (best < 0 or value > best_value):
                    best, best_value = expert, value
            chosen[best] = True


@register_jitable  # type: ignore[untyped-decorator]
def best_left(logits: Any, slices: Any, base: int, slots: Any, chosen: Any, resident_only: bool) -> int:
    """Return the expert with the highest logit that is not chosen yet, -1 for none; ties by stock order, then by id."""
    best = -1
    for candidate in range(len(slots) + len(logits)):  # the stock experts first: they win at equal logits
        expert = slots[candidate].expert if candidate < len(slots) else candidate - len(slots)
        may = not chosen[expert] and (not resident_only or slices[base + 2 * expert].resident)
        if may and (best < 0 or logits[expert] > logits[best]):
            best = expert
    return best


class MaxRank(Routing):
    """Max-rank (arXiv 2412.00099): the ``top_j`` best originals, then residents ranked within the ``max_rank`` best of
    all experts, then the best of the rest. Experts with equal logits share a rank. Gate weights stay the original.
    """

    name: ClassVar[str] = "max-rank"
    reroutes: ClassVar[bool] = True
    steered: ClassVar[bool] = False
    max_rank: int = Field(ge=1, description="M: the window of ranks that residents may come from")
    top_j: int = Field(2, ge=0)

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Take the best resident while fewer than ``max_rank`` experts are above it, else the best of all."""
        forced = keep_best(slots, self.top_j, chosen)
        for _ in range(forced, len(slots)):
            best = best_left(logits, slices, base, slots, chosen, True)
            above = 0
            for logit in logits:
                above += best >= 0 and logit > logits[best]
            if best < 0 or above >= self.max_rank:
                best = best_left(logits, slices, base, slots, chosen, False)
            chosen[best] = True


class Cumsum(Routing):
    """Cumsum (arXiv 2412.00099): as Max-rank, but the window is each token's own: the smallest set of best experts
    whose softmax probabilities reach ``mass``.
    """

    name: ClassVar[str] = "cumsum"
    reroutes: ClassVar[bool] = True
    steered: ClassVar[bool] = False
    mass: float = Field(gt=0, le=1, description="p: the share of the router's probability that the window holds")
    top_j: int = Field(2, ge=0)

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Take the best resident while the experts above it hold less than ``mass``, else the best of all."""
        forced = keep_best(slots, self.top_j, chosen)
        highest = np.float64(logits[0])
        for logit in logits:
            highest = max(highest, np.float64(logit))
        for _ in range(forced, len(slots)):
            best = best_left(logits, slices, base, slots, chosen, True)
            above = total = 0.0
            for logit in logits:
                weight = np.exp(np.float64(logit) - highest)
                total += weight
                above += weight if best >= 0 and logit > logits[best] else 0.0
            if best < 0 or above >= self.mass * total:
                best = best_left(logits, slices, base, slots, chosen, False)
            chosen[best] = True
