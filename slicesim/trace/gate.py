"""Gate scores of all experts, from a router's logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gate_scores(logits: NDArray[np.float32], stock: NDArray[np.int32], renormalised: bool) -> NDArray[np.float64]:
    """Return every expert's original gate score, from the router's logits. logits: [..., experts]; stock: [..., top_k].

    Over all experts, or scaled so that those of the stock experts sum to 1.
    """
    z = logits.astype(np.float64)
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    chosen = np.take_along_axis(weights, stock.astype(np.int64), axis=-1) if renormalised else weights
    return np.asarray(weights / chosen.sum(axis=-1, keepdims=True))
