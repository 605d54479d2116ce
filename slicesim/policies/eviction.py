"""Eviction: a score over slices; the lowest goes first.

A strategy returns sort keys for the candidates, the first key counting most. Keys that are equal all through go by
last use, then by entry number. To write your own, subclass ``Eviction`` in a file and name it ``file.py:Class``.
"""

from __future__ import annotations

from typing import ClassVar

from slicesim.policies.base import Keys, Strategy
from slicesim.policies.slices import MSB, IntArray, SliceState


class Eviction(Strategy):
    """Base of all eviction strategies."""

    kind: ClassVar[str] = "eviction"
    needs_future: ClassVar[bool] = False

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Return sort keys for the slices ``entries``, arrays as long as ``entries``; smallest leaves first."""
        raise NotImplementedError(f"{type(self).__name__} must define score(state, entries)")


class Lru(Eviction):
    """Least recently used."""

    name: ClassVar[str] = "lru"

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """No key of its own: equal keys go by last use."""
        return ()


class Dbsc(Eviction):
    """SliceMoE's dynamic bit-sliced caching: LSB slices first, LRU among them; then MSB slices by LRU (1.4)."""

    name: ClassVar[str] = "dbsc"

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """LSB before MSB; equal keys go by last use."""
        return (state.kind[entries] == MSB,)


class LfuKeep(Eviction):
    """Least frequently used; counts outlive eviction."""

    name: ClassVar[str] = "lfu-keep"

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Look-ups ever."""
        return (state.count[entries],)


class LfuForget(Eviction):
    """Least frequently used; a count starts anew when the slice is fetched again."""

    name: ClassVar[str] = "lfu-forget"

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Look-ups since the slice came in."""
        return (state.count_since_insert[entries],)


class Fifo(Eviction):
    """First in, first out."""

    name: ClassVar[str] = "fifo"

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Time of insertion."""
        return (state.inserted[entries],)


class Random(Eviction):
    """A victim drawn uniformly."""

    name: ClassVar[str] = "random"

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Fresh uniform numbers."""
        return (state.rng.random(len(entries)),)


class Static(Eviction):
    """Offline hot list: the slices that the whole trace requests most stay. Knows the future; a baseline only."""

    name: ClassVar[str] = "static"
    needs_future: ClassVar[bool] = True

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Requests in the whole trace."""
        return (state.total_count[entries],)


class Belady(Eviction):
    """Farthest next use goes first. Optimal for equal sizes with forced insertion; ties by entry number."""

    name: ClassVar[str] = "belady"
    needs_future: ClassVar[bool] = True

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Next use, farthest first."""
        return (-state.next_use[entries], entries)
