"""Charts of tokens: time, look-ups, energy, quality. One run is stacked by what it is made of, several overlay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from slicesim.report.page.figure import Figure, Trace, bars, layout, listed, text
from slicesim.report.page.run import Run
from slicesim.report.plots import COLOURS, TIERS, TIMES

#: Requests whose borders are drawn, at most.
MOST_BORDERS = 24

_STACKED = {"barmode": "stack", "bargap": 0}
_TOKEN = "decode token"


class Part(NamedTuple):
    """One part of a stack: columns that are added up, a name, a colour, a factor to the unit of the axis."""

    columns: tuple[str, ...]
    name: str
    colour: str
    factor: float = 1.0


_TIME_PARTS = tuple(Part((column,), name, COLOURS[colour], 1e-9) for column, name, colour in TIMES)
_LOOKUP_PARTS = (
    Part(("msb_hits",), "MSB hit", COLOURS["hit"]),
    Part(("lsb_hits",), "LSB hit", COLOURS["low"]),
    Part(("msb_misses",), "MSB miss", COLOURS["miss"]),
    Part(("lsb_misses",), "LSB miss", "#F0A070"),
    Part(("degraded", "substituted", "dropped"), "denied", COLOURS["denied"]),
)
_MASS_PARTS = (
    Part(("high_mass",), "high precision", COLOURS["hit"], 100),
    Part(("low_mass",), "low precision", COLOURS["low"], 100),
    Part(("substituted_mass",), "substituted", COLOURS["denied"], 100),
    Part(("dropped_mass",), "dropped", COLOURS["miss"], 100),
)


def charts(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the charts of one run, or of several over each other; those of which nothing is known are left out."""
    drawn = [run for run in runs if len(run.sums)]
    if not drawn:
        return
    looked_up = [run for run in drawn if _total(run, _LOOKUP_PARTS[:4])]
    weighed = [run for run in drawn if run.sums["total_mass"].any()]
    if len(runs) == 1:
        yield _latency(drawn[0])
        yield from map(_lookups, looked_up)
        yield from map(_quality, weighed)
        yield _energy(drawn)
        yield _energy_over_time(drawn[0])
        return
    yield _line_latency(drawn)
    yield _time_parts(drawn)
    if looked_up:
        yield _line_misses(looked_up)
        yield _lookup_parts(looked_up)
    yield _energy(drawn)
    if weighed:
        yield _mass_parts(weighed)
        yield _line_error(weighed)


def _total(run: Run, parts: Sequence[Part]) -> float:
    return float(run.sums[[column for part in parts for column in part.columns]].to_numpy().sum())


def _traces(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    return [run.summary["trace"] for run in runs]


def _across(runs: Sequence[Run]) -> str:
    widest = max(run.width for run in runs)
    return _TOKEN if widest == 1 else f"{_TOKEN} (means of {widest})"


def _places(run: Run) -> Any:
    """Where a bin's bar stands: in the middle of its tokens."""
    return np.arange(len(run.sums)) * run.width + (run.width - 1) / 2


def _stack(run: Run, frame: pd.DataFrame, parts: Sequence[Part], form: str) -> list[Trace]:
    stacked = []
    for part in parts:
        heights = frame[list(part.columns)].sum(axis=1) * part.factor
        if heights.any():
            hover = f"{part.name}: %{{y:{form}}}<extra></extra>"
            stacked.append(
                bars(part.name, _places(run), heights.to_numpy(), part.colour, width=run.width, hovertemplate=hover)
            )
    return stacked


def _borders(run: Run) -> list[dict[str, Any]]:
    """Lines between requests, where those are few."""
    ends = np.cumsum(run.saved.steps_by_request)[:-1]
    if len(ends) > MOST_BORDERS:
        return []
    return [
        {
            "type": "line", "x0": float(end) - 0.5, "x1": float(end) - 0.5, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"width": 1, "dash": "dot", "color": "#888888"},
        }
        for end in ends.tolist()
    ]  # fmt: skip


def _over_time(run: Run, up: str, **more: Any) -> dict[str, Any]:
    return layout(
        _traces([run]), _across([run]), up, shapes=_borders(run), hovermode="x unified",
        xaxis={"range": [-0.5, sum(run.saved.steps_by_request) - 0.5]}, **_STACKED, **more,
    )  # fmt: skip


