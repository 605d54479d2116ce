"""A device that slows down as it warms up: a factor and a time constant, evaluated from integer picoseconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import exp, log

#: Shares of a rate are whole parts of this many, so that a duration stays a matter of integers.
PARTS = 10**6

#: Levels of heat in which a run counts: with a third of the rate to lose, each one costs half a percent.
LEVELS = 64


@dataclass(frozen=True)
class Thermal:
    """First-order warming: ``share(t) = 1 - (1 - hot_share) x (1 - exp(-t / tau))`` after t of service.

    ``hot_share`` is the rate of a hot device over that of a cold one: 0.67 on a phone after an hour of decoding
    (BigMoeOnEdge, hardware.md 2.1: 1,645 of 2,460 MiB/s). Time counts while the device is busy; it never cools within
    a run, which errs on the slow side for runs with long pauses.
    """

    hot_share: float = 1.0
    time_constant_s: float = 1.0

    def share_parts(self, busy_ps: int) -> int:
        """Rate left after ``busy_ps`` of service, in millionths, rounded down."""
        warmed = 1.0 - exp(-(busy_ps * 1e-12) / self.time_constant_s)
        return max(1, int(PARTS * (1.0 - (1.0 - self.hot_share) * warmed)))

    @cached_property
    def level_starts_ps(self) -> tuple[int, ...]:
        """Busy time at which each level of heat begins: the part n / LEVELS of the loss has come. One level if none."""
        if self.hot_share >= 1:
            return (0,)
        return tuple(round(-self.time_constant_s * log(1 - level / LEVELS) * 1e12) for level in range(LEVELS))
