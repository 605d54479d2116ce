"""Routing: which experts a token is sent to.

Two kinds of strategy change the model's own choice. One that sees the scores of all experts chooses anew (``select``).
One that needs only the choice itself goes through its slots (``amend``): it drops experts, or lets others serve in
their place. Both hold in decode alone: a prompt streams what its tokens chose.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from slicesim.compiled import register_jitable
from slicesim.policies.base import Strategy
from slicesim.policies.slices import BoolArray

IntArray32 = NDArray[np.int32]


class Routing(Strategy):
    """Base of all routing strategies; one that changes the choice defines ``select`` or ``amend``.

    steered: heeds ``strength``, which a constraint may move; keeps_memory: has numbers of its own for every pair of
    experts; substitutes: other experts may serve with an original's gate and precision.
    """

    kind: ClassVar[str] = "routing"
    steered: ClassVar[bool] = False
    keeps_memory: ClassVar[bool] = False
    substitutes: ClassVar[bool] = False

    @property
    def sees_logits(self) -> bool:
        """Whether it chooses by the scores of all experts, so that the trace must hold logits."""
        return type(self).select is not Routing.select

    @property
    def changes_choice(self) -> bool:
        """Whether what runs may be something else than the model's own choice."""
        return self.sees_logits or type(self).amend is not Routing.amend

    @property
    def first_strength(self) -> float:
        """Strength that a constraint takes over from."""
        return 0.0

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Mark the experts to run in ``chosen``, which is all false: as many as there are slots, or fewer.

        logits, chosen: [experts]; slots: records whose ``expert`` is the model's own top-k in falling order of score;
        slices: all slices, the MSB of this layer's expert e being ``slices[base + 2 * e]``; spread: running mean of
        max - min of the layer's logits; strength: lambda. An original that is not marked gives its slot to a newcomer,
        the best to the best; where there are too few newcomers, it is dropped. Compiled into the batch loop.
        """
        raise NotImplementedError(f"{type(self).__name__} must define select")

    def amend(self, slots: Any, slices: Any, base: int, memory: Any) -> None:
        """Change ``slot.expert``: to -1 to drop it, or to the expert that serves in its place, with its gate.

        slots: records ``expert``, ``gate``, ``critical`` of the model's own top-k in falling order of gate; ``expert``
        is -1 where precision skips it already, which stays so; slices, base: see ``select``. memory: int32 [experts,
        experts] of this layer, the strategy's own, zeros at first; [0, 0] unless it ``keeps_memory``. No expert may
        stand in two slots. Compiled into the batch loop.
        """
        raise NotImplementedError(f"{type(self).__name__} must define amend")

    def learn(self, memory: IntArray32, ids: NDArray[np.int32]) -> None:
        """Enter prompt tokens in ``memory``, [layers, experts, experts]; ids: [tokens, layers, top_k], -1: none."""


class Stock(Routing):
    """The model's own top-k.

    Source: the model itself.
    Checked by: tests/parity/test_decisions.py (a second replay in plain Python).
    """

    name: ClassVar[str] = "stock"


@register_jitable  # type: ignore[untyped-decorator]
def keep_best(slots: Any, top_j: int, chosen: Any) -> int:
    """Mark the ``top_j`` best originals, at most all; return how many."""
    forced = min(top_j, len(slots))
    for place in range(forced):
        chosen[slots[place].expert] = True
    return forced


class CachePrior(Routing):
    """Cache-Prior: resident experts get a bonus in the ranking, gate weights stay the original.

    z' = z + strength x Delta x resident, Delta being the running mean of max(z) - min(z) of the layer;
    the ``top_j`` best originals are always kept. Strength 0 is stock routing. Source: arXiv 2412.00099.
    Checked by: tests/decide/test_constraints.py (by hand), tests/parity/test_decisions.py (plain Python).
    """

    name: ClassVar[str] = "cache-prior"
    steered: ClassVar[bool] = True
    strength: float = Field(0.0, ge=0, le=1, description="lambda; the bias constraint takes over from this value")
    top_j: int = Field(2, ge=0, description="best originals that are always kept, experts")

    @property
    def first_strength(self) -> float:
        """Lambda."""
        return self.strength

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Take the best by biased logit; equal ones by stock order, then by id."""
        forced = keep_best(slots, self.top_j, chosen)
        bonus = strength * spread
        for _ in range(forced, len(slots)):
            best, best_value = -1, 0.0
            for candidate in range(len(slots) + len(logits)):  # the stock experts first: they win at equal logits
                expert = slots[candidate].expert if candidate < len(slots) else candidate - len(slots)
                value = np.float64(logits[expert]) + bonus * slices[base + 2 * expert].resident
                if not chosen[expert] and (best < 0 or value > best_value):
                    best, best_value = expert, value
            chosen[best] = True


