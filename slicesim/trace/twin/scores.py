"""From latents to logits: a rising function of each layer under which the gate scores are spread as recorded.

Latents of chosen experts are mapped quantile by quantile onto recorded log scores, in straight pieces; below the
lowest piece it goes on straight, at the slope that gives the top-k its recorded mass.
"""

from __future__ import annotations

import numpy as np

from slicesim.trace.twin.model import Twin
from slicesim.trace.twin.recording import Array, Single, log_of

#: Quantiles of the chosen experts' scores at which the pieces meet.
LEVELS = np.array([0.02, 0.1, 0.25, 0.5, 0.7, 0.85, 0.94, 0.98, 0.998])

_SLOPES = (0.02, 12.0)
_ROUNDS, _HALVINGS = 8, 20
_LEAST_RISE = 1e-3


def fit_scores(twin: Twin, latents: Single, wanted: Array, mass: Array | None, top_k: int) -> Twin:
    """Return the twin with its map from latents to logits.

    latents: a sample [tokens, layers, experts]; wanted: log scores of chosen experts at LEVELS [layers, levels];
    mass: of the top-k [layers], or None where scores are known relative to each other only: then the map goes on below
    at its own mean slope.
    """
    ordered = np.sort(latents, axis=2)[:, :, ::-1]
    corners = _quantiles(ordered[:, :, :top_k])
    corners = np.maximum.accumulate(corners + _LEAST_RISE * np.arange(len(LEVELS)), axis=1)
    heights = wanted.copy()
    twin = twin._replace(corners=corners, heights=_rising(heights))
    for _ in range(_ROUNDS):
        twin = twin._replace(heights=_rising(heights), slope=_mean_slope(corners, heights))
        if mass is not None:
            twin = twin._replace(slope=_fit_slope(twin, ordered, mass, top_k))
        got = _quantiles(log_scores(twin.logits(ordered), top_k, whole=mass is not None))
        heights = heights + wanted - got
    return twin


def log_scores(logits: Array | Single, top_k: int, *, whole: bool) -> Array:
    """Return log gate scores of the first ``top_k`` of logits in falling order; whole: out of all experts."""
    values = np.asarray(logits, np.float64)
    values = values - values[:, :, :1]
    norm = np.exp(values if whole else values[:, :, :top_k]).sum(axis=2, keepdims=True)
    return np.asarray(values[:, :, :top_k] - np.log(norm))


def score_quantiles(scores: Array) -> Array:
    """Return quantiles of recorded log scores [layers, levels]; scores: [tokens, layers, top_k]."""
    return _quantiles(log_of(scores))


def _quantiles(values: Array | Single) -> Array:
    layers = values.shape[1]
    by_layer = np.moveaxis(values, 1, 0).reshape(layers, -1).astype(np.float64)
    return np.asarray(np.quantile(by_layer, LEVELS, axis=1).T)


def _rising(heights: Array) -> Array:
    return np.asarray(np.maximum.accumulate(heights, axis=1) + _LEAST_RISE * np.arange(len(LEVELS)))


def _mean_slope(corners: Array, heights: Array) -> Array:
    return np.asarray(np.maximum((heights[:, -1] - heights[:, 0]) / (corners[:, -1] - corners[:, 0]), _SLOPES[0]))


def _fit_slope(twin: Twin, ordered: Single, mass: Array, top_k: int) -> Array:
    """Find the slope below by bisection: the steeper, the more mass has the top-k."""
    low, high = (np.full(twin.layers, end) for end in _SLOPES)
    for _ in range(_HALVINGS):
        middle = np.sqrt(low * high)
        logits = twin._replace(slope=middle).logits(ordered)
        under = np.exp(log_scores(logits, top_k, whole=True)).sum(axis=2).mean(axis=0) < mass
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return np.asarray(np.sqrt(low * high))
