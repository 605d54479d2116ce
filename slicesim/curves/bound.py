"""The lower bound on flash bytes over cache sizes: a curve below those of all policies with the same look-ups."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from slicesim.bound import FlashBound
from slicesim.curves.curve import PHASES, Counts, all_bytes
from slicesim.decide import DecodeDemand, Request, decide
from slicesim.errors import UserError
from slicesim.policies.constraint import NoConstraint
from slicesim.policies.fetch import FetchAll
from slicesim.policies.routing import Stock
from slicesim.policies.slices import IntArray
from slicesim.policies.warmup import PcwTopUp

_NAMES = {"slices": "slices", "whole": "whole experts", "msb": "MSB slices"}


@dataclass(frozen=True)
class BoundCurve:
    """Flash bytes of decode that no cache can do with less than (docs/bound.md); it has no hits and no misses.

    capacities, flash_bytes: int64 [sizes]; tokens: of decode.
    """

    label: str
    note: str
    capacities: IntArray
    flash_bytes: IntArray
    tokens: int
    method: str = field(default="bound", init=False)

    def at(self, capacities: ArrayLike) -> dict[str, Counts]:
        """Return its bytes at cache sizes that it was worked out for."""
        sizes = np.atleast_1d(np.asarray(capacities, dtype=np.int64))
        unknown = np.setdiff1d(sizes, self.capacities)
        if len(unknown):
            raise UserError(f"{self.label}: not known for a cache of {unknown[0]} bytes")
        nothing = np.zeros((len(sizes), 2), dtype=np.int64)
        flash = self.flash_bytes[np.searchsorted(self.capacities, sizes)]
        prefill, decode = PHASES
        return {
            prefill: Counts(0, nothing, nothing, np.zeros(len(sizes), dtype=np.int64)),
            decode: Counts(self.tokens, nothing, nothing, flash),
        }


def bound_curves(requests: Sequence[Request], capacities: IntArray) -> list[BoundCurve]:
    """Return one curve for each kind of look-ups that does not depend on the cache; capacities: bytes, rising.

    Where a policy reroutes, denies or tops up, its look-ups differ from size to size, and no one curve is below it.
    """
    kinds: dict[str, list[Request]] = {}
    for request in requests:
        if _asks_alike_at_all_sizes(request):
            kinds.setdefault(_kind(request), []).append(request)
    curves: list[BoundCurve] = []
    for alike in kinds.values():
        policies = [request.policy.label for request in alike]
        name = f"lower bound, {_NAMES[alike[0].policy.precision.objects]}"
        taken = sum(curve.label.startswith(name) for curve in curves)
        label = name if not taken else f"{name} of {policies[0]}"
        flash_bytes, tokens = _bounds(alike[0], capacities)
        note = f"no cache reads less for the look-ups of {', '.join(policies)}"
        curves.append(BoundCurve(label, note, capacities, flash_bytes, tokens))
    return curves


def _asks_alike_at_all_sizes(request: Request) -> bool:
    policy = request.policy
    plain = ((policy.routing, Stock), (policy.fetch, FetchAll), (policy.constraint, NoConstraint))
    return all(type(strategy) is cls for strategy, cls in plain) and not isinstance(policy.warmup, PcwTopUp)


def _kind(request: Request) -> str:
    """What its look-ups follow from, on one trace."""
    policy = request.policy
    return repr((type(policy.precision), policy.precision, policy.prefill_high))


def _bounds(request: Request, capacities: IntArray) -> tuple[IntArray, int]:
    """Replay once, with room for all, and bound what was looked up at each capacity; with the decode tokens."""
    roomy = dataclasses.replace(request, capacity_bytes=all_bytes(request))
    bound = FlashBound(roomy, capacities.tolist())
    tokens = 0
    for demand in decide(roomy):
        bound.add(demand)
        tokens += len(demand.token) if isinstance(demand, DecodeDemand) else 0
    return np.array(bound.decode_bytes(), dtype=np.int64), tokens
