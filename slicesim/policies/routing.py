"""Routing: which experts a token is sent to."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from slicesim.policies.base import Strategy
from slicesim.policies.slices import BoolArray, IntArray


class Routing(Strategy):
    """Base of all routing strategies."""

    kind: ClassVar[str] = "routing"
    reroutes: ClassVar[bool] = False


class Stock(Routing):
    """The model's own top-k."""

    name: ClassVar[str] = "stock"


class CachePrior(Routing):
    """Cache-Prior (arXiv 2412.00099): resident experts get a bonus in the ranking, gate weights stay the original.

    z' = z + strength x Delta x resident, Delta being the running mean of max(z) - min(z) of the layer;
    the ``top_j`` best originals are always kept. Strength 0 is stock routing.
    """

    name: ClassVar[str] = "cache-prior"
    reroutes: ClassVar[bool] = True
    strength: float = Field(0.0, ge=0, le=1, description="lambda; the bias constraint takes over from this value")
    top_j: int = Field(2, ge=0)

    def select(
        self,
        logits: NDArray[np.float64],
        resident: BoolArray,
        stock: IntArray,
        spread: float,
        strength: float,
    ) -> IntArray:
        """Choose ``len(stock)`` experts.

        logits, resident: [experts]; stock: the original top-k in falling order of score; spread: Delta;
        strength: lambda. Returns expert ids in falling order of biased logit, equal ones by stock order.
        """
        biased = logits + strength * spread * resident
        biased[stock[: self.top_j]] = np.inf
        rank = np.full(len(logits), len(logits))
        rank[stock] = np.arange(len(stock))
        return np.lexsort((np.arange(len(logits)), rank, -biased))[: len(stock)]
