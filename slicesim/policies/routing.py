"""Routing: which experts a token is sent to."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from slicesim.policies.base import Strategy
from slicesim.policies.slices import BoolArray


class Routing(Strategy):
    """Base of all routing strategies. ``select`` is compiled into the batch loop."""

    kind: ClassVar[str] = "routing"
    reroutes: ClassVar[bool] = False

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
        forced = min(self.top_j, len(slots))
        for place in range(forced):
            chosen[slots[place].expert] = True
        bonus = strength * spread
        for _ in range(forced, len(slots)):
            best, best_value = -1, 0.0
            for candidate in range(len(slots) + len(logits)):  # the stock experts first: they win at equal logits
                expert = slots[candidate].expert if candidate < len(slots) else candidate - len(slots)
                value = np.float64(logits[expert]) + bonus * slices[base + 2 * expert].resident
                if not chosen[expert] and (best < 0 or value > best_value):
                    best, best_value = expert, value
            chosen[best] = True
