"""Factor analysis of router scores of which only the top-k is known (a censored sample, fitted by stochastic EM).

latent[token, expert of layer] = mean + loadings . factors[token] + noise. A token uses the experts with the largest
latents; those not chosen are known to lie below the chosen ones and are drawn anew in each round (Dempster, Laird and
Rubin 1977, section 4; factor analysis by EM: Rubin and Thayer 1982).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from slicesim.compiled import jit
from slicesim.trace.twin.recording import Array, Bools, Recording, Single

FACTORS = 64
ROUNDS = 30

#: Steps of EM go this much farther than it says (over-relaxation); most of the scores are unknown, so it is slow.
_STRETCH = 1.9

#: What an expert keeps of its own at least, as a share of its variance.
_LEAST_NOISE_SHARE = 0.02


class Factors(NamedTuple):
    """mean, noise (variances): float32 [all experts]; loadings: float32 [all experts, factors], columns at right
    angles and of length 1; factors: float64 [tokens, factors], in falling order of their variance."""

    mean: Single
    loadings: Single
    noise: Single
    factors: Array


def fit_factors(recording: Recording, rng: np.random.Generator, rounds: int = ROUNDS) -> Factors:
    """Fit at most 64 factors that all layers share."""
    tokens, layers, experts = recording.latents.shape
    size = layers * experts
    count = min(FACTORS, size // 4, tokens // 4)
    x = recording.latents.reshape(tokens, size).copy()
    known = recording.known.reshape(tokens, size)
    limits = lowest_known(recording.latents, recording.known)
    predicted = np.full((tokens, size), -math.log(experts) - 0.5, np.float32)
    noise = np.full(size, 1.2, np.float32)
    loadings = np.zeros((size, count), np.float32)
    for number in range(rounds):
        if not known.all():
            draw_unknown(x, known, limits, predicted, np.sqrt(noise), rng.random(x.shape, dtype=np.float32))
        mean = x.mean(axis=0)
        deviation = x - mean
        if number < 2:
            loadings, noise = _principal(deviation, count)
        new_loadings, new_noise, factors, spread = _step(deviation, loadings, noise)
        stretch = 1.0 if number < 3 else _STRETCH
        least = _LEAST_NOISE_SHARE * deviation.var(axis=0) + 1e-6
        noise = np.maximum(noise * (new_noise / noise) ** stretch, least).astype(np.float32)
        root = np.linalg.cholesky((factors.T @ factors + tokens * spread) / tokens)
        loadings = (new_loadings @ root).astype(np.float32)
        blur = np.linalg.cholesky(_solve_both(root, spread))
        unit = np.linalg.solve(root, factors.T).T + rng.standard_normal(factors.shape) @ blur.T
        predicted = mean + unit.astype(np.float32) @ loadings.T
    power, turn = np.linalg.eigh((loadings.T @ loadings).astype(np.float64))
    power, turn = np.maximum(power[::-1], 1e-12), turn[:, ::-1]
    columns = (loadings @ turn / np.sqrt(power)).astype(np.float32)
    return Factors(mean, columns, noise, unit @ turn * np.sqrt(power))


def _principal(deviation: Single, count: int) -> tuple[Single, Single]:
    """Start from the principal components of the correlation matrix."""
    covariance = deviation.T @ deviation / len(deviation)
    scale = np.sqrt(np.diag(covariance)) + 1e-6
    power, vectors = np.linalg.eigh((covariance / scale[:, None] / scale).astype(np.float64))
    strength = np.sqrt(np.maximum(power[::-1][:count] - 1, 0.01))
    loadings = (scale[:, None] * vectors[:, ::-1][:, :count] * strength).astype(np.float32)
    return loadings, np.maximum(scale**2 - (loadings**2).sum(axis=1), 0.05 * scale**2).astype(np.float32)


def _step(deviation: Single, loadings: Single, noise: Single) -> tuple[Single, Single, Array, Array]:
    """One round of EM: new loadings and noise, the factors' mean [tokens, factors] and their covariance."""
    weighted = loadings / noise[:, None]
    spread = np.linalg.inv(np.eye(loadings.shape[1]) + (loadings.T @ weighted).astype(np.float64))
    factors = deviation @ (weighted @ spread.astype(np.float32))
    moment = factors.T @ factors + len(deviation) * spread
    new = np.linalg.solve(moment, (factors.T @ deviation).astype(np.float64)).T.astype(np.float32)
    left = ((deviation - factors @ new.T) ** 2).mean(axis=0)
    left += np.einsum("nf,fg,ng->n", new, spread.astype(np.float32), new)
    return new, np.asarray(np.maximum(left, 1e-6), np.float32), factors.astype(np.float64), np.asarray(spread)


def _solve_both(root: Array, matrix: Array) -> Array:
    return np.asarray(np.linalg.solve(root, np.linalg.solve(root, matrix).T))


def lowest_known(latents: Single, known: Bools) -> Single:
    """Return the lowest known latent of each token and layer, [tokens, layers]: what is unknown lies below."""
    return np.asarray(np.where(known, latents, np.inf).min(axis=2), np.float32)


@jit
def draw_unknown(x, known, limits, predicted, deviation, uniform):
    """Draw what is not known from a normal distribution cut off at the limit of its token and layer, in place.

    x, known, predicted, uniform: [tokens, all experts]; limits: [tokens, layers]; deviation: [all experts].
    """
    tokens, size = x.shape
    experts = size // limits.shape[1]
    for token in range(tokens):
        for entry in range(size):
            if not known[token, entry]:
                limit = limits[token, entry // experts]
                below = 0.5 * math.erfc((predicted[token, entry] - limit) / deviation[entry] * 0.7071067811865476)
                if below < 1e-7:
                    x[token, entry] = limit - 1e-3
                else:
                    share = max(uniform[token, entry] * below, 1e-12)
                    x[token, entry] = predicted[token, entry] + deviation[entry] * normal_quantile(share)


@jit
def normal_quantile(p):
    """Return the standard normal quantile (Acklam's rational approximation, relative error below 1.2e-9)."""
    if p < 0.02425 or p > 0.97575:
        q = math.sqrt(-2 * math.log(min(p, 1 - p)))
        top = -7.784894002430293e-3 * q - 0.3223964580411365
        top = (top * q - 2.400758277161838) * q - 2.549732539343734
        top = (top * q + 4.374664141464968) * q + 2.938163982698783
        low = (7.784695709041462e-3 * q + 0.3224671290700398) * q + 2.445134137142996
        tail = top / ((low * q + 3.754408661907416) * q + 1)
        return tail if p < 0.5 else -tail
    q = p - 0.5
    r = q * q
    top = (-39.69683028665376 * r + 220.9460984245205) * r - 275.9285104469687
    top = ((top * r + 138.3577518672690) * r - 30.66479806614716) * r + 2.506628277459239
    low = (-54.47609879822406 * r + 161.5858368580409) * r - 155.6989798598866
    low = ((low * r + 66.80131188771972) * r - 13.28068155288572) * r + 1
    return top * q / low
