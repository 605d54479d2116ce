"""Draw the micro models' loss curves: docs/images/micro_loss.svg from loss.csv beside each checkpoint.

python experiments/plot_micro.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]


def points(rows: list[dict[str, str]], key: str) -> tuple[list[float], list[float]]:
    """Return tokens (millions) and values of the rows that have a value."""
    found = [(int(row["tokens"]) / 1e6, float(row[key])) for row in rows if row[key]]
    return [x for x, _ in found], [y for _, y in found]


def main() -> None:
    """Draw one panel per model."""
    mpl.rcParams["svg.hashsalt"] = "micro"  # the same file from the same figures
    files = sorted((ROOT / "traces" / "micro").glob("*/loss.csv"))
    figure, axes = plt.subplots(1, len(files), figsize=(9, 3.2), sharey=True, squeeze=False, layout="constrained")
    for axis, file in zip(axes[0], files, strict=True):
        with file.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        axis.plot(*points(rows, "train_loss"), linewidth=0.8, label="training text")
        axis.plot(*points(rows, "held_out_loss"), marker="o", markersize=2.5, label="held-out text")
        axis.set(title=f"micro model: {file.parent.name}", xlabel="tokens (millions)")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("loss (nats per token)")
    axes[0][0].legend()
    target = ROOT / "docs" / "images" / "micro_loss.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
