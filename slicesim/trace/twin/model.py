"""The twin itself: its figures, and how it makes tokens.

A token is of a kind (``kinds``); its factors are the kind's centre, what the request is about (``context``), and
chance. Layers beyond the first see some of the token before (``carry``). Factors times loadings plus noise of each
expert's own give latents, the largest are chosen; ``scores`` makes logits of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from slicesim.trace.twin.context import KEPT_BRIEFLY, autoregressive, draw_context
from slicesim.trace.twin.kinds import follow_chances, walk
from slicesim.trace.twin.recording import Array, Single

#: Tokens whose latents are made at once.
_CHUNK_TOKENS = 1024


class Twin(NamedTuple):
    """A model's routing in figures. N = layers x experts, F factors, Q kinds, L layers.

    mean, noise [N], loadings [N, F]: of the factor analysis; shift [N]: added to the mean, so that each expert is used
    as often as recorded; noise_factor [L]: on the noise; carry [L]: weight of the token before; centre [F]: mean of
    the factors; kinds [Q, F], followers [Q, Q], share [Q]: kinds of tokens; attraction: of the context on the choice
    of kinds; lasting [F, 4], brief [F], chance [F]: variances of context, of what is soon gone, of white noise;
    answered [F]: part of the context that the kinds follow already; drift [F]: mean of the kinds' centres as drawn,
    less ``centre``; slope [L], corners, heights [L, pieces]: from latents to logits.
    """

    mean: Array
    shift: Array
    loadings: Array
    noise: Array
    noise_factor: Array
    carry: Array
    centre: Array
    kinds: Array
    followers: Array
    share: Array
    attraction: Array
    lasting: Array
    brief: Array
    chance: Array
    answered: Array
    drift: Array
    slope: Array
    corners: Array
    heights: Array

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.carry)

    @property
    def experts(self) -> int:
        """Routed experts of a layer."""
        return len(self.mean) // len(self.carry)

    def draw_kinds(self, tokens: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw one request's context [tokens, F] and the centres of its kinds [tokens, F], both around 0."""
        context, slow = draw_context(tokens, self.lasting, rng)
        around = self.kinds - self.centre
        variance = self.brief + self.chance + around.var(axis=0) + 1e-9
        chosen = np.empty(tokens, np.int64)
        walk(
            follow_chances(self.followers, self.share), self.share, float(self.attraction) * around / variance,
            slow, rng.random(tokens), np.empty(len(self.share)), chosen,
        )  # fmt: skip
        return context, around[chosen]

    def draw_factors(self, tokens: int, rng: np.random.Generator) -> Array:
        """Draw one request's factors [tokens, F], around 0."""
        context, centres = self.draw_kinds(tokens, rng)
        brief = autoregressive(tokens, len(self.brief), KEPT_BRIEFLY, rng) * np.sqrt(self.brief)
        white = rng.standard_normal(context.shape) * np.sqrt(self.chance)
        return np.asarray(centres - self.drift + (1 - self.answered) * context + brief + white)

    def draw_latents(self, lengths: Sequence[int], rng: np.random.Generator) -> Iterator[Single]:
        """Yield latents [tokens, L, experts] of requests one after another, in chunks that never span two."""
        loadings = self.loadings.T.astype(np.float32)
        base = (self.mean + self.shift + self.loadings @ self.centre).astype(np.float32)
        carry = np.repeat(self.carry, self.experts).astype(np.float32)
        whole = 1 / np.sqrt(1 + carry**2)
        own = np.sqrt(self.noise * np.repeat(self.noise_factor, self.experts)).astype(np.float32)
        for length in lengths:
            factors = self.draw_factors(length + 1, rng).astype(np.float32)  # one before the first
            for start in range(0, length, _CHUNK_TOKENS):
                state = factors[start : min(start + _CHUNK_TOKENS, length) + 1] @ loadings
                latents = np.asarray(base + (state[1:] + carry * state[:-1]) * whole, np.float32)
                latents += own * rng.standard_normal(latents.shape, dtype=np.float32)
                yield latents.reshape(-1, self.layers, self.experts)

    def logits(self, latents: Single) -> Single:
        """Make logits [tokens, L, experts] of latents: a rising function of each layer, in straight pieces."""
        logits = np.empty(latents.shape, np.float32)
        for layer, (corners, heights) in enumerate(zip(self.corners, self.heights, strict=True)):
            values = latents[:, layer]
            last = (heights[-1] - heights[-2]) / (corners[-1] - corners[-2])
            logits[:, layer] = np.interp(values, corners, heights)
            logits[:, layer] += self.slope[layer] * np.minimum(values - corners[0], 0)
            logits[:, layer] += last * np.maximum(values - corners[-1], 0)
        return logits