@register_jitable  # type: ignore[untyped-decorator]
def best_left(logits: Any, slices: Any, base: int, slots: Any, chosen: Any, resident_only: bool) -> int:
    """Return the expert with the highest logit that is not chosen yet, -1 for none; ties by stock order, then by id."""
    best = -1
    for candidate in range(len(slots) + len(logits)):  # the stock experts first: they win at equal logits
        expert = slots[candidate].expert if candidate < len(slots) else candidate - len(slots)
        may = not chosen[expert] and (not resident_only or slices[base + 2 * expert].resident)
        if may and (best < 0 or logits[expert] > logits[best]):
            best = expert
    return best


class MaxRank(Routing):
    """Max-rank: the ``top_j`` best originals, then residents among the ``max_rank`` best of all, then the best left.

    Experts with equal logits share a rank. Gate weights stay the original. Source: arXiv 2412.00099.
    Checked by: tests/decide/test_constraints.py (by hand, and against its definition).
    """

    name: ClassVar[str] = "max-rank"
    max_rank: int = Field(ge=1, description="M: the window of ranks that residents may come from")
    top_j: int = Field(2, ge=0, description="best originals that are always kept, experts")

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Take the best resident while fewer than ``max_rank`` experts are above it, else the best of all."""
        forced = keep_best(slots, self.top_j, chosen)
        for _ in range(forced, len(slots)):
            best = best_left(logits, slices, base, slots, chosen, True)
            above = 0
            for logit in logits:
                above += best >= 0 and logit > logits[best]
            if best < 0 or above >= self.max_rank:
                best = best_left(logits, slices, base, slots, chosen, False)
            chosen[best] = True


class Cumsum(Routing):
    """Cumsum: as Max-rank, but the window is each token's own: the best experts whose probabilities reach ``mass``.

    The window is the smallest such set. Source: arXiv 2412.00099.
    Checked by: tests/decide/test_constraints.py (by hand, and against its definition).
    """

    name: ClassVar[str] = "cumsum"
    mass: float = Field(gt=0, le=1, description="p: the share of the router's probability that the window holds")
    top_j: int = Field(2, ge=0, description="best originals that are always kept, experts")

    def select(
        self,
        logits: NDArray[np.float32],
        slices: Any,
        base: int,
        slots: Any,
        spread: float,
        strength: float,
        chosen: BoolArray,
    ) -> None:
        """Take the best resident while the experts above it hold less than ``mass``, else the best of all."""
        forced = keep_best(slots, self.top_j, chosen)
        highest = np.float64(logits[0])
        for logit in logits:
            highest = max(highest, np.float64(logit))
        for _ in range(forced, len(slots)):
            best = best_left(logits, slices, base, slots, chosen, True)
            above = total = 0.0
            for logit in logits:
                weight = np.exp(np.float64(logit) - highest)
                total += weight
                above += weight if best >= 0 and logit > logits[best] else 0.0
            if best < 0 or above >= self.mass * total:
                best = best_left(logits, slices, base, slots, chosen, False)
            chosen[best] = True


class Skip(Routing):
    """An expert whose gate is small beside the first one's is not run at all.

    Dropped: gate < beta x the first's gate, or the experts before it hold more than ``mass`` of the top-k's gate mass.
    The first is never dropped. A dropped expert counts as such, without a look-up; its gate mass is lost and the others
    keep theirs. beta 0 and mass 1 is stock routing. Source: expert skipping (arXiv 2402.14800: w2 < beta x w1 of a
    top-2 model), adaptive gating of AdapMoE (arXiv 2408.10284). Simplified: one beta for all layers, the papers
    calibrate it; no sensitivity of layers. Needs no logits.
    Checked by: tests/decide/test_skip_and_buddy.py (by hand), tests/parity/test_decisions.py (plain Python).
    """

    name: ClassVar[str] = "skip"
    beta: float = Field(0.2, ge=0, le=1, description="share of the first gate below which an expert is dropped")
    mass: float = Field(1.0, gt=0, le=1, description="share of gate mass after which the rest is dropped; 1: never")
    only_missing: bool = Field(False, description="true: an expert whose MSB is resident runs all the same")

    def amend(self, slots: Any, slices: Any, base: int, memory: Any) -> None:
        """Judge each slot by gate, and by the mass before it."""
        total = 0.0
        for slot in slots:
            total += slot.gate
        before, least = 0.0, self.beta * slots[0].gate
        for place in range(len(slots)):
            slot = slots[place]
            is_small = slot.gate < least or before > self.mass * total
            before += slot.gate
            if place > 0 and is_small and slot.expert >= 0:
                if not (self.only_missing and slices[base + 2 * slot.expert].resident):
                    slot.expert = -1


@register_jitable  # type: ignore[untyped-decorator]
def is_undecided(slots: Any, flatness: float, margin: float) -> bool:
    """Whether a token's top-k gates are flat enough: normalised entropy, and lead of the first over the second."""
    total = entropy = 0.0
    for slot in slots:
        total += slot.gate
    if len(slots) < 2 or total <= 0:
        return False
    for slot in slots:
        share = slot.gate / total
        entropy -= share * np.log(share) if share > 0 else 0.0
    lead = (slots[0].gate - slots[1].gate) / total
    return bool(entropy >= flatness * np.log(len(slots)) and lead <= margin)


