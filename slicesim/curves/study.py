"""The curves of several policies on one trace, at common cache sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from slicesim.curves.bound import bound_curves
from slicesim.curves.cliff import cliff_bytes
from slicesim.curves.curve import Curve, all_bytes, least_bytes
from slicesim.curves.one_pass import WARM_PROMPT, lru_curve, why_not_one_pass
from slicesim.curves.replay import replayed_curve
from slicesim.decide import Request
from slicesim.errors import UserError
from slicesim.policies.eviction import Belady
from slicesim.policies.slices import IntArray
from slicesim.report.folder import SUMMARY, write_folder
from slicesim.version import __version__

#: Sizes at which a curve from one pass is drawn, and more around its cliff.
_DRAWN = 1000


class Line(NamedTuple):
    """One policy's curve.

    drawn_at: sizes in bytes, rising, with the study's own among them; offline: it knows the future; optimal: it
    is Belady's; cliff_bytes: of LRU, or None; note: what a reader must know.
    """

    curve: Curve
    drawn_at: IntArray
    offline: bool
    optimal: bool
    cliff_bytes: int | None
    note: str


def miss_rate_curves(
    requests: Sequence[Request],
    points: int,
    *,
    from_gb: float | None = None,
    to_gb: float | None = None,
    jobs: int = 1,
    headroom: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Study:
    """Return the curves of these policies at ``points`` sizes: from one batch to all experts, unless told otherwise.

    headroom: with the lower bound on flash bytes beside them, one curve for each kind of look-ups.

    LRU takes one pass over the trace where that is exact, any other policy one replay for each size, ``jobs`` of them
    at once; those with a cliff are replayed around it too. progress: called with the number of (policy, size)
    pairs done.
    """
    labels = [request.policy.label for request in requests]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"two of the policies are called {label!r}: leave one out")
    sizes = _grid(requests, points, from_gb, to_gb)
    lines = []
    for number, request in enumerate(requests):
        reason, cliff = why_not_one_pass(request), cliff_bytes(request)
        drawn_at = _around_the_cliff(request, cliff, sizes)

        def tick(share: float, before: int = number) -> None:
            if progress is not None:
                progress(int((before + share) * len(sizes)))

        curve: Curve
        if reason is None:
            curve = lru_curve(request)
            fine = np.linspace(sizes[0], sizes[-1], _DRAWN).astype(np.int64)
            drawn_at = np.union1d(drawn_at, fine)
            tick(1)
        else:
            curve = replayed_curve(request, drawn_at, jobs, tick)
        eviction = request.policy.eviction
        optimal = isinstance(eviction, Belady)
        note = _note(request, reason, prompts=curve.at(sizes[:1])["prefill"].tokens > 0)
        lines.append(Line(curve, drawn_at, request.policy.needs_future, optimal, cliff, note))
    bounds = bound_curves(requests, sizes) if headroom else []
    lines += [Line(bound, sizes, True, False, None, bound.note) for bound in bounds]
    return Study(tuple(lines), sizes)


@dataclass(frozen=True)
class Study:
    """Curves at common sizes. capacities: int64, bytes, rising."""

    lines: tuple[Line, ...]
    capacities: IntArray

    def frame(self) -> pd.DataFrame:
        """Return one row per policy, phase and size: rates are fractions of 1, sizes GB (1e9) and bytes."""
        return self._frame(lambda line: self.capacities)

    def drawn(self) -> pd.DataFrame:
        """Return the same at the sizes that are drawn: as many as one pass can give, and both sides of a cliff."""
        return self._frame(lambda line: line.drawn_at)

    def describe(self, head: dict[str, Any]) -> dict[str, Any]:
        """Return everything as plain data. head: what a simulation says of scenario, model and trace."""
        frame = self.frame()
        points = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return {
            "slicesim_version": __version__,
            "scenario": {key: value for key, value in head["scenario"].items() if key != "policy"},
            "model": head["model"]["name"],
            "trace": head["trace"],
            "curves": [
                {
                    "policy": line.curve.label,
                    "method": line.curve.method,
                    "offline": line.offline,
                    "optimal_for_equal_sizes": line.optimal,
                    "cliff_bytes": line.cliff_bytes,
                    "note": line.note,
                }
                for line in self.lines
            ],
            "points": points,
        }

    def save(self, folder: str | Path, description: dict[str, Any]) -> Path:
        """Write summary.json, mrc.parquet, mrc.png and mrc.svg; the folder appears only when whole."""
        from slicesim.report.curves import mrc_plot

        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
        files: dict[str, Callable[[Path], object]] = {
            SUMMARY: lambda path: path.write_text(text, encoding="utf-8"),
            "mrc.parquet": lambda path: self.frame().to_parquet(path, index=False),
            "mrc.png": lambda path: mrc_plot(description, self.drawn(), path),
        }
        return write_folder(Path(folder), files)

    def _frame(self, sizes_of: Callable[[Line], IntArray]) -> pd.DataFrame:
        return pd.concat([part for line in self.lines for part in _rows(line.curve, sizes_of(line))], ignore_index=True)


def _rows(curve: Curve, sizes: IntArray) -> Iterator[pd.DataFrame]:
    for phase, counts in curve.at(sizes).items():
        if counts.tokens:
            yield pd.DataFrame(
                {
                    "policy": curve.label,
                    "method": curve.method,
                    "phase": phase,
                    "capacity_gb": sizes / 1e9,
                    "capacity_bytes": sizes,
                    **{f"miss_rate_{kind}": rate for kind, rate in counts.miss_rates().items()},
                    "flash_bytes_per_token": counts.flash_bytes_per_token(),
                    "tokens": counts.tokens,
                    **{
                        f"{kind}_{what}": column[:, place]
                        for what, column in (("hits", counts.hits), ("misses", counts.misses))
                        for place, kind in enumerate(("msb", "lsb"))
                    },
                }
            )


def _grid(requests: Sequence[Request], points: int, from_gb: float | None, to_gb: float | None) -> IntArray:
    least = max(least_bytes(request) for request in requests)
    low = least if from_gb is None else round(from_gb * 1e9)
    high = max(all_bytes(request) for request in requests) if to_gb is None else round(to_gb * 1e9)
    if low < least:
        raise UserError(f"--from: {low / 1e9:g} GB hold less than one batch of experts; give at least {least / 1e9:g}")
    if high < low:
        raise UserError(f"--to: {high / 1e9:g} GB is below the smallest size of {low / 1e9:g} GB")
    return np.unique(np.linspace(low, high, points).astype(np.int64))


def _around_the_cliff(request: Request, cliff: int | None, sizes: IntArray) -> IntArray:
    """Add what shows a cliff: the sizes on both sides of it, and the first that holds what one token wants."""
    if cliff is None:
        return sizes
    token = request.trace.header.top_k * int(request.sizes.msb_bytes.sum())
    added = np.array([cliff - 1, cliff, token])
    return np.union1d(sizes, added[(added >= sizes[0]) & (added <= sizes[-1])])


def _note(request: Request, reason: str | None, prompts: bool) -> str:
    notes = []
    if reason == WARM_PROMPT:
        notes.append(f"replayed: {reason}")
    if isinstance(request.policy.eviction, Belady):
        notes.append("optimal for objects of equal size only")
        if request.sizes.lsb_bytes.any() or len(set(request.sizes.msb_bytes.tolist())) > 1:
            notes.append("no bound here: sizes differ")
        elif prompts:
            notes.append("no proven bound here: prompts stream in an order of their own")
    if request.policy.constraint.watch() is not None or not request.policy.fetch.lsb:
        notes.append("denied requests are no look-ups")
    return "; ".join(notes)
