"""From latents to logits: sharpness fitted to the recorded gate scores, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from slicesim.trace.twin.model import Twin
from slicesim.trace.twin.recording import Array, Single

#: Scores [tokens, layers, top_k], highest first, to the two figures [layers] that are matched.
Figures = Callable[[Array], tuple[Array, Array]]

_SCALES = (0.05, 12.0)
_STEEPNESS = (-0.8, 4.0)
_OUTER, _INNER = 10, 14


def softmax_figures(scores: Array) -> tuple[Array, Array]:
    """Return the mass of the top-k, and that of the first two."""
    return scores.sum(axis=2).mean(axis=0), scores[:, :, :2].sum(axis=2).mean(axis=0)


def relative_figures(scores: Array) -> tuple[Array, Array]:
    """Return 1 less the last of the top-k, and the first: for scores that sum to 1 over the top-k."""
    whole = scores / scores.sum(axis=2, keepdims=True)
    return 1 - whole[:, :, -1].mean(axis=0), whole[:, :, 0].mean(axis=0)


def fit_scores(twin: Twin, latents: Single, top_k: int, figures: Figures, wanted: tuple[Array, Array]) -> Twin:
    """Return the twin with scale and steepness such that both figures come out (bisection in bisection).

    latents: a sample [tokens, layers, experts]; wanted: two figures [layers]. The first rises with the scale, the
    second, at a given first one, with the steepness. The knee is the mean latent of the last expert chosen.
    """
    ordered = np.sort(latents, axis=2)[:, :, ::-1]
    twin = twin._replace(knee=ordered[:, :, top_k - 1].mean(axis=0).astype(np.float64))

    def both(scale: Array, steepness: Array) -> tuple[Array, Array]:
        logits = twin._replace(scale=scale, steepness=steepness).logits(ordered)
        weights = np.exp(logits - logits[:, :, :1])
        return figures((weights[:, :, :top_k] / weights.sum(axis=2, keepdims=True)).astype(np.float64))

    def fit_scale(steepness: Array) -> Array:
        low, high = (np.full(twin.layers, end) for end in _SCALES)
        for _ in range(_INNER):
            middle = np.sqrt(low * high)
            under = both(middle, steepness)[0] < wanted[0]
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return np.asarray(np.sqrt(low * high))

    low, high = (np.full(twin.layers, end) for end in _STEEPNESS)
    for _ in range(_OUTER):
        middle = (low + high) / 2
        under = both(fit_scale(middle), middle)[1] < wanted[1]
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    steepness = (low + high) / 2
    return twin._replace(scale=fit_scale(steepness), steepness=steepness)
