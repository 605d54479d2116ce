"""A synthetic trace with full logits, from published statistics of routing. It is a stand-in, not a capture.

Every expert of every layer has a latent value of variance 1 that moves from token to token. It is the sum of
four parts: a static one (popularity, the same in all requests, and the request's topic), a slow and a fast
autoregressive one, and white noise. A token uses the experts with the largest values; how often it uses those
of an earlier token depends on the latent's autocorrelation alone, so published reuse gives the parts' shares.
A rising function turns values into logits. Layers and experts are independent of each other: nothing is to be
learnt here about prefetching across layers.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.errors import UserError
from slicesim.trace.profile import Profile, read_profile
from slicesim.trace.table import DECODE, PREFILL, MemoryTrace, TraceBlock, TraceHeader
from slicesim.version import __version__

#: Logits are multiples of this: it costs no fidelity, and files compress.
LOGIT_STEP = 1 / 64

_CALIBRATION_SEED, _CALIBRATION_TOKENS = 0, 10_000

Array = NDArray[np.float64]


class _Latent(NamedTuple):
    """Variance of each part, [layers]; what is left to 1 is white noise."""

    popularity: Array
    topic: Array
    slow: Array
    fast: Array

    @property
    def noise(self) -> Array:
        return 1 - self.popularity - self.topic - self.slow - self.fast


def synthesise(
    profile_path: Path, tokens: int, seed: int, requests: int = 1, prompt_fraction: float = 0.5
) -> MemoryTrace:
    """Make ``requests`` requests of ``tokens`` tokens each; the same arguments give the same trace.

    The first ``prompt_fraction`` of each request is prefill. Raises UserError for a profile that is not valid
    or that the generator cannot follow, and for arguments out of range.
    """
    for fault, wrong in (
        (f"--tokens: must be at least 1, is {tokens}", tokens < 1),
        (f"--requests: must be at least 1, is {requests}", requests < 1),
        (f"--seed: must not be negative, is {seed}", seed < 0),
        (f"--prompt-fraction: must lie in 0 to 1, is {prompt_fraction:g}", not 0 <= prompt_fraction <= 1),
    ):
        if wrong:
            raise UserError(fault)
    profile = read_profile(profile_path)
    latent, sharpness = _calibrate_latent(profile_path, profile), _calibrate_sharpness(profile)
    prompt = round(prompt_fraction * tokens)
    header = TraceHeader(
        model=profile.model.name,
        layers=profile.model.layers,
        experts=profile.model.experts,
        top_k=profile.model.top_k,
        score_kind="softmax",
        has_logits=True,
        synthetic=True,
        source=f"synthetic, made from published statistics ({profile.name}): {', '.join(_sources(profile))}",
        licence="Apache-2.0, as slicesim",
        tool_version=__version__,
        notes=f"slicesim trace synth {profile_path.name} --requests {requests} --tokens {tokens} "
        f"--prompt-fraction {prompt_fraction:g} --seed {seed}",
    )
    rng = np.random.default_rng(seed)
    popularity = _normal(rng, profile) * np.sqrt(latent.popularity)[:, None]
    phase = np.where(np.arange(tokens) < prompt, PREFILL, DECODE).astype(np.int8)
    blocks = []
    for request in range(requests):
        values = popularity + _walk(rng, profile, latent, tokens)
        smooth = sharpness * _spread(rng, profile, values.shape[:2]) * _steepen(values, profile)
        logits = np.round(smooth / LOGIT_STEP) * LOGIT_STEP
        ids, scores = _route(logits, header.top_k)
        whose = np.full(tokens, request, np.int64)
        number = np.arange(tokens, dtype=np.int64)
        blocks.append(TraceBlock(whose, number, phase, ids, scores, logits.astype(np.float32)))
    block = TraceBlock(*(np.concatenate(column) for column in zip(*blocks, strict=True)))
    return MemoryTrace(header, block, f"{profile.name}, seed {seed}")


def _sources(profile: Profile) -> list[str]:
    published = profile.published
    return [published.reuse_by_lag_tokens.source, published.score_mean_by_rank.source]


def _normal(rng: np.random.Generator, profile: Profile) -> Array:
    return rng.standard_normal((len(profile.model.layers), profile.model.experts))


def _walk(rng: np.random.Generator, profile: Profile, latent: _Latent, tokens: int) -> Array:
    """Return one request's latent values without popularity, [tokens, layers, experts]."""
    deviation = _Latent(*(np.sqrt(variance)[:, None] for variance in latent))
    noise = np.sqrt(latent.noise)[:, None]
    keep = (profile.generator.slow_correlation, profile.generator.fast_correlation)
    topic, slow, fast = (_normal(rng, profile) for _ in range(3))
    values = np.empty((tokens, *topic.shape))
    for token in range(tokens):
        values[token] = deviation.topic * topic + deviation.slow * slow + deviation.fast * fast
        values[token] += noise * _normal(rng, profile)
        slow, fast = (
            k * part + np.sqrt(1 - k * k) * _normal(rng, profile) for k, part in zip(keep, (slow, fast), strict=True)
        )
    return values


