"""What every figure ends with: heading, the trace that it was drawn from, and a stamp where that is not real."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicesim.report.label import kind, label_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def finish(figure: Figure, heading: str, trace: Mapping[str, Any], path: Path, rotation: float = 25) -> None:
    """Head, stamp, write and close a figure. trace: the summary's part of that name; rotation: of the stamp."""
    import matplotlib.pyplot as plt

    figure.suptitle(f"{heading}\n{kind(trace)}: {trace['path']}", fontsize=11)
    if label_of(trace):
        figure.text(
            0.5, 0.5, kind(trace).upper(), fontsize=44, color="#000000", alpha=0.07, rotation=rotation,
            ha="center", va="center",
        )  # fmt: skip
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
