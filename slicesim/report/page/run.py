"""A run as the page shows it: its name, its colour, its sums over tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from slicesim.report.curves import COLOURS
from slicesim.report.intervals import Intervals
from slicesim.report.plots import DRAWN, TIERS
from slicesim.report.saved import SavedRun
from slicesim.report.tables import Summary

#: One colour for each run; black is left out, which dark pages would swallow.
RUN_COLOURS = tuple(colour for colour in COLOURS if colour != "#000000")
#: Bins of tokens in a chart over time.
BINS = 320
_COLUMNS = (*DRAWN, "latency_ps", "error_mass", *(f"{tier}_energy_pj" for tier in (*TIERS, "interconnect")))


@dataclass(frozen=True)
class Run:
    """One of the page's runs. label: short, and different from the others'; number: its place among them."""

    saved: SavedRun
    label: str
    number: int

    @property
    def summary(self) -> Summary:
        """Its figures."""
        return self.saved.summary

    @property
    def colour(self) -> str:
        """Its colour in charts of several runs."""
        return RUN_COLOURS[self.number % len(RUN_COLOURS)]

    @property
    def dash(self) -> str:
        """Its line: beyond the colours there are, dashes tell runs apart."""
        return ("solid", "dash", "dot", "dashdot")[self.number // len(RUN_COLOURS) % 4]

    @cached_property
    def intervals(self) -> Intervals:
        """Bootstrap intervals of its means."""
        return self.saved.intervals

    @cached_property
    def _binned(self) -> tuple[pd.DataFrame, int]:
        return self.saved.binned(_COLUMNS, BINS)

    @property
    def sums(self) -> pd.DataFrame:
        """Sums of columns over bins of decode tokens."""
        return self._binned[0]

    @property
    def width(self) -> int:
        """Tokens of a bin."""
        return self._binned[1]

    @property
    def mean(self) -> pd.DataFrame:
        """Means per token over the same bins; the last one may hold fewer tokens."""
        tokens = sum(self.saved.steps_by_request)
        return self.sums.div(np.minimum(self.width, tokens - self.width * self.sums.index), axis=0)


def named(saved: Sequence[SavedRun]) -> list[Run]:
    """Name runs by their policy; where that is not enough, by their folder too."""
    policies = Counter(one.summary["policy"] for one in saved)
    folders = Counter(one.folder.name for one in saved)
    runs = []
    for number, one in enumerate(saved):
        policy, folder = str(one.summary["policy"]), one.folder.name
        label = policy if policies[policy] == 1 else f"{policy} ({folder if folders[folder] == 1 else one.folder})"
        runs.append(Run(one, label, number))
    return runs