def _latency(run: Run) -> Figure:
    reading = (
        "One bar is one token, or the mean of neighbours where there are many. Orange is time in which the processor "
        "waits for experts from flash; dotted lines part requests."
    )
    return Figure(
        "latency", "Where each token's time goes", reading, _stack(run, run.mean, _TIME_PARTS, ".4g"),
        _over_time(run, "latency per token (ms)"), is_wide=True,
    )  # fmt: skip


def _lookups(run: Run) -> Figure:
    reading = (
        "What became of the slices that a token asked for: found in DRAM (blue), read from flash (orange-red), or "
        "denied by the miss budget (amber: degraded to low precision, substituted or dropped)."
    )
    return Figure(
        "lookups", "Hits and misses over time", reading, _stack(run, run.mean, _LOOKUP_PARTS, ".4g"),
        _over_time(run, "slice requests per token"),
    )  # fmt: skip


def _quality(run: Run) -> Figure:
    mass = run.sums.div(run.sums["total_mass"].where(run.sums["total_mass"] > 0), axis=0).fillna(0.0)
    error = run.summary["decode"]["quality"]["expected_rel_mse"]
    said = "" if error is None else f" Expected relative error of the experts' output: {error:.4g}."
    reading = (
        "Share of the router's gate mass that ran as the model chose, at which precision. An open-loop proxy, not a "
        f"measured accuracy.{said}"
    )
    return Figure(
        "quality", "Quality proxy", reading, _stack(run, mass, _MASS_PARTS, ".3g"),
        _over_time(run, "share of gate mass (%)", yaxis={"range": [0, 100]}),
    )  # fmt: skip


def _tiers(runs: Sequence[Run]) -> list[str]:
    return [*TIERS, "interconnect"] if any(_per_token(run, "interconnect") for run in runs) else list(TIERS)


def _per_token(run: Run, tier: str) -> float:
    """Energy of a tier, mJ per decode token."""
    return (run.summary["decode"]["energy_pj_per_token"][tier] or 0.0) * 1e-9


def _energy(runs: Sequence[Run]) -> Figure:
    tiers = _tiers(runs)
    alone = len(runs) == 1
    labels = {"texttemplate": "%{y:.3g}", "textposition": "outside", "cliponaxis": False} if alone else {}
    data = []
    for run in runs:
        colour: Any = [COLOURS[tier] for tier in tiers] if alone else run.colour
        hover = f"{text(run.label)}: %{{y:.4g}} mJ<extra></extra>"
        heights = [_per_token(run, tier) for tier in tiers]
        data.append(bars(run.label, tiers, heights, colour, hovertemplate=hover, **labels))
    reading = "Energy of a decode token by where it is spent."
    if alone:
        total, other = _per_token(runs[0], "total"), _per_token(runs[0], "non_expert")
        reading += f" {total:.4g} mJ in all, {total - other:.4g} without the traffic of attention and shared weights."
    return Figure(
        "energy", "Energy by tier", reading, data,
        layout(_traces(runs), "", "energy per token (mJ)", barmode="group", bargap=0.3, showlegend=not alone),
    )  # fmt: skip


def _energy_over_time(run: Run) -> Figure:
    parts = [Part((f"{tier}_energy_pj",), tier, COLOURS[tier], 1e-9) for tier in _tiers([run])]
    return Figure(
        "energy-time", "Energy over time", "The same, token by token: what flash reads cost after a cold start shows.",
        _stack(run, run.mean, parts, ".4g"), _over_time(run, "energy per token (mJ)"),
    )  # fmt: skip


def _lines(runs: Sequence[Run], heights: Mapping[int, Any], unit: str) -> list[Trace]:
    return [
        {
            "type": "scatter", "mode": "lines", "name": text(run.label), "x": listed(_places(run)),
            "y": listed(heights[run.number]), "line": {"color": run.colour, "width": 1.6, "dash": run.dash},
            "hovertemplate": f"{text(run.label)}: %{{y:.4g}}{unit}<extra></extra>",
        }
        for run in runs
    ]  # fmt: skip


