"""Calibration: the twin is let loose, and its parts are moved until it reuses experts as the recording does.

Each round makes new tokens and compares reuse by lag and layer, and how often each expert is used. What follows the
token before at once (lag 1) is put right by ``carry``, the level at longer lags by the experts' own noise, the shape
over the lags by the context, popularity by the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.trace.twin.context import KEPT_BRIEFLY, LAGS, autocovariance, lasting_parts
from slicesim.trace.twin.kinds import Kinds
from slicesim.trace.twin.model import Twin
from slicesim.trace.twin.recording import LAGS_TOKENS, Array, Single, reuse

ROUNDS = 10
_LEAST_TOKENS = 12_000

#: Lags by which the context's attraction is set, and those whose mean sets the level.
_TOPIC = (LAGS >= 6) & (LAGS <= 32)
_LEVEL = slice(1, 6)

_LEAST_NOISE_FACTOR, _MOST_NOISE_FACTOR = 0.03, 6.0
_LEAST_CARRY, _MOST_CARRY = -0.3, 0.8


class Wanted(NamedTuple):
    """What the twin is to show: reuse [lags, layers], popularity [layers, experts] (uses per token), quantiles of the
    chosen experts' log scores [layers, levels], mass of the top-k [layers]."""

    reuse: Array
    popularity: Array
    log_scores: Array
    mass: Array


class Texture(NamedTuple):
    """What the recorded factors show: autocovariance [LAGS, factors] of the factors and of their kinds' centres,
    pairs [LAGS], variance [factors]."""

    whole: Array
    of_kinds: Array
    pairs: Array
    variance: Array

    @classmethod
    def of(cls, factors: Array, kinds: Kinds, lengths: Sequence[int]) -> Texture:
        """Measure."""
        centred = kinds.centres[kinds.of_token] - factors.mean(axis=0)
        whole, pairs = autocovariance(factors - factors.mean(axis=0), lengths)
        return cls(whole, autocovariance(centred, lengths)[0], pairs, factors.var(axis=0))


def repeat_requests(lengths: Sequence[int]) -> list[int]:
    """Return the requests as often as makes 12,000 tokens."""
    return list(lengths) * max(1, -(-_LEAST_TOKENS // sum(lengths)))


def calibrate(
    twin: Twin,
    texture: Texture,
    wanted: Wanted,
    lengths: Sequence[int],
    top_k: int,
    seed: int,
    progress: Callable[[], None],
) -> Twin:
    """Return the twin after ROUNDS rounds."""
    lengths = repeat_requests(lengths)
    bend = np.zeros(len(LAGS))
    chance_reuse = float((wanted.popularity**2).sum(axis=1).mean() / top_k)
    seen = ~np.isnan(wanted.reuse).any(axis=1)  # lags that some request is long enough for
    beyond_chance = np.where(seen, np.nan_to_num(wanted.reuse).mean(axis=1) - chance_reuse + 0.02, 1.0)
    for number in range(ROUNDS):
        twin = _settle(twin, texture, bend, lengths, seed, attract=number % 2 == 0)
        rng = np.random.default_rng((seed, number))
        chosen = [top(latents, top_k) for latents in twin.draw_latents(lengths, rng)]
        got, popularity = reuse(np.concatenate(chosen), lengths, twin.experts)
        gap = np.nan_to_num(wanted.reuse - got)
        level = gap[_LEVEL].mean(axis=0)
        pace = max(0.35, 1 - 0.1 * number)
        noise = twin.noise_factor * np.exp(-np.clip(16 * pace * level, -0.6, 0.6))
        carry = twin.carry + np.clip(3 * pace * (gap[0] - 1.1 * level), -0.1, 0.1)
        by_lag = gap.mean(axis=1)
        by_lag[0] = by_lag[1]
        shape = np.where(seen, (by_lag - by_lag[_LEVEL].mean()) / beyond_chance, 0.0)
        bend = np.clip(bend + 0.6 * pace * np.interp(np.log(LAGS), np.log(LAGS_TOKENS), shape), -1, 1)
        ratio = np.log((wanted.popularity + 0.003) / (popularity + 0.003)).reshape(-1)
        twin = twin._replace(
            noise_factor=np.clip(noise, _LEAST_NOISE_FACTOR, _MOST_NOISE_FACTOR),
            carry=np.clip(carry, _LEAST_CARRY, _MOST_CARRY),
            shift=twin.shift + 0.5 * ratio,
        )
        progress()
    return _settle(twin, texture, bend, lengths, seed, attract=True)


def top(latents: Single, top_k: int) -> NDArray[np.int32]:
    """Return the experts with the largest latents, in no order, [tokens, layers, top_k]."""
    return np.argpartition(-latents, top_k - 1, axis=2)[:, :, :top_k].astype(np.int32)


def _settle(twin: Twin, texture: Texture, bend: Array, lengths: Sequence[int], seed: int, *, attract: bool) -> Twin:
    """Give the context its variance, then find what the kinds do of their own and fill up the rest.

    bend: logarithm of a factor on the autocovariance at each lag; attract: find the attraction anew.
    """
    aim = texture.whole * np.exp(bend)[:, None]
    parts = lasting_parts(aim, texture.pairs, texture.variance)
    twin = twin._replace(lasting=parts[:, :-1])
    if attract:
        wanted = (texture.of_kinds.sum(axis=1) * np.exp(np.minimum(bend, 0)))[_TOPIC].mean()
        twin = _attract(twin, float(wanted), lengths, seed)
    context, centres = _walks(twin, lengths, seed)
    drift = centres.mean(axis=0)
    centres = centres - drift
    power = (context**2).mean(axis=0)
    answered = np.where(power > 1e-9, (centres * context).mean(axis=0) / np.maximum(power, 1e-9), 0.0)
    known = centres + (1 - answered) * context
    missing = aim - autocovariance(known, lengths)[0]
    left = np.maximum(texture.variance - known.var(axis=0), 0.0)
    near = LAGS <= 4
    decay = KEPT_BRIEFLY ** LAGS[near].astype(np.float64)
    weight = (texture.pairs[near] / max(texture.pairs.max(), 1) * decay)[:, None]
    brief = (weight * missing[near]).sum(axis=0) / (weight * decay[:, None]).sum()
    brief = np.clip(brief, 0.0, left)
    return twin._replace(answered=answered, drift=drift, brief=brief, chance=left - brief)


def _attract(twin: Twin, wanted: float, lengths: Sequence[int], seed: int) -> Twin:
    """Find, by bisection, the attraction at which the kinds' centres have the wanted autocovariance."""
    low, high = 0.0, 3.0
    for _ in range(7):
        middle = (low + high) / 2
        twin = twin._replace(attraction=np.array(middle))
        _, centres = _walks(twin, lengths, seed)
        covariance = autocovariance(centres - centres.mean(axis=0), lengths)[0].sum(axis=1)
        low, high = (middle, high) if covariance[_TOPIC].mean() < wanted else (low, middle)
    return twin._replace(attraction=np.array((low + high) / 2))


def _walks(twin: Twin, lengths: Sequence[int], seed: int) -> tuple[Array, Array]:
    """Draw context and centres of many requests."""
    rng = np.random.default_rng((seed, ROUNDS))
    drawn = [twin.draw_kinds(length, rng) for length in lengths]
    return np.concatenate([context for context, _ in drawn]), np.concatenate([centres for _, centres in drawn])
