"""Constraint: how a target miss rate of slice requests is met (semantics, sections 4 and 10)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from pydantic import Field

from slicesim.policies.base import Strategy


class Watch(NamedTuple):
    """What a constraint watches and does from decode step ``start_step`` of each request on.

    Counted are all look-ups since then, or those of the last ``window`` tokens where that is above 0.
    denies_lsb, denies_msb: reads beyond the target are denied; gain: of the controller on the routing's strength.
    """

    target: float
    start_step: int
    denies_lsb: bool
    denies_msb: bool
    gain: float = 0.0
    window: int = 0


class Constraint(Strategy):
    """Base of all constraints."""

    kind: ClassVar[str] = "constraint"

    def watch(self) -> Watch | None:
        """Return what is watched, or None."""
        return None


class NoConstraint(Constraint):
    """Every miss is allowed."""

    name: ClassVar[str] = "none"


class Budget(Constraint):
    """When a batch would lift the request's running miss rate above the target, requests are denied.

    First the lowest-gate missing LSB slices (those experts run low: degraded), then the lowest-gate missing experts,
    replaced by the best-scored resident expert where the trace holds logits, dropped where it does not. The
    first-ranked expert's MSB is never denied.
    """

    name: ClassVar[str] = "budget"
    target: float = Field(0.05, ge=0, le=1)
    start_step: int = Field(10, ge=0, description="decode step, from 0, at which counting and denying begin")

    def watch(self) -> Watch:
        """Deny LSBs, then experts."""
        return Watch(self.target, self.start_step, denies_lsb=True, denies_msb=True)


class Bias(Constraint):
    """An integral controller on Cache-Prior's strength. Needs rerouting, so logits.

    After each token strength = clip(strength + gain x (rate - target), 0, 1), the rate being that of the request's
    last ``window`` tokens. Strength moves MSB misses alone; an LSB that misses is read only while that rate keeps the
    target, else the expert runs low (slicemoe.md 2, rows 2 and 3; ``deny_lsb: false`` reads every one).
    """

    name: ClassVar[str] = "bias"
    target: float = Field(0.05, ge=0, le=1)
    start_step: int = Field(10, ge=0, description="decode step, from 0, at which the controller begins")
    gain: float = Field(0.2, gt=0)
    window: int = Field(100, ge=1)
    deny_lsb: bool = True

    def watch(self) -> Watch:
        """Steer the strength; deny LSBs alone."""
        return Watch(self.target, self.start_step, self.deny_lsb, False, self.gain, self.window)
