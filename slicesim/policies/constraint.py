"""Constraint: how a target miss rate of slice requests is met (semantics, sections 4 and 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from pydantic import Field

from slicesim.policies.base import Strategy


class Watch(NamedTuple):
    """What a constraint watches and does from decode step ``start_step`` of each request on.

    Counted are all look-ups since then, or those of the last ``window`` tokens where that is above 0.
    denies_lsb, denies_msb: reads beyond the target are denied; gain: of the controller on the routing's strength.
    price_gain: above 0, LSBs are denied, and so are missing experts whose gate is below a price; after each batch the
    price moves by price_gain x (miss rate of the batch - aim).
    """

    target: float
    start_step: int
    denies_lsb: bool
    denies_msb: bool
    gain: float = 0.0
    window: int = 0
    aim: float = 0.0
    price_gain: float = 0.0


class Constraint(Strategy):
    """Base of all constraints.

    steers: moves the strength of cache-aware routing; needs_future: fixes it before the run, from replays of the whole
    trace.
    """

    kind: ClassVar[str] = "constraint"
    steers: ClassVar[bool] = False
    needs_future: ClassVar[bool] = False

    @property
    def counted_from(self) -> int:
        """Decode step of each request, from 0, from which look-ups count towards its target."""
        return int(getattr(self, "start_step", 0))

    def strength(self, rate: Callable[[float], float]) -> float:
        """Return the strength for the whole run, where the strategy ``needs_future``.

        rate: replays the whole trace at a strength, and returns its miss rate of slice requests in decode.
        """
        raise NotImplementedError(f"{type(self).__name__} must define strength")

    def watch(self) -> Watch | None:
        """Return what is watched, or None."""
        return None


class NoConstraint(Constraint):
    """Every miss is allowed.

    Source: none.
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py).
    """

    name: ClassVar[str] = "none"


class Budget(Constraint):
    """When a batch would lift the request's running miss rate above the target, requests are denied.

    First the lowest-gate missing LSB slices (those experts run low: degraded), then the lowest-gate missing experts,
    replaced by the best-scored resident expert where the trace holds logits, dropped where it does not. The
    first-ranked expert's MSB is never denied. Source: SliceMoE's constraint (arXiv 2512.12990), our rule.
    Checked by: tests/parity/test_decisions.py (a second replay in plain Python).
    """

    name: ClassVar[str] = "budget"
    target: float = Field(0.05, ge=0, le=1, description="miss rate of slice requests, a fraction of 1")
    start_step: int = Field(10, ge=0, description="decode step, from 0, at which counting and denying begin")

    def watch(self) -> Watch:
        """Deny LSBs, then experts."""
        return Watch(self.target, self.start_step, denies_lsb=True, denies_msb=True)


class Paced(Constraint):
    """A budget that is spent where the gate is high: a missing expert is read where its gate is worth the price.

    While it acts, a missing LSB is not read (the expert runs low), and a missing expert whose gate is below the price
    is denied as under ``budget``; never the first-ranked one. After each batch price = clip(price + gain x (rate -
    share x target), 0, 1), rate being the batch's misses / look-ups. The budget's own rule holds besides.
    Source: ours. Under ``budget`` a batch denies by its own gates alone, and spends all it may; here reads are weighed
    against those of other tokens, and ``share`` says how much of the target is aimed at.
    Checked by: tests/decide/test_paced.py, by hand and against a plain replay.
    """

    name: ClassVar[str] = "paced"
    target: float = Field(0.05, ge=0, le=1, description="miss rate of slice requests, a fraction of 1")
    start_step: int = Field(10, ge=0, description="decode step, from 0, at which counting and denying begin")
    share: float = Field(0.9, ge=0, le=1, description="of the target, that the price aims at")
    gain: float = Field(0.01, gt=0, le=1, description="gate score by which the price moves per unit of miss rate")

    def watch(self) -> Watch:
        """Deny by price, and by the budget."""
        aim = self.share * self.target
        return Watch(self.target, self.start_step, denies_lsb=True, denies_msb=True, aim=aim, price_gain=self.gain)


class Bias(Constraint):
    """An integral controller on Cache-Prior's strength holds the running miss rate at the target. Needs logits.

    After each token strength = clip(strength + gain x (rate - target), 0, 1), the rate being that of the request's
    last ``window`` tokens. Strength moves MSB misses alone; an LSB that misses is read only while that rate keeps the
    target, else the expert runs low (``deny_lsb: false`` reads every one). Source: SliceMoE (arXiv 2512.12990).
    Checked by: tests/decide/test_constraints.py (by hand).
    """

    name: ClassVar[str] = "bias"
    steers: ClassVar[bool] = True
    target: float = Field(0.05, ge=0, le=1, description="miss rate of slice requests, a fraction of 1")
    start_step: int = Field(10, ge=0, description="decode step, from 0, at which the controller begins")
    gain: float = Field(0.2, gt=0, description="rise of strength per token and unit of miss rate above the target")
    window: int = Field(100, ge=1, description="tokens that the running rate is taken over")
    deny_lsb: bool = Field(True, description="deny LSB reads beyond the target")

    def watch(self) -> Watch:
        """Steer the strength; deny LSBs alone."""
        return Watch(self.target, self.start_step, self.deny_lsb, False, self.gain, self.window)


class Bisect(Constraint):
    """Offline bisection: the smallest constant Cache-Prior strength whose miss rate meets the target. Needs logits.

    Replays the whole trace at strength 0, at 1, then at the middle of what is left, until the smallest strength found
    to meet the target lies within ``tolerance`` of one that does not (or ``most_replays`` are done). The rate is that
    of decode slice requests from ``start_step`` of each request on. Nothing is denied. Where 1 misses the target too,
    1 is used and the rate reached is reported. Knows the whole trace: a baseline for ``bias``, not a system.
    Source: Cache-Prior (arXiv 2412.00099) sweeps a constant strength offline.
    Checked by: tests/decide/test_bisection.py (target met, and not by a strength lower by the tolerance).
    """

    name: ClassVar[str] = "bisect"
    steers: ClassVar[bool] = True
    needs_future: ClassVar[bool] = True
    target: float = Field(0.05, ge=0, le=1, description="miss rate of slice requests, a fraction of 1")
    start_step: int = Field(10, ge=0, description="decode step, from 0, at which counting begins")
    tolerance: float = Field(0.01, gt=0, le=1, description="of the strength, which is a number from 0 to 1")
    most_replays: int = Field(12, ge=2, description="replays of the trace in search of it")

    def strength(self, rate: Callable[[float], float]) -> float:
        """Bisect between 0, which is stock routing, and 1."""
        fails, meets = 0.0, 1.0
        if rate(fails) <= self.target:
            return fails
        if rate(meets) > self.target:
            return meets
        replays = 2
        while meets - fails > self.tolerance and replays < self.most_replays:
            middle = (fails + meets) / 2
            fails, meets = (fails, middle) if rate(middle) <= self.target else (middle, meets)
            replays += 1
        return meets
