"""Kinds of tokens: clusters of their factors, and which kind follows which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import jit
from slicesim.trace.twin.recording import Array

MOST_KINDS = 256
_TOKENS_PER_KIND = 16
_ROUNDS = 25

#: Share of the successors that are drawn from all kinds rather than from those that followed in the trace.
NOVELTY = 0.05

Numbers = NDArray[np.int64]


class Kinds(NamedTuple):
    """centres: float64 [kinds, factors]; followers: float64 [kinds, kinds], how often a kind follows another one;
    share: float64 [kinds]; of_token: int64 [tokens]."""

    centres: Array
    followers: Array
    share: Array
    of_token: Numbers


def find_kinds(factors: Array, lengths: Sequence[int], rng: np.random.Generator) -> Kinds:
    """Cluster the factors (k-means) and count successions inside requests."""
    count = max(1, min(MOST_KINDS, len(factors) // _TOKENS_PER_KIND))
    centres = factors[rng.choice(len(factors), count, replace=False)]
    for _ in range(_ROUNDS):
        of_token = _nearest(factors, centres)
        members = np.bincount(of_token, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, of_token, factors)
        fresh = factors[rng.integers(len(factors), size=count)]
        centres = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], fresh)
    of_token = _nearest(factors, centres)
    followers = np.zeros((count, count))
    inside = np.ones(len(factors), np.bool_)
    inside[np.cumsum(lengths) - 1] = False
    before = np.flatnonzero(inside)
    np.add.at(followers, (of_token[before], of_token[before + 1]), 1)
    return Kinds(centres, followers, np.bincount(of_token, minlength=count) / len(factors), of_token)


def _nearest(factors: Array, centres: Array) -> Numbers:
    return np.asarray(((centres**2).sum(axis=1) - 2 * factors @ centres.T).argmin(axis=1))


def follow_chances(followers: Array, share: Array) -> Array:
    """Return P(next kind | kind) [kinds, kinds], with some novelty; a kind that nothing followed goes anywhere."""
    total = followers.sum(axis=1, keepdims=True)
    seen = np.where(total > 0, followers / np.maximum(total, 1), share)
    return np.asarray((1 - NOVELTY) * seen + NOVELTY * share)


@jit
def walk(chances, share, pull, context, uniform, weight, out):
    """Draw kinds one after another: by succession, drawn towards the context.

    chances: [kinds, kinds]; share: [kinds]; pull: [kinds, factors]; context: [tokens, factors]; uniform: [tokens];
    weight: [kinds], scratch; out: int64 [tokens]. How often a kind follows itself is not touched by the context: text
    seldom repeats a token at once, whatever it is about.
    """
    kinds, factors = pull.shape
    last = -1
    for token in range(len(out)):
        highest = -np.inf
        for kind in range(kinds):
            points = 0.0
            for factor in range(factors):
                points += pull[kind, factor] * context[token, factor]
            weight[kind] = points
            highest = max(highest, points)
        others = 0.0
        for kind in range(kinds):
            chance = share[kind] if last < 0 else chances[last, kind]
            weight[kind] = 0.0 if kind == last else chance * np.exp(weight[kind] - highest)
            others += weight[kind]
        again = 0.0 if last < 0 else chances[last, last] if others > 0 else 1.0
        if uniform[token] >= again:
            left = (uniform[token] - again) / (1 - again) * others
            last = _draw(weight, left)
        out[token] = last


@jit
def _draw(weight, left):
    """Return where the running sum of the weights passes ``left``; the last one that weighs anything, at the end."""
    chosen = 0
    for kind in range(len(weight)):
        if weight[kind] > 0:
            chosen = kind
            left -= weight[kind]
            if left < 0:
                break
    return chosen
