"""AMAT on a checkpoint's weights: tables for the terminal, and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from slicesim.amat.alternatives import METHODS
from slicesim.amat.error import sqnr_db
from slicesim.report.curves import COLOURS, MARKERS
from slicesim.report.figure import PAGE_IN, canvas, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from slicesim.amat.study import Study
    from slicesim.scenario.schema import Amat

#: Tensors listed on the terminal; the file of errors has them all.
WORST = 8


def overall_table(study: Study) -> Table:
    """Return relative MSE and SQNR over all tensors: one row per method, two columns per bit pair."""
    table = Table(title=f"{_title(study)}, over all", caption=_caption(study))
    table.add_column("")
    for amat in study.pairs:
        table.add_column(f"{_bits(amat)}\nrel. MSE", justify="right")
        table.add_column("\nSQNR dB", justify="right")
    for number, method in enumerate(METHODS.values()):
        relative = [study.overall.relative(pair, number) for pair in range(len(study.pairs))]
        table.add_row(method.label, *(cell for value in relative for cell in _cells(value)))
    return table


def worst_table(study: Study) -> Table:
    """Return the tensors that AMAT's MSB slice alone serves worst at the first bit pair, with all methods."""
    amat, by = study.pairs[0], list(METHODS).index("amat_low")
    ranked = sorted(study.tensors, key=lambda errors: errors.relative(0, by) or 0.0, reverse=True)[:WORST]
    table = Table(title=f"{_bits(amat)} bits: relative MSE, the {len(ranked)} of {len(study.tensors)} tensors that "
                  f"{METHODS['amat_low'].label} serves worst")  # fmt: skip
    table.add_column("tensor", overflow="fold")
    for method in METHODS.values():
        table.add_column(method.label, justify="right")
    for errors in ranked:
        table.add_row(errors.tensor, *(_cells(errors.relative(0, number))[0] for number in range(len(METHODS))))
    return table


def error_plot(study: Study, path: Path) -> None:
    """Draw relative MSE: over all tensors by pair and method, and its spread over the tensors for the MSB slice."""
    with canvas(PAGE_IN, 3.8, 1, 2) as (figure, (bars, spread)):
        _bars(bars, study)
        _spread(spread, study)
        figure.suptitle(f"{_title(study)}\n{_caption(study)}")
        figure.legend(*bars.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        write(figure, path)


def _bars(axis: Axes, study: Study) -> None:
    width = 0.8 / len(METHODS)
    for number, method in enumerate(METHODS.values()):
        heights = [study.overall.relative(pair, number) or 0.0 for pair in range(len(study.pairs))]
        places = [pair + (number - (len(METHODS) - 1) / 2) * width for pair in range(len(study.pairs))]
        axis.bar(places, heights, width, label=method.label, color=COLOURS[number])
    _log_scale(axis, study)
    axis.set_xticks(range(len(study.pairs)), [_bits(amat) for amat in study.pairs])
    axis.set_xlabel("bits, high/low")
    axis.set_ylabel("relative MSE over all tensors")
    axis.grid(axis="y", alpha=0.25, linewidth=0.5)


def _spread(axis: Axes, study: Study) -> None:
    """Each tensor once, ranked by its error."""
    number = list(METHODS).index("amat_low")
    for pair, amat in enumerate(study.pairs):
        values = sorted(errors.relative(pair, number) or 0.0 for errors in study.tensors)
        ranks = [(rank + 0.5) / len(values) * 100 for rank in range(len(values))]
        axis.plot(ranks, values, marker=MARKERS[pair % len(MARKERS)], markersize=3, color="black",
                  linewidth=1, alpha=0.8 - 0.5 * pair / len(study.pairs), label=_bits(amat))  # fmt: skip
        axis.annotate(f"{_bits(amat)} bits", (ranks[-1], values[-1]), xytext=(0, 5), textcoords="offset points",
                      ha="right")  # fmt: skip
    _log_scale(axis, study)
    axis.set_xlim(0, 100)
    axis.set_xlabel("tensors, ranked by error (%)")
    axis.set_ylabel(f"relative MSE: {METHODS['amat_low'].label}")
    axis.grid(alpha=0.25, linewidth=0.5)


def _log_scale(axis: Axes, study: Study) -> None:
    if study.overall.noise.any():  # weights of zero have no error to draw
        axis.set_yscale("log")


def _title(study: Study) -> str:
    tensors = len(study.tensors)
    return f"AMAT on {study.path.name}: {tensors} tensor{'s' * (tensors > 1)}, {study.overall.weights:,} weights"


def _caption(study: Study) -> str:
    """What the checkpoint says of itself, such as that it is a micro model."""
    note = study.metadata.get("note")
    return f"groups of {study.pairs[0].group}{'; ' * bool(note)}{note or ''}"


def _bits(amat: Amat) -> str:
    return f"{amat.high_bits}/{amat.low_bits}"


def _cells(relative: float | None) -> tuple[str, str]:
    ratio = sqnr_db(relative)
    return "-" if relative is None else f"{relative:.3g}", "-" if ratio is None else f"{ratio:.1f}"
