"""The running miss rate that a constraint watches (semantics, sections 4 and 10)."""

from __future__ import annotations

from collections import deque

import numpy as np

from slicesim.policies.constraint import Bias, Budget, Constraint


class Ledger:
    """Look-ups and misses of slice requests: per request for ``budget``, over the last tokens for ``bias``."""

    def __init__(self, constraint: Constraint, strength: float) -> None:
        self.constraint = constraint
        self.strength = strength
        self.step = 0
        self.lookups = 0
        self.misses = 0
        self._token = [0, 0]
        self._window: deque[tuple[int, int]] = deque(maxlen=constraint.window if isinstance(constraint, Bias) else 1)

    def begin_request(self) -> None:
        """Forget the counts; the strength that the controller found stays."""
        self.step = self.lookups = self.misses = 0
        self._window.clear()

    @property
    def active(self) -> bool:
        """Whether the constraint counts and acts at this decode step."""
        return isinstance(self.constraint, (Budget, Bias)) and self.step >= self.constraint.start_step

    def allows(self, misses: int, lookups: int) -> bool:
        """Whether a batch with so many new misses and look-ups keeps the budget."""
        if not isinstance(self.constraint, Budget) or not self.active:
            return True
        return self.misses + misses <= self.constraint.target * (self.lookups + lookups)

    def add(self, misses: int, lookups: int) -> None:
        """Enter one batch."""
        if self.active:
            self.misses += misses
            self.lookups += lookups
            self._token[0] += misses
            self._token[1] += lookups

    def end_token(self) -> None:
        """Let the controller correct its strength, and go to the next decode step."""
        if isinstance(self.constraint, Bias) and self.active:
            self._window.append((self._token[0], self._token[1]))
            misses, lookups = np.sum(self._window, axis=0)
            rate = misses / lookups if lookups else 0.0
            step = self.constraint.gain * (rate - self.constraint.target)
            self.strength = float(np.clip(self.strength + step, 0.0, 1.0))
        self._token = [0, 0]
        self.step += 1
