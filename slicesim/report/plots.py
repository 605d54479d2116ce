"""The overview: four pictures of one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slicesim.report.figure import PAGE_IN, canvas, finish
from slicesim.report.tables import title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: Okabe and Ito's colour-blind safe palette.
COLOURS = {
    "flash": "#D55E00", "dram": "#0072B2", "sram": "#009E73", "npu": "#CC79A7", "background": "#999999",
    "interconnect": "#F0E442",
    "hit": "#0072B2", "low": "#56B4E9", "miss": "#D55E00", "denied": "#E69F00",
}  # fmt: skip
#: Columns of the rows that are drawn, over at most so many bins of tokens.
DRAWN = (
    "dram_stall_ps", "npu_ps", "flash_stall_ps", "exchange_ps", "msb_hits", "lsb_hits", "msb_misses", "lsb_misses",
    "degraded", "substituted", "dropped", "total_mass", "high_mass", "low_mass", "substituted_mass", "dropped_mass",
)  # fmt: skip
BINS = 120
TIERS = ("flash", "dram", "sram", "npu", "background")
#: Parts of a token's latency: column, name, colour.
TIMES = (
    ("dram_stall_ps", "DRAM", "dram"), ("npu_ps", "NPU compute", "npu"),
    ("flash_stall_ps", "waiting for flash", "flash"), ("exchange_ps", "exchange", "interconnect"),
)  # fmt: skip


def overview(summary: dict[str, Any], sums: pd.DataFrame, width: int, path: Path) -> None:
    """Draw latency, energy, look-ups and quality of a run. sums: DRAWN over ``width`` decode tokens each."""
    tokens = summary["decode"]["tokens"]
    mean = sums.div(np.minimum(width, tokens - width * sums.index), axis=0)
    with canvas(PAGE_IN, 5.6, 2, 2) as (figure, axes):
        _latency(axes[0][0], mean, width)
        _energy(axes[0][1], summary)
        _lookups(axes[1][0], mean, width)
        _quality(axes[1][1], sums, width)
        finish(figure, title(summary), summary["trace"], path)


def _stack(axis: Axes, frame: pd.DataFrame, width: int, colours: list[str]) -> None:
    axis.set_xlabel(f"decode token{'' if width == 1 else f' (mean of {width})'}")
    if not len(frame):
        axis.text(0.5, 0.5, "no decode tokens", ha="center", transform=axis.transAxes)
        return
    edges = np.arange(len(frame) + 1) * width
    below = np.zeros(len(frame))
    for name, colour in zip(frame.columns, colours, strict=True):
        above = below + frame[name].to_numpy()
        low, high = (np.append(values, values[-1]) for values in (below, above))
        axis.fill_between(edges, low, high, step="post", color=colour, label=name, linewidth=0)  # faster than bars
        below = above
    axis.set_xlim(0, edges[-1])
    axis.set_ylim(bottom=0)


def _legend(axis: Axes) -> None:
    if not axis.has_data():
        return
    axis.legend(
        ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.18), columnspacing=0.7, handlelength=0.9,
        handletextpad=0.4,
    )  # fmt: skip


def _latency(axis: Axes, mean: pd.DataFrame, width: int) -> None:
    drawn = [time for time in TIMES if time[0] != "exchange_ps" or mean["exchange_ps"].any()]
    parts = mean[[column for column, _, _ in drawn]] / 1e9
    parts.columns = [name for _, name, _ in drawn]
    _stack(axis, parts, width, [COLOURS[colour] for _, _, colour in drawn])
    axis.set_ylabel("latency per token (ms)")
    axis.set_title("Where the time goes")
    _legend(axis)


def _energy(axis: Axes, summary: dict[str, Any]) -> None:
    per_token = summary["decode"]["energy_pj_per_token"]
    tiers = (*TIERS, "interconnect") if per_token["interconnect"] else TIERS
    values = [(per_token[tier] or 0.0) / 1e9 for tier in tiers]
    axis.margins(y=0.1)
    bars = axis.bar(tiers, values, color=[COLOURS[tier] for tier in tiers])
    axis.bar_label(bars, fmt="%.2f")
    total, non_expert = ((per_token[name] or 0.0) / 1e9 for name in ("total", "non_expert"))
    axis.set_ylabel("energy per decode token (mJ)")
    axis.set_title(f"Energy: {total:.1f} mJ per token, {total - non_expert:.1f} of it expert")


def _lookups(axis: Axes, mean: pd.DataFrame, width: int) -> None:
    denied = mean[["degraded", "substituted", "dropped"]].sum(axis=1)
    shown = mean[["msb_hits", "lsb_hits", "msb_misses", "lsb_misses"]].assign(denied=denied)
    shown.columns = ["MSB hit", "LSB hit", "MSB miss", "LSB miss", "denied"]
    colours = [COLOURS["hit"], COLOURS["low"], COLOURS["miss"], "#F0A070", COLOURS["denied"]]
    _stack(axis, shown, width, colours)
    axis.set_ylabel("slice requests per token")
    axis.set_title("What became of the requests")
    _legend(axis)


def _quality(axis: Axes, mass: pd.DataFrame, width: int) -> None:
    names = {"high_mass": "high precision", "low_mass": "low precision", "substituted_mass": "substituted",
             "dropped_mass": "dropped"}  # fmt: skip
    share = mass[list(names)].div(mass["total_mass"].where(mass["total_mass"] > 0), axis=0).fillna(0.0)
    share.columns = list(names.values())
    colours = [COLOURS["hit"], COLOURS["low"], COLOURS["denied"], COLOURS["miss"]]
    _stack(axis, share, width, colours)
    axis.set_ylim(0, 1)
    axis.set_ylabel("share of gate mass")
    axis.set_title("Quality proxy (open loop)")
    _legend(axis)
