"""Figure 2: energy and latency of a decode token by model, bit pair and cache size, all systems at equal quality.

    python experiments/figures/equal_quality.py [--real FOLDER] [--out FOLDER] [--quick]

SliceMoE runs as its preset has it. Each baseline's strength of routing is bisected until its quality proxy is
SliceMoE's (``equal.py``). What has no strength, or cannot be as bad (or as good), is drawn hollow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import equal
import kit
import pandas as pd

MEASURES = {"energy_mj": "energy (mJ per token)", "latency_ms": "latency (ms per token)"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, write, draw."""
    given = kit.read_arguments(__doc__, arguments)
    for kind, subjects in given.groups():
        _figure(given, kind, subjects)


def _figure(given: kit.Given, kind: str, subjects: Sequence[kit.Subject]) -> None:
    pairs, sizes = (kit.PAIRS[:1], kit.CAPACITIES_GB[1:2]) if given.quick else (kit.PAIRS, kit.CAPACITIES_GB)
    cases = [kit.Case(high, low, size) for high, low in pairs for size in sizes]
    rows = [row for subject in subjects for case in cases for row in _rows(subject, case)]
    frame = kit.write_rows(rows, given.path("equal_quality", ".csv", kind))
    plt = kit.plotting()
    with plt.rc_context(kit.STYLE):
        figure, axes = plt.subplots(
            2 * len(subjects), len(pairs), figsize=(2 + 2.7 * len(pairs), 1 + 4.2 * len(subjects)),
            layout="constrained", squeeze=False, sharey="row",
        )  # fmt: skip
        for line, (subject, measure) in enumerate((subject, measure) for subject in subjects for measure in MEASURES):
            for column, (high, low) in enumerate(pairs):
                own = frame[(frame["routing"] == subject.title + kit.HOW[subject.kind]) & (frame["high_bits"] == high)]
                _panel(axes[line, column], own, measure)
                axes[line, column].set_title(
                    f"{subject.title}{kit.HOW[subject.kind]}\n{high}/{low} bits" if measure == "energy_mj" else ""
                )
            axes[line, 0].set_ylabel(MEASURES[measure])
        for axis in axes[-1]:
            axis.set_xlabel("expert cache (GB)")
        kit.shared_legend(figure, ncols=3)
        kit.write_figure(
            figure, "Decode at equal quality (hollow: another one); numbers: high bits / SliceMoE", subjects,
            given.path("equal_quality", kit.SUFFIX, kind),
        )  # fmt: skip


def _rows(subject: kit.Subject, case: kit.Case) -> Iterator[dict[str, Any]]:
    matches = equal.at_equal_quality(subject, case)
    ours = matches["SliceMoE"].found
    for name, match in matches.items():
        yield {
            **kit.head_of(subject, case), "system": name, "knob": match.knob, "equal_quality": match.met,
            **{f"{key}_ratio": match.found[f"{key}_{unit}"] / ours[f"{key}_{unit}"] for key, unit in
               (("energy", "mj"), ("expert_energy", "mj"), ("latency", "ms"))},
            **match.found,
        }  # fmt: skip


def _panel(axis: Any, frame: pd.DataFrame, measure: str) -> None:
    """One mark per system and cache size, side by side; the reference baseline bears its ratio to SliceMoE."""
    sizes = sorted(frame["capacity_gb"].unique())
    names = list(dict.fromkeys(frame["system"]))
    for number, name in enumerate(names):
        own = frame[frame["system"] == name]
        colour, marker = kit.look(name)
        places = [sizes.index(size) + 0.13 * (number - (len(names) - 1) / 2) for size in own["capacity_gb"]]
        for place, value, met in zip(places, own[measure], own["equal_quality"], strict=True):
            axis.plot(
                place, value, marker=marker, color=colour, markerfacecolor=colour if met else "none", markersize=6
            )
        axis.plot([], [], marker=marker, color=colour, linestyle="", label=name)
        if number == 1:  # the high-bit baseline that the paper compares with
            for place, value, ratio in zip(
                places, own[measure], own[f"{measure.rsplit('_', 1)[0]}_ratio"], strict=True
            ):
                axis.annotate(
                    f"{ratio:.2f}x", (place, value), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8,
                    color=colour,
                )  # fmt: skip
    axis.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
    axis.set_xlim(-0.6, len(sizes) - 0.4)
    kit.plain_log(axis.yaxis)
    axis.margins(y=0.12)
    axis.grid(axis="y", alpha=0.25, linewidth=0.5)


if __name__ == "__main__":
    kit.run(main)
