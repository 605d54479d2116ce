"""What a run returns: figures, one row per step, the events of the first tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from slicesim.decide import DecodeDemand, Demand
from slicesim.decide.residency import Residency
from slicesim.policies import Constraint
from slicesim.report.folder import SUMMARY, write_folder
from slicesim.report.intervals import COLUMNS, Intervals, intervals, sum_by_request
from slicesim.report.summary import constraint_report, optimum_report, summarise
from slicesim.report.timeline import Part, events, write_timeline
from slicesim.rows import Rows
from slicesim.schedule import Plan, Timeline


@dataclass
class Window:
    """The timelines of the first prompt and of the first decode tokens, for drawing."""

    tokens_left: int
    parts: list[Part] = field(default_factory=list)

    def add(self, demand: Demand, plan: Plan, timeline: Timeline) -> None:
        """Keep a table while there is room; the last entry says how many of its steps count."""
        is_decode = isinstance(demand, DecodeDemand)
        has_prompt = any(not isinstance(part[0], DecodeDemand) for part in self.parts)
        if self.tokens_left <= 0 or (has_prompt and not is_decode):
            return
        steps = min(plan.workload.steps, self.tokens_left)
        self.parts.append(Part(demand, plan, timeline, steps))
        self.tokens_left -= steps if is_decode else 0


@dataclass(frozen=True)
class Result:
    """One run.

    summary: the figures, plain data; rows: one row per decode token and one per prompt; window: events for the
    timeline; residency: snapshots of the cache, where any were taken.
    """

    summary: dict[str, Any]
    rows: Rows
    window: Window
    residency: Residency | None = None

    @classmethod
    def collect(
        cls,
        head: dict[str, Any],
        constraint: Constraint,
        rows: Rows,
        window: Window,
        bound_bytes: int | None = None,
        residency: Residency | None = None,
    ) -> Result:
        """Sum up the rows of all demand tables. bound_bytes: least flash bytes of decode, where they are known."""
        summary = {**head, **summarise(rows.phases)}
        if bound_bytes is not None:
            summary["decode"]["optimum"] = optimum_report(summary["decode"], bound_bytes)
        summary["decode"]["constraint"] = constraint_report(rows.active, constraint)
        summary["warnings"] = [*head["warnings"], *_hindsight(summary["decode"])]
        return cls(summary, rows, window, residency)

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """All rows: ``phase`` is ``prefill`` or ``decode``, counts, bytes, ps and pJ as the column names say."""
        return self.rows.frame()

    @cached_property
    def intervals(self) -> Intervals:
        """95 % bootstrap intervals of the means, over requests."""
        return intervals(sum_by_request(self.rows.frames(["phase", "request", *COLUMNS])))

    @property
    def decode(self) -> dict[str, Any]:
        """The summary's decode part."""
        part: dict[str, Any] = self.summary["decode"]
        return part

    @property
    def prefill(self) -> dict[str, Any]:
        """The summary's prefill part."""
        part: dict[str, Any] = self.summary["prefill"]
        return part

    def events(self) -> pd.DataFrame:
        """Bars of the window: track, name, start_ps, duration_ps, step, phase, and what more is known of each."""
        return events(self.window.parts)

    def to_json(self) -> str:
        """The summary as text; figures that do not exist are null."""
        return json.dumps(self.summary, indent=2, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> Path:
        """Write summary.json, tokens.parquet, timeline.json, overview.png, overview.svg, and residency.parquet.

        The folder appears only when whole.
        """
        from slicesim.report.plots import BINS, DRAWN, overview

        files: dict[str, Callable[[Path], object]] = {
            SUMMARY: lambda path: path.write_text(self.to_json(), encoding="utf-8"),
            "tokens.parquet": self.rows.save,
            "timeline.json": lambda path: write_timeline(self.window.parts, self.summary["trace"], path),
            "overview.png": lambda path: overview(self.summary, *self.rows.binned(DRAWN, BINS), path),
        }
        residency = self.residency
        if residency is not None and residency.snapshots:
            files["residency.parquet"] = lambda path: residency.save(path, self.summary["trace"]["layers"])
        return write_folder(Path(folder), files)


def _hindsight(decode: dict[str, Any]) -> Iterator[str]:
    """What only a run can tell: nothing to decode, or a target that was out of reach."""
    if not decode["tokens"]:
        yield "no decode tokens in this trace as it is split: set trace.split to all-decode or to a fraction"
    report = decode["constraint"]
    if report.get("rate") is not None and report["rate"] > 1.1 * report["target"]:
        full = report["strength_last"] == 1.0
        hint = "; lambda is at 1, so only a smaller policy.routing.top_j or a larger cache reaches further" * full
        yield f"miss rate target {report['target']:.1%} not met: {report['rate']:.2%} reached{hint}"
