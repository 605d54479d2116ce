"""Warm-up: what prefill leaves in the cache for decode (semantics, sections 4 and 10; SliceMoE's PCW)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from slicesim.policies.base import Keys, Strategy
from slicesim.policies.eviction import Eviction
from slicesim.policies.slices import MSB, FloatArray, IntArray, SliceState


class HandOver(NamedTuple):
    """What is done when prefill ends.

    keep: slices that stay (all others leave); read: slices to be read from flash besides;
    recency: keep and read in their new order of use, coldest first, or None to leave the order as it is.
    """

    keep: IntArray
    read: IntArray
    recency: IntArray | None


class Warmup(Strategy):
    """Base of all warm-up strategies: the order of leaving while prefill streams, and the hand-over."""

    kind: ClassVar[str] = "warmup"

    def score(self, state: SliceState, entries: IntArray, eviction: Eviction) -> Keys:
        """Return sort keys of the slices while prefill streams; smallest leaves first. Here: LRU."""
        return ()

    def hand_over(self, state: SliceState) -> HandOver:
        """Decide what decode begins with. Here: the cache as it is."""
        return HandOver(np.flatnonzero(state.resident), _NOTHING, None)


class NoWarmup(Warmup):
    """Prefill goes through the cache by the eviction strategy's own order, and nothing is done afterwards.

    Source: what plain caches do.
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py), and by hand
    (tests/policies/test_warmup.py).
    """

    name: ClassVar[str] = "none"

    def score(self, state: SliceState, entries: IntArray, eviction: Eviction) -> Keys:
        """Return the eviction strategy's keys."""
        return eviction.score(state, entries)


class Empty(Warmup):
    """Decode begins with an empty cache.

    Source: compared in SliceMoE, arXiv 2512.12990.
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py), and by hand
    (tests/policies/test_warmup.py).
    """

    name: ClassVar[str] = "empty"

    def hand_over(self, state: SliceState) -> HandOver:
        """Keep nothing."""
        return HandOver(_NOTHING, _NOTHING, None)


class LastLayer(Warmup):
    """LRU while streaming: the last layers' experts stay.

    Source: compared in SliceMoE, arXiv 2512.12990.
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py), and by hand
    (tests/policies/test_warmup.py).
    """

    name: ClassVar[str] = "last-layer"


class RandomExperts(Warmup):
    """A uniformly random subset of the streamed experts, both slices together.

    Source: compared in SliceMoE, arXiv 2512.12990.
    Checked by: sizes and uniformity by hand (tests/policies/test_warmup.py).
    """

    name: ClassVar[str] = "random"

    def score(self, state: SliceState, entries: IntArray, eviction: Eviction) -> Keys:
        """Lowest drawn priority first."""
        return (self._priority(state, entries),)

    def hand_over(self, state: SliceState) -> HandOver:
        """Keep the streamed slices in falling order of priority, until the next one does not fit."""
        expert = np.arange(len(state.kind)) - state.kind
        streamed = np.flatnonzero(state.resident & (state.prompt_count[expert] > 0))
        order = np.lexsort((state.kind[streamed], -self._priority(state, streamed)))
        return HandOver(_that_fit(state, streamed[order]), _NOTHING, None)

    def _priority(self, state: SliceState, entries: IntArray) -> FloatArray:
        return np.asarray(state.priority[entries - state.kind[entries]])


class RandomSlices(RandomExperts):
    """A uniformly random subset of the streamed slices; an LSB whose MSB was not drawn is of no use and leaves.

    Source: compared in SliceMoE, arXiv 2512.12990.
    Checked by: sizes and uniformity by hand (tests/policies/test_warmup.py).
    """

    name: ClassVar[str] = "random-slices"

    def _priority(self, state: SliceState, entries: IntArray) -> FloatArray:
        return np.asarray(state.priority[entries])


class Pcw(Warmup):
    """Predictive cache warm-up: the prompt's hottest slices stay, and recency is re-sorted once by hotness.

    While streaming, LSB slices with the fewest critical selections leave first, then MSB slices with the fewest
    selections, ties by score sum (slicemoe.md 1.5). Nothing is read for it beyond what streaming reads.
    Source: SliceMoE, arXiv 2512.12990 (slicemoe.md 1.5).
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py), and by hand
    (tests/policies/test_warmup.py).
    """

    name: ClassVar[str] = "pcw"

    def score(self, state: SliceState, entries: IntArray, eviction: Eviction) -> Keys:
        """LSB before MSB, then count, then score sum."""
        return (state.kind[entries] == MSB, state.prompt_count[entries], state.prompt_score[entries])

    def hand_over(self, state: SliceState) -> HandOver:
        """Keep all, in order of hotness."""
        keep = np.flatnonzero(state.resident)
        return HandOver(keep, _NOTHING, _coldest_first(state, keep))


class PcwTopUp(Pcw):
    """PCW, and missing slices hotter than resident ones are read too, and paid for in prefill.

    Source: a reading of SliceMoE that its account leaves open (slicemoe.md 2, row 12).
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py), and by hand
    (tests/policies/test_warmup.py).
    """

    name: ClassVar[str] = "pcw-topup"

    def hand_over(self, state: SliceState) -> HandOver:
        """Keep and read the hottest slices of the prompt until the next one does not fit."""
        wanted = np.flatnonzero((state.prompt_count > 0) | state.resident)
        chosen = _that_fit(state, _coldest_first(state, wanted)[::-1])
        missing = ~state.resident[chosen]
        return HandOver(chosen[~missing], chosen[missing], chosen[::-1])


_NOTHING: IntArray = np.zeros(0, dtype=np.int64)


def _coldest_first(state: SliceState, entries: IntArray) -> IntArray:
    """Sort by hotness: without count, then LSB by count, then MSB by count; ties by score sum, last use, entry."""
    return entries[
        np.lexsort(
            (
                entries,
                state.last_use[entries],
                state.prompt_score[entries],
                state.prompt_count[entries],
                state.kind[entries] == MSB,
                state.prompt_count[entries] > 0,
            )
        )
    ]


def _that_fit(state: SliceState, ordered: IntArray) -> IntArray:
    """Take slices in order until the next one does not fit its cache; then leave out LSBs without their MSB."""
    chosen = np.zeros(len(state.kind), dtype=np.bool_)
    for group in range(len(state.used_bytes)):
        members = ordered[state.group[ordered] == group]
        fits = np.cumsum(state.size_bytes[members]) <= state.caches["capacity_bytes"][group]
        chosen[members[fits]] = True
    orphan = np.flatnonzero(chosen & (state.kind != MSB))
    chosen[orphan[~chosen[orphan - 1]]] = False
    return ordered[chosen[ordered]]