def _route(logits: Array, top_k: int) -> tuple[NDArray[np.int32], Array]:
    """Return the stock top-k (equal logits: the lower id first) and its softmax probabilities."""
    ids = np.argsort(-logits, axis=-1, kind="stable")[..., :top_k]
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return ids.astype(np.int32), np.take_along_axis(probabilities, ids, axis=-1)


def _calibrate_latent(path: Path, profile: Profile) -> _Latent:
    """Choose the parts' variances so that the published reuse comes out: by lag, and at lag 1 by layer."""
    correlations, reuse = _reuse_of_correlation(profile.model.experts, profile.model.top_k)
    published, generator = profile.published, profile.generator
    lags = np.array(published.reuse_by_lag_tokens.at)
    wanted = np.interp(published.reuse_by_lag_tokens.values, reuse, correlations)
    per_lag = np.array([1.0, generator.slow_correlation, generator.fast_correlation]) ** lags[:, None]
    static, slow, fast = np.linalg.lstsq(per_lag, wanted, rcond=None)[0]
    at_lag_1 = static + slow * generator.slow_correlation + fast * generator.fast_correlation
    layer = np.interp(published.reuse_lag_1_by_layer.values, reuse, correlations) / at_lag_1
    latent = _Latent(
        generator.popularity_share * layer,
        (static - generator.popularity_share) * layer,
        slow * layer,
        fast * layer,
    )
    if min(variance.min() for variance in (*latent, latent.noise)) < 0:
        raise UserError(f"{path}: generator: no shares of variance give the published reuse: change the correlations")
    return latent


def _reuse_of_correlation(experts: int, top_k: int) -> tuple[Array, Array]:
    """Tabulate how much of a top-k survives when the values behind it keep a given correlation, by trial."""
    rng = np.random.default_rng(_CALIBRATION_SEED)
    before, fresh = rng.standard_normal((2, _CALIBRATION_TOKENS, experts))
    correlations = np.linspace(0, 1, 41)
    chosen = _top(before, top_k)
    after = (_top(r * before + np.sqrt(1 - r * r) * fresh, top_k) for r in correlations)
    reuse = np.array([(chosen & later).sum() / chosen.sum() for later in after])
    return correlations, np.maximum.accumulate(reuse)


def _top(values: Array, top_k: int) -> NDArray[np.bool_]:
    chosen = np.zeros(values.shape, np.bool_)
    np.put_along_axis(chosen, np.argpartition(-values, top_k - 1, axis=-1)[..., :top_k], True, axis=-1)
    return chosen


def _calibrate_sharpness(profile: Profile) -> float:
    """Find the factor from value to logit that gives the published mass of the top-k, by bisection."""
    rng = np.random.default_rng(_CALIBRATION_SEED)
    values = -np.sort(-rng.standard_normal((_CALIBRATION_TOKENS, profile.model.experts)), axis=1)
    logits = _steepen(values, profile) * _spread(rng, profile, (_CALIBRATION_TOKENS,))
    wanted = sum(profile.published.score_mean_by_rank.values)
    low, high = 0.0, 16.0
    for _ in range(30):
        middle = (low + high) / 2
        weights = np.exp(middle * (logits - logits[:, :1]))
        mass = (weights[:, : profile.model.top_k].sum(axis=1) / weights.sum(axis=1)).mean()
        low, high = (middle, high) if mass < wanted else (low, middle)
    return low


def _steepen(values: Array, profile: Profile) -> Array:
    """Raise the values above those of an ordinary top-k, as real routers prefer their first choice more."""
    threshold = NormalDist().inv_cdf(1 - profile.model.top_k / (profile.model.experts + 1))
    return np.asarray(values + profile.generator.top_steepness * np.maximum(values - threshold, 0.0))


def _spread(rng: np.random.Generator, profile: Profile, shape: tuple[int, ...]) -> Array:
    """Return how sharp each token's choice is, around 1: [*shape, 1]."""
    return np.asarray(np.exp(profile.generator.sharpness_spread * rng.standard_normal((*shape, 1))))
