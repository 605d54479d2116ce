"""Prefetch by what was learnt: counts that grow while the trace is replayed, batch by batch."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from slicesim.compiled import register_jitable
from slicesim.policies.prefetch import ReadAhead
from slicesim.policies.slices import MSB, FloatArray, IntArray


class Popularity(ReadAhead):
    """The experts that the coming layer has used most so far.

    Points of a slice = its requests in decode, all tokens so far; with ``decay`` below 1, each token of the layer first
    scales the layer's counts by it. Source: standard; Fiddler (arXiv 2402.07033) places experts by popularity that was
    measured before, here it is learnt online.
    Checked by: tests/decide/test_predictions.py (by hand), tests/parity/test_prefetch_decisions.py.
    """

    name: ClassVar[str] = "popularity"
    decay: float = Field(1.0, gt=0, le=1, description="factor on a layer's counts at each token; 1: plain counts")

    def memory(self, layers: int, experts: int, top_k: int, seed: int) -> FloatArray:
        """Counts [layers, experts, kind of slice]."""
        return np.zeros((layers, experts, 2))

    def learn(self, memory: Any, layer: int, slots: Any, before: Any, tally: Any) -> None:
        """Count the requests of a batch."""
        if self.decay < 1.0:
            for expert in range(memory.shape[1]):
                for kind in range(2):
                    memory[layer, expert, kind] *= self.decay
        count_slices(memory[layer], slots)

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Points are counts."""
        begin_points(guesses)
        add_points(guesses, memory[layer], 1.0)
        return len(guesses)


