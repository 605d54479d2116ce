"""What a text is about: parts of the factors that last, found from their autocovariance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slicesim.compiled import jit
from slicesim.trace.twin.recording import Array

#: Tokens between which autocovariance is measured.
LAGS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])

#: How much of a lasting part is left at the next token; before them stands what lasts a whole request.
KEPT = (0.99, 0.95, 0.80)

#: The same for the part that is gone after a token or two.
KEPT_BRIEFLY = 0.30

#: Share of a factor's variance that lasting parts may take.
_MOST = 0.9
_ROUNDS = 2000


def autocovariance(values: Array, lengths: Sequence[int]) -> tuple[Array, Array]:
    """Return the autocovariance of each column at LAGS, [lags, columns], and the pairs at each lag.

    Pairs lie inside requests; 0 stands where there are none. Columns have mean 0 over all.
    """
    request = np.repeat(np.arange(len(lengths)), lengths)
    products = np.zeros((len(LAGS), values.shape[1]))
    pairs = np.zeros(len(LAGS))
    for row, lag in enumerate(LAGS):
        if lag < len(values):
            same = request[lag:] == request[:-lag]
            pairs[row] = same.sum()
            if pairs[row]:
                products[row] = (values[lag:] * values[:-lag])[same].mean(axis=0)
    return products, pairs


def lasting_parts(covariance: Array, pairs: Array, variance: Array) -> Array:
    """Split variance over parts that last a request, and by KEPT, then KEPT_BRIEFLY: [columns, 1 + KEPT + 1].

    Least squares on the autocovariance under the condition that no part is negative (projected gradient).
    """
    lags = LAGS.astype(np.float64)
    decay = np.stack([np.ones(len(LAGS)), *(kept**lags for kept in (*KEPT, KEPT_BRIEFLY))], axis=1)
    weight = (pairs / max(pairs.max(), 1))[:, None]
    quadratic = (weight * decay).T @ decay
    linear = covariance.T @ (weight * decay)
    parts = np.repeat(0.1 * variance[:, None], decay.shape[1], axis=1)
    step = 1 / np.trace(quadratic)
    for _ in range(_ROUNDS):
        parts = np.maximum(parts - step * (parts @ quadratic - linear), 0.0)
    taken = parts.sum(axis=1)
    return np.asarray(parts * np.minimum(1.0, _MOST * variance / np.maximum(taken, 1e-12))[:, None])


def draw_context(tokens: int, parts: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw one request's context [tokens, columns], and the share of it that lasts long (all but the last part)."""
    columns = len(parts)
    context = np.repeat(rng.standard_normal((1, columns)) * np.sqrt(parts[:, 0]), tokens, axis=0)
    slow = context
    for place, kept in enumerate(KEPT, start=1):
        slow = context
        context = context + autoregressive(tokens, columns, kept, rng) * np.sqrt(parts[:, place])
    return context, slow


def autoregressive(tokens: int, columns: int, kept: float, rng: np.random.Generator) -> Array:
    """Draw columns of variance 1 of which ``kept`` is left at the next token."""
    values = rng.standard_normal((tokens, columns))
    _carry(values, kept)
    return values


@jit
def _carry(values, kept):
    fresh = np.sqrt(1 - kept * kept)
    for token in range(1, len(values)):
        for column in range(values.shape[1]):
            values[token, column] = kept * values[token - 1, column] + fresh * values[token, column]
