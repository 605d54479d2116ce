"""Sensitivity: the table for the terminal, and the tornado plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from slicesim.report.figure import LANDSCAPE_IN, canvas, finish
from slicesim.report.tables import provenance, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from slicesim.sensitivity import Ends, Sensitivity

#: Okabe and Ito's colour-blind safe palette: the low end, the high end.
LOW, HIGH = "#0072B2", "#E69F00"

#: Bars in the plot; the table has all.
MOST_BARS = 15

#: Below this a coefficient does not move a figure.
_NOTHING = 5e-5

#: Below this there would be no bar to see.
_VISIBLE = 1e-3

_FIGURES = (("tokens_per_s", "tokens/s"), ("energy_pj_per_token", "energy per token"))


def sensitivity_table(found: Sensitivity) -> Table:
    """Return one row for each coefficient that moves something: what the ends of its range do."""
    base = found.base
    table = Table(
        title=f"{title(found.head)}\n{base.tokens_per_s:.4g} tokens/s, {base.energy_pj_per_token * 1e-9:.4g} mJ/token",
        caption=provenance(found.head),
    )
    for heading in ("coefficient", "value", "low", "high"):
        table.add_column(heading, justify="left" if heading == "coefficient" else "right")
    for _, name in _FIGURES:
        table.add_column(f"{name}\nat low", justify="right")
        table.add_column("\nat high", justify="right")
    for ends in _moving(found):
        cells = ["-" if value is None else f"{value:g}" for value in (ends.value, ends.low, ends.high)]
        for name, _ in _FIGURES:
            cells += [f"{100 * change:+.1f} %" for change in ends.change(name, base)]
        table.add_row(ends.key, *cells)
    return table


def sensitivity_notes(found: Sensitivity) -> list[str]:
    """Return what the table leaves out, one line each."""
    moving = {ends.key for ends in _moving(found)}
    still = [ends.key for ends in found.coefficients if ends.key not in moving]
    notes = [f"without effect here: {', '.join(still)}"] if still else []
    return notes + [f"{skipped.key}={skipped.value:g} is refused: {skipped.reason}" for skipped in found.skipped]


def _moving(found: Sensitivity) -> list[Ends]:
    return [ends for ends in found.coefficients if any(ends.swing(name, found.base) > _NOTHING for name, _ in _FIGURES)]


def tornado_plot(found: Sensitivity, path: Path) -> None:
    """Draw the coefficients that move each figure most (PNG and SVG)."""
    base = found.base
    most = max(1, *(len(_largest(found, name)) for name, _ in _FIGURES))
    with canvas(LANDSCAPE_IN, 1.8 + 0.3 * most, 1, 2) as (figure, axes):
        values = (f"{base.tokens_per_s:.3g} tokens/s", f"{base.energy_pj_per_token * 1e-9:.3g} mJ/token")
        for axis, (name, label), value in zip(axes, _FIGURES, values, strict=True):
            _bars(axis, found, name)
            axis.set_xlabel(f"change of {label} (% of {value})")
        axes[0].legend(title="coefficient: low - value - high", loc="lower right")
        finish(figure, title(found.head), found.head["trace"], path, rotation=15)


def _largest(found: Sensitivity, name: str) -> list[Ends]:
    moving = [ends for ends in found.coefficients if ends.swing(name, found.base) > _VISIBLE]
    return sorted(moving, key=lambda ends: -ends.swing(name, found.base))[:MOST_BARS]


def _bars(axis: Axes, found: Sensitivity, name: str) -> None:
    shown = _largest(found, name)
    if not shown:
        axis.barh([], [], color=LOW, label="low end of its range")
        axis.text(0.5, 0.5, "no coefficient moves it", ha="center", transform=axis.transAxes)
    for place, ends in enumerate(shown):
        low, high = (100 * change for change in ends.change(name, found.base))
        first = place == 0
        axis.barh(place, low, height=0.7, color=LOW, label="low end of its range" if first else None)
        # Both ends may lie on one side: the high end is drawn thinner, so that it hides nothing.
        axis.barh(place, high, height=0.35, color=HIGH, label="high end of its range" if first else None)
    axis.set_yticks(range(len(shown)), [_label(ends) for ends in shown])
    axis.invert_yaxis()
    axis.axvline(0, color="#000000", linewidth=0.8)
    axis.grid(axis="x", alpha=0.25, linewidth=0.5)


def _label(ends: Ends) -> str:
    low, high = (ends.value if end is None else end for end in (ends.low, ends.high))
    return f"{ends.key.removeprefix('device.')}\n{low:g} - {ends.value:g} - {high:g}"
