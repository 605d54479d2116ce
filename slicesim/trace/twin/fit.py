"""Fit a twin to recorded routing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from slicesim.trace.twin.calibrate import Texture, Wanted, calibrate, repeat_requests, top
from slicesim.trace.twin.factors import fit_factors
from slicesim.trace.twin.fill import Filling, fill_layers
from slicesim.trace.twin.kinds import find_kinds
from slicesim.trace.twin.model import Twin
from slicesim.trace.twin.recording import Array, Recording, reuse, segment_routing
from slicesim.trace.twin.scores import LEVELS, fit_scores, score_quantiles

#: Factors are cut off at so many standard deviations, these taken from the median deviation. A few odd tokens (the
#: first of a text) would else pass for a topic.
_FARTHEST = 5.0

#: Exponent on the popularity of filled layers' experts that is tried beside 1, and how far it may go.
_TRIED_SKEW, _SKEWS = 1.6, (0.5, 4.0)

#: Of the tokens drawn to fit the scores, every so many is looked at.
_EVERY = 5


def fit_twin(
    recording: Recording,
    seed: int = 0,
    filling: Filling | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Twin:
    """Fit a twin; the same recording and seed give the same one. filling: layers to make up between recorded ones."""
    top_k = recording.header.top_k
    rng = np.random.default_rng(seed)
    factors = fit_factors(recording, rng)
    states = _without_outliers(factors.factors)
    kinds = find_kinds(states, recording.lengths, rng)
    is_whole = recording.header.score_kind in ("softmax", "logits")
    rates, popularity = reuse(recording.ids, recording.lengths, recording.header.experts)
    wanted = Wanted(rates, popularity, score_quantiles(recording.scores), recording.scores.sum(axis=2).mean(axis=0))
    width, layers = factors.loadings.shape[1], len(rates[0])
    twin = Twin(
        mean=factors.mean.astype(np.float64),
        shift=np.zeros(len(factors.mean)),
        loadings=factors.loadings.astype(np.float64),
        noise=factors.noise.astype(np.float64),
        noise_factor=np.ones(layers),
        carry=np.full(layers, 0.1),
        centre=states.mean(axis=0),
        kinds=kinds.centres,
        followers=kinds.followers,
        share=kinds.share,
        attraction=np.array(0.6),
        lasting=np.zeros((width, 1)),
        brief=np.zeros(width),
        chance=np.zeros(width),
        answered=np.zeros(width),
        drift=np.zeros(width),
        slope=np.ones(layers),
        corners=np.zeros((layers, len(LEVELS))),
        heights=np.zeros((layers, len(LEVELS))),
    )
    texture = Texture.of(states, kinds, recording.lengths)

    def calibrated(twin: Twin, wanted: Wanted) -> Twin:
        return calibrate(twin, texture, wanted, recording.lengths, top_k, seed, progress)

    if filling is None:
        twin = calibrated(twin, wanted)
    else:
        twin, wanted = _fit_filled(twin, wanted, filling, calibrated, recording, seed)
    drawn = twin.draw_latents(repeat_requests(recording.lengths), np.random.default_rng(seed))
    sample = np.concatenate([latents[::_EVERY] for latents in drawn])
    return fit_scores(twin, sample, wanted.log_scores, wanted.mass if is_whole else None, top_k)


def _fit_filled(
    twin: Twin,
    wanted: Wanted,
    filling: Filling,
    calibrated: Callable[[Twin, Wanted], Twin],
    recording: Recording,
    seed: int,
) -> tuple[Twin, Wanted]:
    """Fill in layers and calibrate; where SRP(16) is known, skew the filled layers' popularity until it comes out."""

    def attempt(skew: float) -> tuple[Twin, Wanted, float]:
        filled, aims = fill_layers(twin, wanted, replace(filling, skew=skew), np.random.default_rng(seed))
        filled = calibrated(filled, aims)
        lengths = repeat_requests(recording.lengths)
        latents = filled.draw_latents(lengths, np.random.default_rng(seed))
        ids = np.concatenate([top(part, recording.header.top_k) for part in latents])
        return filled, aims, segment_routing(ids, lengths, filled.experts)

    low = attempt(1.0)
    if filling.srp_16 is None:
        return low[:2]
    high = attempt(_TRIED_SKEW)
    share = (filling.srp_16 - low[2]) / max(high[2] - low[2], 1e-6)
    return attempt(float(np.clip(1 + share * (_TRIED_SKEW - 1), *_SKEWS)))[:2]


def _without_outliers(factors: Array) -> Array:
    middle = np.median(factors, axis=0)
    reach = _FARTHEST * 1.4826 * np.median(np.abs(factors - middle), axis=0)
    return np.clip(factors, middle - reach, middle + reach)
