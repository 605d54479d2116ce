"""Eviction strategies of one's own: ``--policy experiments/my_policy.py:MyEviction``."""

from typing import Any

from slicesim.policies import Eviction
from slicesim.policies.base import Keys
from slicesim.policies.slices import IntArray, SliceState


class MyEviction(Eviction):
    """Least gate mass first; equal ones go by last use. One number for one slice: compiled into the batch loop."""

    def key(self, entry: Any, now: int) -> float:
        """Sum of gate scores that the slice was looked up with."""
        return float(entry.gate_mass)


class InNumpy(Eviction):
    """The same for all candidates at once: plain Python and numpy, slower, and free to do anything."""

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Sum of gate scores."""
        return (state.gate_mass[entries],)