@register_jitable  # type: ignore[untyped-decorator]
def best_buddy(counts: Any, slices: Any, base: int, slots: Any, most: int) -> int:
    """Return the first of the ``most`` most counted experts that is resident and in no slot, else -1; ties by id."""
    last, last_count = -1, 0
    for number in range(most):
        best, best_count = -1, 0
        for expert in range(len(counts)):
            count = counts[expert]
            is_next = number == 0 or count < last_count or (count == last_count and expert > last)
            if is_next and count > best_count:
                best, best_count = expert, count
        if best < 0:
            return -1
        is_free = True
        for slot in slots:
            is_free = is_free and slot.expert != best
        if is_free and slices[base + 2 * best].resident:
            return best
        last, last_count = best, best_count
    return -1


class Buddy(Routing):
    """A missing expert is replaced by a resident one that is often chosen together with it.

    Buddies of an expert: the ``buddies`` experts of its layer most often in one top-k with it, so far (prompts
    included). The first of them that is resident and not in the batch serves in its place, with the original's gate
    and the original's wish for an LSB. Lowest gates first, at most ``most`` per token and layer, and only where the
    token is undecided: entropy of its normalised gates / ln K >= flatness, and first - second <= margin.
    It counts as substituted; its look-ups replace the original's. Source: BuddyMoE (arXiv 2511.10054). Simplified:
    counted online, the paper profiles offline; no similarity of weights or outputs; thresholds, ``most`` and ``top_j``
    are values of our own. Needs no logits, as the original's gate serves.
    Checked by: tests/decide/test_skip_and_buddy.py (by hand), tests/parity/test_decisions.py (plain Python).
    """

    name: ClassVar[str] = "buddy"
    keeps_memory: ClassVar[bool] = True
    substitutes: ClassVar[bool] = True
    buddies: int = Field(8, ge=1, description="experts considered in place of a missing one (the paper's H)")
    most: int = Field(1, ge=0, description="substitutions per token and layer")
    flatness: float = Field(0.9, ge=0, le=1, description="least normalised entropy of the top-k gates (the TAE gate)")
    margin: float = Field(1.0, ge=0, le=1, description="largest lead of the first normalised gate; 1: any")
    top_j: int = Field(1, ge=0, description="best originals that are never replaced, experts")

    def amend(self, slots: Any, slices: Any, base: int, memory: Any) -> None:
        """Count who is chosen together, then replace from the lowest gate upwards."""
        for slot in slots:
            for other in slots:
                if slot.expert >= 0 and other.expert >= 0 and slot.expert != other.expert:
                    memory[slot.expert, other.expert] += 1
        left = self.most if is_undecided(slots, self.flatness, self.margin) else 0
        for place in range(len(slots) - 1, self.top_j - 1, -1):
            slot = slots[place]
            if left > 0 and slot.expert >= 0 and not slices[base + 2 * slot.expert].resident:
                buddy = best_buddy(memory[slot.expert], slices, base, slots, self.buddies)
                if buddy >= 0:
                    slot.expert = buddy
                    left -= 1

    def learn(self, memory: IntArray32, ids: NDArray[np.int32]) -> None:
        """Count who is chosen together in a prompt."""
        layer = np.arange(ids.shape[1])[:, None, None]
        one, other = ids[..., :, None], ids[..., None, :]
        both = (one >= 0) & (other >= 0) & (one != other)
        pairs = np.broadcast_arrays(layer, one, other)
        np.add.at(memory, tuple(column[both] for column in pairs), 1)
