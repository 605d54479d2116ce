"""The running miss rate that a constraint watches (semantics, sections 4 and 10)."""

from __future__ import annotations

from collections import deque

from slicesim.policies.constraint import Bias, Budget, Constraint


class Ledger:
    """Look-ups and misses of slice requests that count: all of a request's for ``budget``, its last tokens' for
    ``bias``."""

    def __init__(self, constraint: Constraint, strength: float) -> None:
        self.constraint = constraint
        self.strength = strength
        self.step = 0
        self.misses = 0
        self.lookups = 0
        self._tokens: deque[tuple[int, int]] = deque()
        self._before = (0, 0)

    def begin_request(self) -> None:
        """Forget the counts; the strength that the controller found stays."""
        self.step = self.misses = self.lookups = 0
        self._tokens.clear()
        self._before = (0, 0)

    @property
    def active(self) -> bool:
        """Whether the constraint counts and acts at this decode step."""
        return isinstance(self.constraint, (Budget, Bias)) and self.step >= self.constraint.start_step

    @property
    def denies_lsb(self) -> bool:
        """Whether LSB reads beyond the target are denied now."""
        return self.active and (isinstance(self.constraint, Budget) or getattr(self.constraint, "deny_lsb", False))

    @property
    def denies_msb(self) -> bool:
        """Whether experts beyond the target are replaced or dropped now."""
        return self.active and isinstance(self.constraint, Budget)

    def allows(self, misses: int, lookups: int) -> bool:
        """Whether a batch with so many new misses and look-ups keeps the target."""
        target = getattr(self.constraint, "target", 1.0)
        return bool(self.misses + misses <= target * (self.lookups + lookups))

    def add(self, misses: int, lookups: int) -> None:
        """Enter one batch."""
        if self.active:
            self.misses += misses
            self.lookups += lookups

    def end_token(self) -> None:
        """Let the controller correct its strength, and go to the next decode step."""
        if isinstance(self.constraint, Bias) and self.active:
            rate = self.misses / self.lookups if self.lookups else 0.0
            strength = self.strength + self.constraint.gain * (rate - self.constraint.target)
            self.strength = min(max(strength, 0.0), 1.0)
            self._slide(self.constraint.window)
        self.step += 1

    def _slide(self, window: int) -> None:
        """Note the token that ends, and forget the one that leaves the window."""
        self._tokens.append((self.misses - self._before[0], self.lookups - self._before[1]))
        if len(self._tokens) == window:
            misses, lookups = self._tokens.popleft()
            self.misses -= misses
            self.lookups -= lookups
        self._before = (self.misses, self.lookups)
