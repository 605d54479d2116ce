"""Eviction by a key that takes more than last use and a count: ages, gate scores, layers still to come.

Everything is counted for a slice by itself. A prompt looks a slice up once, with the sum of its tokens' gate scores.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import Field

from slicesim.policies.eviction import Eviction, LfuKeep, Lru
from slicesim.policies.slices import When

_MANY = 1 << 36


class LfuAged(Eviction):
    """Least frequently used, old look-ups count less: each one's weight halves every ``half_life`` look-ups.

    The key is log2 of the sum of 2^(t / half_life) over the slice's look-ups, t being the number of a look-up among
    those of all slices: the order is that of the aged counts, and a key changes at look-ups alone. Counts outlive
    eviction.
    Source: LFU with ageing; the exponential form is LRFU's (Lee et al., IEEE Trans. Computers 50(12), 2001), with
    lambda = 1 / half_life. Simplified: nothing.
    Checked by: tests/policies/test_scored.py, by hand; libcachesim has LFUDA only (see ``lfuda``).
    """

    name: ClassVar[str] = "lfu-aged"
    half_life: float = Field(20000.0, gt=0, allow_inf_nan=False, description="look-ups after which one counts half")

    def key(self, entry: Any, now: int) -> float:
        """Logarithm of the aged count."""
        return entry.memory  # type: ignore[no-any-return]

    def remember(self, entry: Any, fetched: bool, now: int, gate: float) -> None:
        """Add this look-up to the sum, in logarithms."""
        this = now / self.half_life
        if entry.count > 1:
            this += math.log2(1.0 + 2.0 ** (entry.memory - this))
        entry.memory = this


class LfuDa(Eviction):
    """LFU with dynamic ageing: a slice's count starts from the key of the slice that was evicted last.

    key = L + look-ups since it came in; L is the key of the last victim, as it stood when the slice was last looked up.
    Source: Arlitt et al., "Evaluating content management techniques for Web proxy caches", 2000 (LFU-DA). Simplified: L
    stands still while a prompt streams.
    Checked by: libcachesim LFUDA (equal counts), tests/parity/test_list_strategies.py.
    """

    name: ClassVar[str] = "lfuda"

    def key(self, entry: Any, now: int) -> float:
        """Age and count."""
        return entry.floor + entry.count_since_insert  # type: ignore[no-any-return]


class Gdsf(Eviction):
    """Greedy-dual size frequency: like ``lfuda``, but a look-up counts for less the larger the slice is.

    key = L + look-ups since it came in x floor(2^36 / bytes); L as in ``lfuda``. All misses cost the same. (Whole
    numbers: equal keys are then equal to the last bit, and last use decides.)
    Source: Cherkasova, HP Labs HPL-98-69R1, 1998 (GDSF-Hits). Simplified: L stands still while a prompt streams.
    Checked by: libcachesim GDSF (equal counts), tests/parity/test_list_strategies.py.
    """

    name: ClassVar[str] = "gdsf"

    def key(self, entry: Any, now: int) -> float:
        """Age and density of look-ups."""
        return entry.floor + entry.count_since_insert * (_MANY // entry.size_bytes)  # type: ignore[no-any-return]


class GateMass(Eviction):
    """Least gate mass first: the sum of the gate scores that a slice was ever looked up with.

    Source: score-based caching; a gate score stands for what an expert adds to the output. Simplified: no ageing.
    Checked by: tests/policies/test_scored.py, by hand.
    """

    name: ClassVar[str] = "gate-mass"

    def key(self, entry: Any, now: int) -> float:
        """Sum of gate scores."""
        return entry.gate_mass  # type: ignore[no-any-return]


class Lhu(Eviction):
    """Least often used at high precision: look-ups with a gate score of ``threshold`` or more, in this request.

    Source: HOBBIT's LHU term (arXiv 2411.01433, sequence-level caching): experts that matter are missed at a higher
    price. Simplified: "at high precision" is read off the gate score, as the precision strategy ``threshold`` does.
    Checked by: tests/policies/test_scored.py, by hand.
    """

    name: ClassVar[str] = "lhu"
    per_request: ClassVar[bool] = True
    threshold: float = Field(0.1, ge=0, description="gate score from which a use is one at high precision")

    def key(self, entry: Any, now: int) -> float:
        """Important look-ups."""
        return entry.memory  # type: ignore[no-any-return]

    def remember(self, entry: Any, fetched: bool, now: int, gate: float) -> None:
        """Count important look-ups."""
        if gate >= self.threshold:
            entry.memory += 1.0


class LayerDistance(Eviction):
    """Farthest layer first: slices of the layer that comes last, seen from the layer in hand; LRU within a layer.

    Distance of layer l when layer c is in hand: (l - c) mod layers, so that the layer just passed is the farthest and
    the layer in hand the nearest one.
    Source: HOBBIT's FLD term (arXiv 2411.01433, sequence-level caching), written from its description. Simplified:
    nothing known.
    Checked by: tests/policies/test_scored.py, by hand.
    """

    name: ClassVar[str] = "fld"

    def key(self, entry: Any, now: int) -> float:
        """Within a layer last use decides."""
        return 0.0

    def layer_key(self, entry: Any, when: When) -> float:
        """Farthest first."""
        return float(-((entry.layer - when.layer) % when.layers))


class Hobbit(Eviction):
    """HOBBIT's weighted sum of recency, frequency, uses at high precision and nearness of the layer; lowest first.

    priority = lru x R / T + lfu x F / T + lhu x H / T + fld x (1 - ((l - c) mod layers) / layers), with T: tokens of
    the request so far (its prompt is one), R: number of the last token that used the slice (0: none), F: look-ups, H:
    those with a gate score of ``threshold`` or more, all in this request; l: its layer, c: the layer in hand. Equal
    ones within a layer: last use.
    Source: HOBBIT (arXiv 2411.01433, sequence-level caching), written from its description. Simplified: one cache for
    both precisions; the weights are parameters, equal ones here, and not the paper's.
    Checked by: tests/policies/test_scored.py, by hand.
    """

    name: ClassVar[str] = "hobbit"
    per_request: ClassVar[bool] = True
    lru: float = Field(0.25, ge=0, allow_inf_nan=False, description="weight of recency")
    lfu: float = Field(0.25, ge=0, allow_inf_nan=False, description="weight of frequency")
    lhu: float = Field(0.25, ge=0, allow_inf_nan=False, description="weight of uses at high precision")
    fld: float = Field(0.25, ge=0, allow_inf_nan=False, description="weight of the layer's nearness")
    threshold: float = Field(0.1, ge=0, description="gate score from which a use is one at high precision")

    def key(self, entry: Any, now: int) -> float:
        """What the order within a layer follows from."""
        return self.lru * entry.last_token + entry.memory  # type: ignore[no-any-return]

    def remember(self, entry: Any, fetched: bool, now: int, gate: float) -> None:
        """Sum the weights of look-ups."""
        entry.memory += self.lfu + (self.lhu if gate >= self.threshold else 0.0)

    def layer_key(self, entry: Any, when: When) -> float:
        """The whole sum."""
        used = (self.lru * (entry.last_token - when.request) + entry.memory) / max(when.token - when.request, 1)
        return used + self.fld * (1.0 - ((entry.layer - when.layer) % when.layers) / when.layers)  # type: ignore[no-any-return]


class LeastStale(Eviction):
    """Stale slices first: those that the token in hand has not used; among them the layer whose turn is farthest off.

    Layers come round in a fixed order, so a slice that the token in hand did not use in a layer that it has passed
    cannot be wanted before the next token: the layer just served goes first, the one that comes next goes last. Slices
    that this token did use go after all stale ones, in the same order of layers. Within a layer: last use.
    Source: Least-Stale, SpecMD (arXiv 2602.03921). Simplified: the paper speaks of a forward pass, which is one token
    here; its abstract fixes the idea (forward order instead of recency), the order of layers is spelt out by us.
    Checked by: tests/policies/test_scored.py, by hand.
    """

    name: ClassVar[str] = "least-stale"

    def key(self, entry: Any, now: int) -> float:
        """Within a layer last use decides."""
        return 0.0

    def layer_key(self, entry: Any, when: When) -> float:
        """Stale ones by layers passed since, then the others."""
        passed = (when.layer - entry.layer) % when.layers
        return float(passed if entry.last_token < when.token else passed + when.layers)


class LayerLru(Lru):
    """Least recently used, each layer for itself: equal shares of the cache, whatever ``cache.scope`` says.

    Source: standard; Eliseev and Mazur (arXiv 2312.17238) keep so many experts of each layer. Simplified: nothing.
    Checked by: tests/policies/test_scored.py, against ``lru`` with cache.scope layer.
    """

    name: ClassVar[str] = "layer-lru"
    partitioned: ClassVar[bool] = True


class LayerLfu(LfuKeep):
    """Least frequently used, each layer for itself: equal shares of the cache, whatever ``cache.scope`` says.

    Source: standard. Simplified: nothing.
    Checked by: tests/policies/test_scored.py, against ``lfu-keep`` with cache.scope layer.
    """

    name: ClassVar[str] = "layer-lfu"
    partitioned: ClassVar[bool] = True


class AllResident(Lru):
    """Nothing is ever evicted: all experts are in DRAM from the start, whatever the capacity and the size of DRAM.

    The end of the scale: no misses, no reads from flash. Warm-up and cache.reset do nothing.
    Source: the usual "all in memory" baseline. Simplified: loading the model is not paid for.
    Checked by: tests/policies/test_scored.py (no miss, no byte from flash).
    """

    name: ClassVar[str] = "all-resident"
    keeps_all: ClassVar[bool] = True