def _line_figure(
    runs: Sequence[Run], key: str, heading: str, reading: str, heights: Mapping[int, Any], up: str, unit: str,
    is_wide: bool = False,
) -> Figure:  # fmt: skip
    ways = layout(_traces(runs), _across(runs), up, hovermode="x unified")
    return Figure(key, heading, reading, _lines(runs, heights, unit), ways, is_wide)


def _line_latency(runs: Sequence[Run]) -> Figure:
    heights = {run.number: run.mean["latency_ps"].to_numpy() * 1e-9 for run in runs}
    return _line_figure(
        runs, "latency", "Latency per token", "One line is one run; long runs are drawn as means of neighbouring "
        "tokens.", heights, "latency per token (ms)", " ms", is_wide=True,
    )  # fmt: skip


def _line_misses(runs: Sequence[Run]) -> Figure:
    heights = {}
    for run in runs:
        missed = run.sums[["msb_misses", "lsb_misses"]].sum(axis=1)
        asked = missed + run.sums[["msb_hits", "lsb_hits"]].sum(axis=1)
        heights[run.number] = (100 * missed / asked.where(asked > 0)).fillna(0.0).to_numpy()
    return _line_figure(
        runs, "misses", "Miss rate over time", "Share of slice look-ups that had to read from flash.", heights,
        "miss rate (%)", " %",
    )  # fmt: skip


def _line_error(runs: Sequence[Run]) -> Figure:
    mass = {run.number: run.sums["total_mass"].where(run.sums["total_mass"] > 0) for run in runs}
    heights = {run.number: (run.sums["error_mass"] / mass[run.number]).fillna(0.0).to_numpy() for run in runs}
    return _line_figure(
        runs, "error", "Expected error over time", "Expected relative error of the experts' output; an open-loop "
        "proxy, not a measured accuracy. Less is better.", heights, "expected relative MSE", "",
    )  # fmt: skip


def _side_by_side(runs: Sequence[Run], values: Mapping[int, list[float]], parts: Sequence[Part]) -> list[Trace]:
    """One bar lying for each run, made of parts; values: by number of the run."""
    data = []
    for place, part in enumerate(parts):
        lengths = [values[run.number][place] for run in runs]
        if any(lengths):
            hover = f"%{{y}}, {part.name}: %{{x:.4g}}<extra></extra>"
            names = [text(run.label) for run in runs]
            data.append(bars(part.name, lengths, names, part.colour, orientation="h", hovertemplate=hover))
    return data


def _lying(runs: Sequence[Run], across: str, **more: Any) -> dict[str, Any]:
    return layout(
        _traces(runs), across, "", barmode="stack", bargap=0.35, yaxis={"autorange": "reversed", "automargin": True},
        **more,
    )  # fmt: skip


def _sums(run: Run, parts: Sequence[Part], over: float) -> list[float]:
    return [float(run.sums[list(part.columns)].to_numpy().sum()) * part.factor / over for part in parts]


def _time_parts(runs: Sequence[Run]) -> Figure:
    values = {run.number: _sums(run, _TIME_PARTS, run.summary["decode"]["tokens"]) for run in runs}
    return Figure(
        "time-parts", "Where a token's time goes", "Mean over all decode tokens.",
        _side_by_side(runs, values, _TIME_PARTS), _lying(runs, "latency per token (ms)"),
    )  # fmt: skip


def _lookup_parts(runs: Sequence[Run]) -> Figure:
    values = {run.number: _sums(run, _LOOKUP_PARTS, run.summary["decode"]["tokens"]) for run in runs}
    return Figure(
        "lookup-parts", "What became of the requests", "Slices asked for by a decode token: found in DRAM, read from "
        "flash, or denied by the miss budget.", _side_by_side(runs, values, _LOOKUP_PARTS),
        _lying(runs, "slice requests per token"),
    )  # fmt: skip


def _mass_parts(runs: Sequence[Run]) -> Figure:
    values = {run.number: _sums(run, _MASS_PARTS, float(run.sums["total_mass"].sum())) for run in runs}
    return Figure(
        "mass-parts", "Quality proxy", "Share of the router's gate mass that ran as the model chose, at which "
        "precision. Open loop.", _side_by_side(runs, values, _MASS_PARTS),
        _lying(runs, "share of gate mass (%)", xaxis={"range": [0, 100]}),
    )  # fmt: skip
