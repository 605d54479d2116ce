"""The one style of all plots, fit for a paper; and what every figure ends with.

A figure is as wide as it is printed, so that its text is at least 8 points there. It is written twice: as PNG to look
at, and under the same name as SVG, whose letters are outlines, so that it looks the same everywhere. The same figures
give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicesim.report.label import kind, label_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Widths in inches: both columns of a page, and a page on its side.
PAGE_IN, LANDSCAPE_IN = 7.16, 9.5

#: Points; nothing is smaller.
TEXT = 8

STYLE: Any = {
    "font.size": TEXT, "axes.titlesize": 9, "figure.titlesize": 9, "axes.labelsize": TEXT, "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT, "legend.fontsize": TEXT, "legend.title_fontsize": TEXT, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "path", "svg.hashsalt": "slicesim",
    "savefig.dpi": 180,
}  # fmt: skip

#: What a format would note of the moment or the program.
_UNNOTED: Mapping[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None}}


@contextmanager
def canvas(
    width_in: float, height_in: float, rows: int = 1, columns: int = 1, **more: Any
) -> Iterator[tuple[Figure, Any]]:
    """Yield a figure in the house style and its axes, as ``subplots`` gives them; it is closed at the end."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(width_in, height_in), layout="constrained", **more)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def finish(figure: Figure, heading: str, trace: Mapping[str, Any], path: Path, rotation: float = 25) -> None:
    """Head, stamp and write a figure. trace: the summary's part of that name; rotation: of the stamp."""
    figure.suptitle(f"{heading}\n{kind(trace)}: {trace['path']}")
    if label_of(trace):
        figure.text(
            0.5, 0.5, kind(trace).upper(), fontsize=34, color="#000000", alpha=0.07, rotation=rotation,
            ha="center", va="center",
        )  # fmt: skip
    write(figure, path)


def write(figure: Figure, path: Path) -> None:
    """Write a figure; a PNG gets its SVG beside it."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        for suffix in dict.fromkeys((path.suffix, ".svg") if path.suffix == ".png" else (path.suffix,)):
            figure.savefig(path.with_suffix(suffix), metadata=_UNNOTED.get(suffix))
    plt.close(figure)
