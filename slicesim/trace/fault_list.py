"""Faults of a trace, collected: the first is the error a user sees, all of them what ``validate`` prints."""

from __future__ import annotations

from slicesim.errors import UserError

#: Faults that are written out; the others are counted.
SHOWN_FAULTS = 20


class FaultList:
    """One line per fault; the first 20 are kept, the rest counted."""

    def __init__(self) -> None:
        self.total = 0
        self._shown: list[str] = []

    def add(self, line: str) -> None:
        """Note a fault."""
        self.total += 1
        if len(self._shown) < SHOWN_FAULTS:
            self._shown.append(line)

    def lines(self) -> list[str]:
        """Return the faults, with a last line that counts those left out."""
        left = self.total - len(self._shown)
        return [*self._shown, f"... and {left} more"] if left else list(self._shown)

    def refuse(self) -> None:
        """Raise FaultyTraceError where there is any."""
        if self.total:
            raise FaultyTraceError(self)


class FaultyTraceError(UserError):
    """A faulty trace; its message is the first fault."""

    def __init__(self, found: FaultList) -> None:
        super().__init__(found.lines()[0])
        self.found = found
