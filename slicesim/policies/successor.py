"""Eviction by what usually follows: slicesim's own strategy."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from slicesim.policies.eviction import Eviction


class Successor(Eviction):
    """Keep what usually follows what has just run; the slice that does so least goes first.

    1. In each layer, count for every pair how often slice f was wanted by the token after one that ran expert e.
    2. A slice's score is its share of followings, averaged over the experts that its layer ran last, times the square
       root of its own recent use.
    3. Evict the lowest score; a layer's scores are made anew when it has run.

    score(f) = (mean over e of (n(e, f) + p) / (n(e) + 1) + 0.01) x sqrt(r(f) + 0.01), with n(e, f): tokens that wanted
    f right after one that ran e; n(e): tokens that came after e; p = top-k / experts; r(f) <- r(f) + (1 - 2^(-1 /
    half_life)) x (wanted - r(f)) at every token of the layer. An LSB counts as wanted where its expert is critical.
    Equal scores: least recently used first. All is learnt online, from prompts too; tables of 2 x experts^2 numbers a
    layer (DeepSeek-V2-Lite: 213,000, that is 0.4 MB with 2 bytes each).
    Source: ours (docs/own-policy.md): routing follows the token before, which recency and frequency do not see.
    Checked by: tests/policies/test_successor.py, by hand and against a plain replay.
    """

    name: ClassVar[str] = "successor"
    half_life: float = Field(6.0, gt=0, allow_inf_nan=False, description="tokens after which a use counts half")

    def tables(self, layers: int, experts: int) -> NDArray[np.float64]:
        """Pairs [expert, slice]; then a row of recent use of each slice; then n(e), and whether e ran last."""
        return np.zeros((layers, experts + 2, 2 * experts), dtype=np.float64)

    def key(self, entry: Any, now: int) -> float:
        """The score."""
        return entry.memory  # type: ignore[no-any-return]

    def observe(self, table: Any, slots: Any, slices: Any, base: int) -> None:
        """Count followings, and score the layer's slices."""
        experts = table.shape[0] - 2
        prior, kept = len(slots) / experts, 2.0 ** (-1.0 / self.half_life)
        recent, times = table[experts], table[experts + 1]
        for expert in range(experts):
            if times[experts + expert] > 0:
                times[expert] += 1
                times[experts + expert] = 0
                for slot in slots:
                    for number in range(2 * slot.expert, 2 * slot.expert + (2 if slot.critical else 1)):
                        table[expert, number] += 1
        for number in range(2 * experts):
            recent[number] *= kept
        for slot in slots:
            times[experts + slot.expert] = 1
            for number in range(2 * slot.expert, 2 * slot.expert + (2 if slot.critical else 1)):
                recent[number] += 1 - kept
        for number in range(2 * experts):
            follows = 0.0
            for slot in slots:
                follows += (table[slot.expert, number] + prior) / (times[slot.expert] + 1)
            slices[base + number].memory = (follows / len(slots) + 0.01) * math.sqrt(recent[number] + 0.01)
