"""Figure 6: how far the paper's disputed hardware figures move the answer: flash 1.25 or 1.75, DRAM 13 or 16 GB/s.

    python experiments/figures/disputed.py [--real FOLDER] [--out FOLDER] [--quick]

Speed-up over high-bit Cache-Prior at equal quality (8/4 bits), and of PCW over an empty start in the first 10 decode
steps (6/3 bits, 3.6 GB). No energy moves: bytes are the same, and nothing has static power.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import equal
import kit
import pandas as pd
import warmup

FLASH_GBS, DRAM_GBS = (1.25, 1.75), (13.0, 16.0)
WARM_STEPS = 10
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000")
_MARKERS = "osD^"


def speeds(flash: float, dram: float) -> dict[str, float]:
    """Return the scenario's keys for flash and DRAM of so many GB/s."""
    return {
        "device.flash.bandwidth_gbs": flash,
        "device.flash.lane_bandwidth_gbs": flash,
        "device.dram.bandwidth_gbs": dram,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, write, draw."""
    given = kit.read_arguments(__doc__, arguments)
    for kind, subjects in given.groups():
        _figure(given, kind, subjects)


def _rows(subject: kit.Subject, sizes: Sequence[float]) -> Iterator[dict[str, Any]]:
    devices = [(flash, dram) for flash in FLASH_GBS for dram in DRAM_GBS]
    for size in sizes:
        case = kit.Case(8, 4, size)
        name, system = next(iter(equal.systems(subject).items()))
        theirs = equal.at_equal_quality(subject, case)[name]
        for flash, dram in devices:
            keys = speeds(flash, dram)
            ours = kit.figures_of(kit.simulate(subject, case, "slicemoe", keys))
            other = kit.figures_of(kit.simulate(subject, case, system.preset, {**system.settings(theirs.knob), **keys}))
            yield {
                **kit.head_of(subject, case), "what": f"over {name}, {size:g} GB", "flash_gbs": flash, "dram_gbs": dram,
                "equal_quality": theirs.met, "latency_ratio": other["latency_ms"] / ours["latency_ms"],
                "energy_ratio": other["energy_mj"] / ours["energy_mj"],
            }  # fmt: skip
    regime = "SliceMoE, target 5 %" if subject.trace.header.has_logits else "budget of 1 %"
    for flash, dram in devices:
        for row in warmup.rows_of(subject, regime, ("pcw", "empty"), speeds(flash, dram)):
            if row["start"] == "empty" and row["steps"] == WARM_STEPS:
                yield {
                    **kit.head_of(subject, warmup.CASE), "what": "PCW over empty, 10 steps", "flash_gbs": flash,
                    "dram_gbs": dram, "equal_quality": False, "latency_ratio": row["latency_ratio"],
                    "energy_ratio": row["energy_ratio"],
                }  # fmt: skip


def _figure(given: kit.Given, kind: str, subjects: Sequence[kit.Subject]) -> None:
    sizes = kit.CAPACITIES_GB[1:2] if given.quick else kit.CAPACITIES_GB
    rows = [row for subject in subjects for row in _rows(subject, sizes)]
    frame = kit.write_rows(rows, given.path("disputed", ".csv", kind))
    plt = kit.plotting()
    with plt.rc_context(kit.STYLE):
        figure, axes = plt.subplots(
            1,
            len(subjects),
            figsize=(max(8, 2 + 3.3 * len(subjects)), 4.6),
            layout="constrained",
            squeeze=False,
            sharey=True,
        )
        for axis, subject in zip(axes[0], subjects, strict=True):
            routing = subject.title + kit.HOW[subject.kind]
            _panel(axis, frame[frame["routing"] == routing])
            axis.set_title(routing)
        axes[0, 0].set_ylabel("times faster")
        kit.shared_legend(figure, ncols=2)
        kit.write_figure(
            figure, "Speed-up under the paper's two sets of speeds", subjects,
            given.path("disputed", kit.SUFFIX, kind),
        )  # fmt: skip


def _panel(axis: Any, frame: pd.DataFrame) -> None:
    for number, (what, own) in enumerate(frame.groupby("what", sort=False)):
        axis.plot(
            range(len(own)), own["latency_ratio"], color=_COLOURS[number], marker=_MARKERS[number], markersize=5,
            linewidth=1, label=what,
        )  # fmt: skip
    first = frame[frame["what"] == frame["what"].iloc[0]]
    labels = [f"{row.flash_gbs:g}\n{row.dram_gbs:g}" for row in first.itertuples()]
    axis.set_xticks(range(len(labels)), labels)
    axis.set_xlabel("flash (GB/s), DRAM (GB/s) below")
    axis.set_ylim(bottom=1)
    axis.margins(x=0.1, y=0.1)
    axis.grid(alpha=0.25, linewidth=0.5)


if __name__ == "__main__":
    kit.run(main)
