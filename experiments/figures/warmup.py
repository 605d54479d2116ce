"""Figure 3: what a warm start is worth: PCW against other starts, over the first N decode steps.

    python experiments/figures/warmup.py [--real FOLDER] [--out FOLDER] [--quick]

6/3 bits and 3.6 GB, as in the paper. Every request begins with an empty cache, so that all starts differ by the
hand-over alone. Without logits nothing can be rerouted: there the panels are those of stock routing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import kit
import pandas as pd

CASE = kit.Case(6, 3, 3.6)
#: Longer than the paper's on twins, to see how the gain fades.
LONG = kit.Shape(3, 500, 500)
STARTS = ("pcw", "empty", "last-layer", "random", "random-slices")
WINDOWS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500)
#: The paper's gain over an empty start; its decode window is not published.
PUBLISHED_ENERGY, PUBLISHED_LATENCY = 2.31, 1.96
#: Where the ratios are cut off.
HIGHEST = 4.2

_LOW_BITS = {
    "policy.precision": {"name": "uniform-low"}, "policy.constraint": {"name": "none"},
    "policy.routing": {"name": "cache-prior", "strength": 1.0, "top_j": 0},
}  # fmt: skip


def _budget(target: float) -> dict[str, Any]:
    return {"policy.routing": {"name": "stock"}, "policy.constraint": {"name": "budget", "target": target}}


#: Regimes by falling miss rate: preset and settings. Those that reroute need logits.
REGIMES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "no rerouting": ("dbsc", {}),
    "Cache-Prior, lambda 0.2": ("dbsc", {"policy.routing": {"name": "cache-prior", "strength": 0.2}}),
    "SliceMoE, target 5 %": ("slicemoe", {}),
    "budget of 1 %": ("slicemoe", _budget(0.01)),
    "MSB slices alone, lambda 1, J = 0": ("slicemoe", _LOW_BITS),
}
_NEED_LOGITS = ("Cache-Prior, lambda 0.2", "SliceMoE, target 5 %", "MSB slices alone, lambda 1, J = 0")
_COLOURS = {"empty": "#D55E00", "last-layer": "#E69F00", "random": "#009E73", "random-slices": "#56B4E9"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, write, draw."""
    given = kit.read_arguments(__doc__, arguments)
    for kind, subjects in given.groups(longer=LONG):
        _figure(given, kind, subjects)


def rows_of(
    subject: kit.Subject, regime: str, starts: Sequence[str] = STARTS, more: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield one row per start and window: sums over the first ``steps`` decode steps of each request, and ratios.

    A ratio is this start's figure divided by PCW's, which must come first. more: keys of the scenario.
    """
    preset, settings = REGIMES[regime]
    warm: dict[int, dict[str, Any]] = {}
    for start in starts:
        keys = {**settings, "policy.warmup": {"name": start}, "cache.reset": "request", **(more or {})}
        tokens = kit.simulate(subject, CASE, preset, keys).tokens
        decode = tokens[tokens["phase"] == "decode"]
        for steps in (window for window in WINDOWS if window <= decode["decode_step"].max() + 1):
            sums = sums_of(decode[decode["decode_step"] < steps])
            warm.setdefault(steps, sums)
            ratios = {
                f"{key}_ratio": sums[unit] / warm[steps][unit]
                for key, unit in (
                    ("energy", "energy_mj"),
                    ("expert_energy", "expert_energy_mj"),
                    ("latency", "latency_ms"),
                )
            }
            head = {**kit.head_of(subject, CASE), "regime": regime, "start": start, "steps": steps}
            yield {**head, **sums, **ratios}


def regimes_of(subject: kit.Subject) -> list[str]:
    """Return the regimes that a subject's routing allows."""
    return [name for name in REGIMES if subject.trace.header.has_logits or name not in _NEED_LOGITS]


def sums_of(rows: pd.DataFrame) -> dict[str, float]:
    """Per token."""
    total, count = rows.sum(numeric_only=True), len(rows)
    misses = total["msb_misses"] + total["lsb_misses"]
    return {
        "miss_rate": misses / (misses + total["msb_hits"] + total["lsb_hits"]),
        "energy_mj": total["total_energy_pj"] * 1e-9 / count,
        "expert_energy_mj": total["expert_energy_pj"] * 1e-9 / count,
        "latency_ms": total["latency_ps"] * 1e-9 / count,
        "rel_mse": total["error_mass"] / total["total_mass"],
    }


def _figure(given: kit.Given, kind: str, subjects: Sequence[kit.Subject]) -> None:
    rows = [row for subject in subjects for regime in regimes_of(subject) for row in rows_of(subject, regime)]
    frame = kit.write_rows(rows, given.path("warmup", ".csv", kind))
    columns = max(len(regimes_of(subject)) for subject in subjects)
    plt = kit.plotting()
    with plt.rc_context(kit.STYLE):
        figure, axes = plt.subplots(
            len(subjects), columns, figsize=(max(8, 1.5 + 2.4 * columns), 1.2 + 2.6 * len(subjects)),
            layout="constrained", squeeze=False, sharey="row",
        )  # fmt: skip
        for line, subject in zip(axes, subjects, strict=True):
            for axis in line[len(regimes_of(subject)) :]:
                axis.set_axis_off()
            for axis, regime in zip(line, regimes_of(subject), strict=False):
                routing = subject.title + kit.HOW[subject.kind]
                _panel(axis, frame[(frame["routing"] == routing) & (frame["regime"] == regime)])
                axis.set_title(f"{routing}\n{regime}", fontsize=8)
            line[0].set_ylabel("this start / PCW")
        kit.shared_legend(figure, ncols=min(4, columns + 1))
        kit.write_figure(
            figure, "Starts of decode against PCW, 6/3 bits, 3.6 GB", subjects,
            given.path("warmup", kit.SUFFIX, kind),
        )  # fmt: skip


def _panel(axis: Any, frame: pd.DataFrame) -> None:
    for start, colour in _COLOURS.items():
        own = frame[frame["start"] == start]
        axis.plot(own["steps"], own["energy_ratio"], color=colour, linewidth=1.3, label=f"{start}: energy")
        if start == "empty":
            axis.plot(
                own["steps"], own["latency_ratio"], color=colour, linewidth=1.3, linestyle="--", label="empty: latency"
            )
    axis.axhline(PUBLISHED_ENERGY, color="#000000", linewidth=0.8, linestyle=":", label="published, empty: energy 2.31")
    axis.axhline(
        PUBLISHED_LATENCY, color="#888888", linewidth=0.8, linestyle=":", label="published, empty: latency 1.96"
    )
    axis.axhline(1, color="#000000", linewidth=0.5)
    warm = frame[frame["start"] == "pcw"]
    shown = [f"{100 * row.miss_rate:.1f} % in {row.steps}" for row in warm.itertuples() if row.steps in (10, 100, 500)]
    axis.text(0.98, 0.98, "\n".join(["PCW misses", *shown]), transform=axis.transAxes, ha="right", va="top", fontsize=7)
    kit.plain_log(axis.xaxis, (1, 5, 20, 100, 500))
    axis.set_xlim(0.9, 1.1 * float(frame["steps"].max()))
    axis.set_xlabel("first N decode steps")
    axis.set_ylim(0, HIGHEST)
    axis.grid(alpha=0.25, linewidth=0.5)


if __name__ == "__main__":
    kit.run(main)
