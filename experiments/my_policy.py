"""An eviction strategy of one's own: ``--policy experiments/my_policy.py:MyEviction``."""

from slicesim.policies import Eviction
from slicesim.policies.base import Keys
from slicesim.policies.slices import IntArray, SliceState


class MyEviction(Eviction):
    """Least gate mass first; equal ones go by last use."""

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Sum of gate scores that the slice was looked up with."""
        return (state.gate_mass[entries],)