class CoActivation(ReadAhead):
    """The experts that have followed those running now: pair counts between layers, learnt online.

    counts[d][l][e][f] = tokens that used e in layer l - d and f in layer l, for each distance d up to ``depth``; of LSB
    slices apart. Points of f = sum over the experts e now running of counts[e][f] / (sum over g of counts[e][g]).
    Source: expert affinity between layers, ExFlow (arXiv 2401.08383); ExpertFlow (arXiv 2510.26730) predicts across
    layers too. Simplified: pairs are taken to be independent, gate scores do not weigh.
    Checked by: tests/decide/test_predictions.py (by hand), tests/parity/test_prefetch_decisions.py.
    """

    name: ClassVar[str] = "co-activation"

    def memory(self, layers: int, experts: int, top_k: int, seed: int) -> Any:
        """Counts [distance - 1, layer of f, e, f, kind of slice]."""
        return np.zeros((self.depth, layers, experts, experts, 2))

    def learn(self, memory: Any, layer: int, slots: Any, before: Any, tally: Any) -> None:
        """Count this batch's experts after those of the layers before."""
        count_followers(memory, layer, slots, before)

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Points are shares of followers."""
        return int(guess_followers(memory[ahead - 1, layer], before[layer - ahead], guesses))


class Path(ReadAhead):
    """The experts that have followed the path of the last two layers, learnt online.

    counts[d][l][e1, e2][f] = tokens that used e1 in layer l - d - 1, e2 in layer l - d and f in layer l. Points of f =
    sum over all e1, e2 of this token's last two layers of counts[e1, e2][f] / (sum over g of counts[e1, e2][g]). The
    first layer has no path, so nothing is guessed there. Source: EdgeMoE (arXiv 2308.14352), whose predictor looks at
    the experts of the two layers before. Simplified: learnt online instead of offline; pairs share a row by remainder
    where ``contexts`` is below experts x experts; top-1 paths of EdgeMoE become all pairs of the top-k.
    Checked by: tests/parity/test_prefetch_decisions.py.
    """

    name: ClassVar[str] = "path"
    contexts: int = Field(4096, ge=1, description="rows of counts for each layer and distance")

    def memory(self, layers: int, experts: int, top_k: int, seed: int) -> Any:
        """Counts [distance - 1, layer of f, context, f, kind of slice]."""
        return np.zeros((self.depth, layers, self.contexts, experts, 2), dtype=np.float32)

    def learn(self, memory: Any, layer: int, slots: Any, before: Any, tally: Any) -> None:
        """Count this batch's experts after the paths that led to it."""
        for back in range(min(len(memory), layer - 1)):
            last = layer - 1 - back
            for first in before[last - 1]:
                for second in before[last]:
                    row = (first.expert * memory.shape[3] + second.expert) % self.contexts
                    count_slices(memory[back, layer, row], slots)

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Points are shares of followers."""
        last = layer - ahead
        if last == 0:
            return 0
        begin_points(guesses)
        for first in before[last - 1]:
            for second in before[last]:
                row = (first.expert * memory.shape[3] + second.expert) % self.contexts
                add_share(guesses, memory[ahead - 1, layer, row])
        return len(guesses)


class Pairs(NamedTuple):
    """counts: see CoActivation.memory; horizon: layers looked ahead now, and batches of the window so far, int64 [2];
    seen: TALLY numbers when the window began, int64 [3]."""

    counts: Any
    horizon: IntArray
    seen: IntArray


class Adaptive(ReadAhead):
    """Co-activation with a horizon that grows and shrinks by what became of the slices read ahead.

    After every ``window`` batches: used = read-ahead slices looked up in the window / slices read ahead in it. Below
    ``low`` the horizon is one layer less (1 at least); at ``high`` or above, and where the window had misses, one more
    (``depth`` at most). Resident slices are never read, so only missing ones use up the budget. Source: ExpertFlow
    (arXiv 2510.26730), adaptive step size of cross-layer prefetching. Simplified: ExpertFlow sets the step from
    measured bandwidth, token diversity and stalls, here counts alone decide (a replay's decisions know no clock); its
    predictor (pre-gating and a random forest) is co-activation here; its cache-aware routing is left out.
    Checked by: tests/decide/test_predictions.py (by hand), tests/parity/test_prefetch_decisions.py.
    """

    name: ClassVar[str] = "adaptive"
    depth: int = Field(4, ge=1, description="layers ahead, at most")
    window: int = Field(64, ge=1, description="batches between two looks at the horizon")
    low: float = Field(0.4, ge=0, le=1, description="share of used slices below which the horizon shrinks")
    high: float = Field(0.6, ge=0, le=1, description="share of used slices from which on the horizon grows")

    def memory(self, layers: int, experts: int, top_k: int, seed: int) -> Pairs:
        """Begin with the next layer alone."""
        counts = np.zeros((self.depth, layers, experts, experts, 2))
        return Pairs(counts, np.array([1, 0]), np.zeros(3, dtype=np.int64))

    def learn(self, memory: Any, layer: int, slots: Any, before: Any, tally: Any) -> None:
        """Count pairs, and set the horizon at the end of a window."""
        count_followers(memory.counts, layer, slots, before)
        horizon, seen = memory.horizon, memory.seen
        horizon[1] += 1
        if horizon[1] < self.window:
            return
        read, used, missed = tally.read - seen[0], tally.used - seen[1], tally.missed - seen[2]
        if used < self.low * read:
            horizon[0] = max(horizon[0] - 1, 1)
        elif missed > 0 and used >= self.high * read:
            horizon[0] = min(horizon[0] + 1, self.depth)
        horizon[1] = 0
        seen[0], seen[1], seen[2] = tally.read, tally.used, tally.missed

    def reach(self, memory: Any) -> int:
        """Return the horizon."""
        return memory.horizon[0]  # type: ignore[no-any-return]

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Points are shares of followers."""
        return int(guess_followers(memory.counts[ahead - 1, layer], before[layer - ahead], guesses))


# What follows is compiled with the strategies. counts: [experts, kind of slice].


@register_jitable  # type: ignore[untyped-decorator]
def count_slices(counts: Any, slots: Any) -> None:
    """Count the slices that a batch wants."""
    for slot in slots:
        for kind in range(2 if slot.critical else 1):
            counts[slot.expert, kind] += 1


@register_jitable  # type: ignore[untyped-decorator]
def count_followers(counts: Any, layer: int, slots: Any, before: Any) -> None:
    """Count a batch's slices after each expert of the layers before, as far back as there are counts."""
    for back in range(min(len(counts), layer)):
        for source in before[layer - 1 - back]:
            count_slices(counts[back, layer, source.expert], slots)


@register_jitable  # type: ignore[untyped-decorator]
def guess_followers(counts: Any, sources: Any, guesses: Any) -> int:
    """Guess what has followed these experts. counts: [experts, experts, kind of slice]."""
    begin_points(guesses)
    for source in sources:
        add_share(guesses, counts[source.expert])
    return len(guesses)


@register_jitable  # type: ignore[untyped-decorator]
def begin_points(guesses: Any) -> None:
    """Enter every slice of the layer, without points."""
    for place in range(len(guesses)):
        guesses[place].points, guesses[place].slice = 0.0, place


@register_jitable  # type: ignore[untyped-decorator]
def add_share(guesses: Any, counts: Any) -> None:
    """Add counts as shares of their MSB counts."""
    total = 0.0
    for expert in range(len(counts)):
        total += counts[expert, MSB]
    if total > 0.0:
        add_points(guesses, counts, total)


@register_jitable  # type: ignore[untyped-decorator]
def add_points(guesses: Any, counts: Any, total: float) -> None:
    """Add counts / total."""
    for expert in range(len(counts)):
        for kind in range(2):
            guesses[2 * expert + kind].points += counts[expert, kind] / total
