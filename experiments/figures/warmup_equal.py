"""Figure 3b: what PCW gains over an empty start at equal quality, against the misses that are left when warm.

    python experiments/figures/warmup_equal.py [--real FOLDER] [--out FOLDER] [--quick]

Cache-Prior of a constant strength, 6/3 bits, 3.6 GB, first 100 decode steps. An empty start under the same strength
clings to the few experts that it has: it misses less, and its quality is far worse. So its strength is bisected until
its quality proxy over these steps is PCW's. Bit slices with every miss read, and MSB slices alone. Needs logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import equal
import kit
import pandas as pd
import warmup

STEPS = 100
STRENGTHS = (0.1, 0.2, 0.3, 0.5, 1.0)
#: Experts that are never rerouted (J): the paper's routing, and none at all.
GUARANTEED = (2, 0)
PRECISIONS: Mapping[str, dict[str, Any]] = {
    "bit slices, all misses read": {}, "MSB slices alone": {"policy.precision": {"name": "uniform-low"}},
}  # fmt: skip
#: Ratios that are drawn: label, colour, line.
RATIOS = {
    "energy_mj": ("energy", "#D55E00", "-"), "expert_energy_mj": ("energy of experts alone", "#E69F00", "-"),
    "latency_ms": ("latency", "#0072B2", "--"), "expert_latency_ms": ("latency of experts alone", "#56B4E9", "--"),
}  # fmt: skip
_MARKERS = dict(zip(PRECISIONS, "os", strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, write, draw."""
    given = kit.read_arguments(__doc__, arguments)
    for kind, subjects in given.groups():
        if all(subject.trace.header.has_logits for subject in subjects):
            _figure(given, kind, subjects)


def _rows(subject: kit.Subject, strengths: Sequence[float]) -> Iterator[dict[str, Any]]:
    for precision, keys in PRECISIONS.items():
        for top_j in GUARANTEED:
            for strength in strengths:
                warm = _start(subject, keys, "pcw", strength, top_j)
                cold = _equal_start(subject, keys, warm["rel_mse"], top_j)
                yield {
                    **kit.head_of(subject, warmup.CASE), "precision": precision, "guaranteed": top_j,
                    "strength": strength, "empty_strength": cold.knob, "equal_quality": cold.met,
                    "miss_rate": warm["miss_rate"], "empty_miss_rate": cold.found["miss_rate"],
                    "rel_mse": warm["rel_mse"], **{f"{key}_ratio": cold.found[key] / warm[key] for key in RATIOS},
                }  # fmt: skip


def _equal_start(
    subject: kit.Subject, keys: Mapping[str, Any], target: float, top_j: int
) -> equal.Match[dict[str, float]]:
    """Find the strength at which an empty start is as good."""

    def at(strength: float) -> tuple[float, dict[str, float]]:
        sums = _start(subject, keys, "empty", strength, top_j)
        return sums["rel_mse"], sums

    return equal.match(at, target, 0.0, 1.0)


def _start(subject: kit.Subject, keys: Mapping[str, Any], start: str, strength: float, top_j: int) -> dict[str, float]:
    """Replay; per token, over the first steps of each request."""
    settings = {
        **keys, "policy.constraint": {"name": "none"}, "policy.warmup": {"name": start}, "cache.reset": "request",
        "policy.routing": {"name": "cache-prior", "strength": strength, "top_j": top_j},
    }  # fmt: skip
    result = kit.simulate(subject, warmup.CASE, "dbsc", settings)
    rows = result.tokens
    rows = rows[(rows["phase"] == "decode") & (rows["decode_step"] < STEPS)]
    sums = warmup.sums_of(rows)
    other_bytes = (rows["non_expert_dram_read_bytes"] + rows["non_expert_dram_write_bytes"]).mean()
    other_ms = other_bytes / result.summary["scenario"]["device"]["dram"]["bandwidth_gbs"]["value"] * 1e-6
    return {**sums, "expert_latency_ms": sums["latency_ms"] - other_ms}


def _figure(given: kit.Given, kind: str, subjects: Sequence[kit.Subject]) -> None:
    strengths = STRENGTHS[-1:] if given.quick else STRENGTHS
    rows = [row for subject in subjects for row in _rows(subject, strengths)]
    frame = kit.write_rows(rows, given.path("warmup_equal", ".csv", kind))
    plt = kit.plotting()
    with plt.rc_context(kit.STYLE):
        figure, axes = plt.subplots(
            1, len(subjects), figsize=(max(8, 2 + 3.3 * len(subjects)), 4.4), layout="constrained", squeeze=False,
            sharey=True,
        )  # fmt: skip
        for axis, subject in zip(axes[0], subjects, strict=True):
            routing = subject.title + kit.HOW[subject.kind]
            _panel(axis, frame[frame["routing"] == routing])
            axis.set_title(routing)
        axes[0, 0].set_ylabel("empty start / PCW, at equal quality")
        kit.shared_legend(figure, ncols=3)
        kit.write_figure(
            figure, f"PCW over the first {STEPS} decode steps, 6/3 bits, 3.6 GB", subjects,
            given.path("warmup_equal", kit.SUFFIX, kind),
        )  # fmt: skip


def _panel(axis: Any, frame: pd.DataFrame) -> None:
    for key, (label, colour, line) in RATIOS.items():
        own = frame[frame["equal_quality"]].sort_values("miss_rate")
        axis.plot(100 * own["miss_rate"], own[f"{key}_ratio"], color=colour, linestyle=line, linewidth=0.8, label=label)
        for precision, marker in _MARKERS.items():
            part = own[own["precision"] == precision]
            axis.plot(100 * part["miss_rate"], part[f"{key}_ratio"], marker, color=colour, markersize=4)
    for precision, marker in _MARKERS.items():
        axis.plot([], [], marker, color="#666666", markersize=4, label=precision)
    for value, label in ((warmup.PUBLISHED_ENERGY, "energy"), (warmup.PUBLISHED_LATENCY, "latency")):
        axis.axhline(value, color="#000000" if label == "energy" else "#888888", linewidth=0.8, linestyle=":",
                     label=f"published: {label} {value}")  # fmt: skip
    axis.axvline(5, color="#999999", linewidth=0.6, linestyle=":")
    axis.set_ylim(0.9, warmup.HIGHEST)
    axis.set_xlabel("misses of slice requests, PCW (%)")
    axis.grid(alpha=0.25, linewidth=0.5)


if __name__ == "__main__":
    kit.run(main)
