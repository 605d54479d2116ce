"""The curve of any policy: one replay of the decisions for each cache size."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slicesim.curves.curve import PHASES, Counts, as_sizes, least_bytes
from slicesim.decide import DecodeDemand, Demand, Request
from slicesim.decide.decide import Decision
from slicesim.decide.demand import LSB_FETCHED, LSB_HIT, MSB_FETCHED, MSB_HIT, has
from slicesim.errors import UserError
from slicesim.policies import LSB, MSB
from slicesim.policies.slices import IntArray

#: Strategies are compiled while a Decision is being built, and numba's registries are no place for two at once.
_BUILDING = Lock()


@dataclass(frozen=True)
class ReplayedCurve:
    """Exact at the sizes that were replayed. capacities: int64 [sizes], rising; counts: of each phase there."""

    label: str
    capacities: IntArray
    counts: dict[str, Counts]
    method: str = field(default="replay", init=False)

    def at(self, capacities: ArrayLike) -> dict[str, Counts]:
        """Return the counts of ``prefill`` and ``decode`` at cache sizes that were replayed."""
        sizes = np.atleast_1d(np.asarray(capacities, dtype=np.int64))
        unknown = np.setdiff1d(sizes, self.capacities)
        if len(unknown):
            raise UserError(f"{self.label}: a cache of {unknown[0]} bytes was not replayed")
        place = np.searchsorted(self.capacities, sizes)
        return {
            phase: Counts(part.tokens, part.hits[place], part.misses[place], part.flash_bytes[place])
            for phase, part in self.counts.items()
        }


def replayed_curve(
    request: Request, capacities: ArrayLike, jobs: int = 1, progress: Callable[[float], None] | None = None
) -> ReplayedCurve:
    """Replay at each cache size, in bytes; ``jobs`` replays run at once, ``progress`` is called after
    each with the share that is done.

    They run in threads: compiled decisions do not hold the interpreter, and share the trace. Strategies in plain
    Python gain nothing from more jobs.
    """
    sizes = np.unique(as_sizes(capacities, least_bytes(request), request.policy.label))
    rows = []
    for row in _replay_all(request, sizes.tolist(), jobs):
        rows.append(row)
        if progress is not None:
            progress(len(rows) / len(sizes))
    counts = {phase: _join([row[phase] for row in rows]) for phase in PHASES}
    return ReplayedCurve(request.policy.label, sizes, counts)


def _replay_all(request: Request, sizes: list[int], jobs: int) -> Iterator[dict[str, Counts]]:
    if jobs == 1:
        return (_replay(request, size) for size in sizes)
    try:
        from joblib import Parallel, delayed  # type: ignore[import-untyped]
    except ImportError:
        raise UserError("more than one job needs joblib: pip install 'slicesim[cluster]'") from None
    parallel = Parallel(n_jobs=jobs, prefer="threads", return_as="generator")
    return parallel(delayed(_replay)(request, size) for size in sizes)  # type: ignore[no-any-return]


def _replay(request: Request, capacity: int) -> dict[str, Counts]:
    """Count one replay, with strategies of its own: a user's may keep state."""
    own = dataclasses.replace(request, capacity_bytes=capacity, policy=copy.deepcopy(request.policy))
    with _BUILDING:
        decision = Decision(own)
    total = dict.fromkeys(PHASES, _nothing())
    for demand in decision.run():
        phase = "decode" if isinstance(demand, DecodeDemand) else "prefill"
        total[phase] = _sum(total[phase], _count(demand, own))
    return total


def _count(demand: Demand, request: Request) -> Counts:
    """Count the look-ups and the bytes of one demand table; bytes with those of a top-up or of reading ahead."""
    sizes, layers = request.sizes, len(request.sizes.msb_bytes)
    if isinstance(demand, DecodeDemand):
        tokens, layer = len(demand.token), np.broadcast_to(np.arange(layers)[:, None], demand.outcome.shape)
        ahead = demand.prefetched[demand.prefetched >= 0]
        of_ahead = np.stack((sizes.msb_bytes, sizes.lsb_bytes), axis=1)[
            ahead // 2 // request.trace.header.experts, ahead % 2
        ]
        unasked = int(of_ahead.sum())
    else:
        tokens, layer = demand.prompt_tokens, demand.layer
        of_topup = np.where(
            demand.topup_is_lsb, sizes.lsb_bytes[demand.topup_layer], sizes.msb_bytes[demand.topup_layer]
        )
        unasked = int(of_topup.sum())
    hits, misses = np.zeros((2, 1, 2), dtype=np.int64)
    flash_bytes = np.full(1, unasked)
    for kind, hit, fetched, size in (
        (MSB, MSB_HIT, MSB_FETCHED, sizes.msb_bytes),
        (LSB, LSB_HIT, LSB_FETCHED, sizes.lsb_bytes),
    ):
        missed = _per_layer(has(demand.outcome, fetched), layer, layers)
        hits[0, kind] = has(demand.outcome, hit).sum()
        misses[0, kind] = missed.sum()
        flash_bytes += missed @ size
    return Counts(tokens, hits, misses, flash_bytes)


def _per_layer(which: NDArray[np.bool_], layer: IntArray, layers: int) -> IntArray:
    return np.bincount(layer[which], minlength=layers).astype(np.int64)


def _sum(a: Counts, b: Counts) -> Counts:
    return Counts(a.tokens + b.tokens, a.hits + b.hits, a.misses + b.misses, a.flash_bytes + b.flash_bytes)


def _nothing() -> Counts:
    return Counts(0, np.zeros((1, 2), np.int64), np.zeros((1, 2), np.int64), np.zeros(1, np.int64))


def _join(rows: list[Counts]) -> Counts:
    hits, misses, flash_bytes = (
        np.concatenate([getattr(row, name) for row in rows]) for name in ("hits", "misses", "flash_bytes")
    )
    return Counts(rows[0].tokens, hits, misses, flash_bytes)
