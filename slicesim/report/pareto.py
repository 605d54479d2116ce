"""The picture of energy against quality: one point for each policy, and the front of those that none beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from slicesim.report.curves import COLOURS
from slicesim.report.figure import LANDSCAPE_IN, TEXT, canvas, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

#: Columns of a row that are drawn: across, and up (in mJ).
QUALITY, ENERGY = "expected_rel_mse", "energy_pj"


class _Look(NamedTuple):
    colour: str
    marker: str
    meaning: str


#: By what the cache holds.
_LOOKS = {
    "slices": _Look(COLOURS[0], "o", "bit slices"),
    "whole": _Look(COLOURS[1], "s", "whole experts, high precision"),
    "msb": _Look(COLOURS[2], "D", "MSB slices alone"),
}

#: Points closer than this across share a column of labels. Distances in pixels.
_COLUMN, _LINE, _GAP = 60, 15, 45


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other one beats in energy and quality, by falling quality.

    Those that know the future do not count, nor those without headroom, which no capacity binds. Rows without decode
    tokens have neither energy nor quality, and are passed over.
    """
    front: list[Row] = []
    online = [row for row in rows if not row["offline"] and row["headroom"] is not None and _is_drawn(row)]
    for row in sorted(online, key=lambda row: (row[QUALITY], row[ENERGY])):
        if not front or row[ENERGY] < front[-1][ENERGY]:
            front.append(row)
    return front


def pareto_plot(rows: Sequence[Row], heading: str, trace: Mapping[str, Any], path: Path) -> None:
    """Draw energy per token over the quality proxy (PNG and SVG); each label bears the policy's headroom.

    rows: of ``report.comparison``; trace: the summary's part of that name.
    """
    drawn = [row for row in rows if _is_drawn(row)]
    with canvas(LANDSCAPE_IN, max(6.0, 0.165 * len(drawn))) as (figure, axis):
        _points(axis, drawn)
        _front(axis, pareto_front(drawn))
        axis.set_xlabel("expected relative MSE of the experts' output (open-loop proxy; less is better)")
        axis.set_ylabel("energy per decode token (mJ)")
        _scale(axis, drawn)
        axis.grid(alpha=0.25, linewidth=0.5)
        if drawn:
            axis.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.08))
        figure.canvas.draw()
        _labels(axis, drawn)
        finish(figure, heading, trace, path)


def _is_drawn(row: Row) -> bool:
    return row[QUALITY] is not None and row[ENERGY] is not None


def _points(axis: Axes, rows: Sequence[Row]) -> None:
    for objects, look in _LOOKS.items():
        for offline in (False, True):
            own = [row for row in rows if row["objects"] == objects and row["offline"] is offline]
            if own:
                axis.plot(
                    [row[QUALITY] for row in own], [row[ENERGY] * 1e-9 for row in own], look.marker, color=look.colour,
                    markerfacecolor="none" if offline else look.colour, markersize=5, linestyle="",
                    label=look.meaning + ", knows the future" * offline,
                )  # fmt: skip


def _front(axis: Axes, front: Sequence[Row]) -> None:
    if front:
        axis.step(
            [row[QUALITY] for row in front], [row[ENERGY] * 1e-9 for row in front], where="post", color="#000000",
            linewidth=0.9, linestyle="--", zorder=0, label="Pareto front of online policies",
        )  # fmt: skip


def _scale(axis: Axes, rows: Sequence[Row]) -> None:
    """Take logarithms where the figures of an axis span more than a factor of 20, and leave room for labels."""
    for name, set_scale in ((QUALITY, axis.set_xscale), (ENERGY, axis.set_yscale)):
        values = [row[name] for row in rows]
        if values and min(values) > 0 and max(values) > 20 * min(values):
            set_scale("log")
    axis.margins(x=0.2, y=0.06)


def _labels(axis: Axes, rows: Sequence[Row]) -> None:
    """Write names beside the points, column by column, moved up and down until none covers another."""
    if not rows:
        return
    place = axis.transData.transform([(row[QUALITY], row[ENERGY] * 1e-9) for row in rows])
    frame = axis.get_window_extent()
    order = np.argsort(place[:, 0], kind="stable")
    breaks = np.flatnonzero(np.diff(place[order, 0]) > _COLUMN) + 1
    for column in np.split(order, breaks):
        right = place[column, 0].max() < frame.x0 + 0.8 * frame.width
        across = place[column, 0].max() + _GAP if right else place[column, 0].min() - _GAP
        column = column[np.argsort(place[column, 1], kind="stable")]
        heights = spread(place[column, 1], _LINE, frame.y0, frame.y1)
        for number, height in zip(column, heights, strict=True):
            row, at = rows[number], axis.transData.inverted().transform((across, height))
            headroom = row["headroom"]
            axis.annotate(
                row["policy"] + (f"  {headroom:.2f}x" if headroom else ""),
                (row[QUALITY], row[ENERGY] * 1e-9), tuple(at), fontsize=TEXT, va="center",
                ha="left" if right else "right", color=_LOOKS[row["objects"]].colour,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
                arrowprops={
                    "arrowstyle": "-", "linewidth": 0.4, "color": "#999999", "shrinkA": 0, "shrinkB": 2,
                    "relpos": (0.0 if right else 1.0, 0.5),
                },
            )  # fmt: skip


def spread(heights: Any, least: float, low: float, high: float) -> Any:
    """Return rising heights moved as little as may be so that neighbours are ``least`` apart, within low and high.

    Where they do not all fit, they share the room evenly.
    """
    count = len(heights)
    least = min(least, (high - low) / max(count - 1, 1))
    offsets = least * np.arange(count)
    # The best rising sequence in the sense of least squares: pool neighbours that are out of order.
    blocks: list[list[float]] = []
    for value in np.asarray(heights, dtype=float) - offsets:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, size = blocks.pop()
            blocks[-1] = [
                (blocks[-1][0] * blocks[-1][1] + mean * size) / (blocks[-1][1] + size), blocks[-1][1] + size,
            ]  # fmt: skip
    base = np.concatenate([np.full(int(size), mean) for mean, size in blocks])
    return np.clip(base, low, max(high - offsets[-1], low)) + offsets
