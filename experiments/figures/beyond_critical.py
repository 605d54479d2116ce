"""Where slicing loses: gain over whole experts at high precision, over the share of critical experts and the cache.

    python experiments/figures/beyond_critical.py [--real FOLDER] [--out FOLDER] [--quick]

The paper's phone, 8/4 bits, every miss fetched (``dbsc``, and ``lru-slices`` as its control). The threshold on the gate
score sets how many look-ups are critical: at 0 all are, and both policies compute what whole experts do. Flash bytes,
time and energy. Writes beyond_critical.csv and the picture, and prints where the gain in flash bytes falls below 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
from kit import (
    GSM8K,
    STYLE,
    SUFFIX,
    Case,
    Given,
    Subject,
    plotting,
    read_arguments,
    source_of,
    write_figure,
    write_rows,
)
from replays import ROOMY_DRAM, Run, markdown, per_token, replay

NAME = "beyond_critical"
BASE, POLICIES = "lru-high", ("dbsc", "lru-slices")
THRESHOLDS = (0.0, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 1.0)
CAPACITIES_GB = {"#000000": 0.9, "#0072B2": 2.4, "#009E73": 6.0, "#D55E00": 12.0}
PANELS = (("flash", "flash bytes"), ("latency_ms", "time"), ("energy_mj", "energy"))


def rows(subject: Subject, thresholds: Sequence[float], capacities: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Yield a row for each cache, threshold and policy: its gains over whole experts."""
    for capacity in capacities:
        fixed = {**Case(capacity_gb=capacity).settings(subject), **ROOMY_DRAM}
        (whole,) = replay(subject, [Run(BASE, fixed)])
        base = _figures(whole)
        for threshold in thresholds:
            precision = {"policy.precision": {"name": "threshold", "threshold": threshold}}
            for policy in POLICIES:
                (result,) = replay(subject, [Run(policy, {**fixed, **precision})])
                own, asked = _figures(result), result.decode["requests"]
                yield {
                    "source": source_of(subject), "model": subject.title, "cache_gb": capacity,
                    "threshold": threshold, "critical_share": asked["lsb"] / asked["msb"], "policy": policy,
                    "miss_rate": own["miss_rate"], "rel_mse": own["rel_mse"],
                    **{f"{name}_gain": base[name] / own[name] for name, _ in PANELS},
                }  # fmt: skip


def _figures(result: Any) -> dict[str, Any]:
    return {**per_token(result), "flash": result.decode["bytes"]["flash_read"]}


def draw(frame: pd.DataFrame, subjects: Sequence[Subject], given: Given, suffix: str) -> None:
    """Draw the gains over the critical share: a row for each model, a line for each cache and policy."""
    plt = plotting()
    models = list(dict.fromkeys(frame["model"]))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(models), len(PANELS), figsize=(11, 1.2 + 3.1 * len(models)), squeeze=False, layout="constrained"
        )
        for line, model in zip(axes, models, strict=True):
            for axis, (name, label) in zip(line, PANELS, strict=True):
                for colour, capacity in CAPACITIES_GB.items():
                    for policy, style in zip(POLICIES, ("-", ":"), strict=True):
                        part = frame[
                            (frame["model"] == model) & (frame["cache_gb"] == capacity) & (frame["policy"] == policy)
                        ]
                        axis.plot(
                            part["critical_share"], part[f"{name}_gain"], style, color=colour, marker=".",
                            label=f"{policy}, {capacity:g} GB",
                        )  # fmt: skip
                axis.axhline(1, color="#999999", linewidth=1, zorder=0)
                axis.set(yscale="log", xlabel="critical share of look-ups", title=f"{model}: {label}")
                axis.set_yticks([0.7, 1, 1.5, 2, 3, 4, 6, 8], minor=False)
                axis.minorticks_off()
                axis.yaxis.set_major_formatter("{x:g}")
                axis.grid(color="#EEEEEE", linewidth=0.5)
            line[0].set_ylabel(f"gain over {BASE}")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        heading = "Slices against whole experts at 8 bits: the more is critical, the less is gained"
        write_figure(figure, heading, subjects, given.out / f"{NAME}{suffix}{SUFFIX}")


def break_even(shares: Sequence[float], gains: Sequence[float]) -> float | None:
    """Return the critical share at which the gain falls to 1, between two points; None where it never does."""
    points = sorted(zip(shares, gains, strict=True))
    for (left, above), (right, below) in pairwise(points):
        if above >= 1 > below:
            return left + (above - 1) / (above - below) * (right - left)
    return None


def table(frame: pd.DataFrame) -> str:
    """Return break-even shares, and what is left when all experts are critical."""
    cells = []
    for (model, capacity, policy), part in frame.groupby(["model", "cache_gb", "policy"], sort=False):
        last = part[part["threshold"] == 0].iloc[0]
        usual = part[part["threshold"] == 0.1]
        even = [break_even(part["critical_share"], part[f"{name}_gain"]) for name, _ in PANELS]
        gains = [row[f"{name}_gain"] for row in (*usual.iloc, last) for name, _ in PANELS]
        cells.append(
            [
                str(model), f"{capacity:g} GB", str(policy),
                *("none" if share is None else f"{share:.0%}" for share in even), *(f"{gain:.2f}" for gain in gains),
            ]
        )  # fmt: skip
    names = [label for _, label in PANELS]
    blocks = ["break-even", "gain at 0.1"] if len(cells[0]) == 12 else ["break-even"]
    return markdown(
        ["model", "cache", "policy", *(f"{block}: {name}" for block in (*blocks, "all critical") for name in names)],
        cells,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, write numbers and pictures, print the table."""
    given = read_arguments(__doc__, arguments)
    thresholds = (0.0, 0.1) if given.quick else THRESHOLDS
    capacities = list(CAPACITIES_GB.values())[1:2] if given.quick else list(CAPACITIES_GB.values())
    for suffix, subjects in (("", given.twins(GSM8K)), ("_real", given.recorded(GSM8K))):
        chosen = subjects[:1] if given.quick else subjects
        found = [row for subject in chosen for row in rows(subject, thresholds, capacities)]
        if not found:
            continue
        frame = write_rows(found, given.out / f"{NAME}{suffix}.csv")
        draw(frame, chosen, given, suffix)
        print(f"\n{found[0]['source']}, 8/4 bits, every miss fetched\n\n{table(frame)}", flush=True)


if __name__ == "__main__":
    main()
