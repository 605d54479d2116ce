"""Our own policies beside DBSC: flash bytes by cache size with the bound, and what a miss budget costs in error.

    python experiments/figures/beyond_own_policy.py [--real FOLDER] [--out FOLDER] [--quick]

Left: every miss fetched, so all lines compute the same; the bound is what any cache must read for these look-ups
(docs/bound.md). Right: under a miss rate of 10 % (constraint ``budget``; ours is paced), energy over the open-loop
error. The paper's phone. Writes beyond_own_policy.csv and the picture, and prints the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

NAME = "beyond_own_policy"
CAPACITIES_GB = (1.8, 2.4, 3.6, 6.0, 9.0)
PAIRS = ((8, 4), (6, 3))
FREE, BUDGET = "every miss fetched", "misses held at 10 %"
LOOKS = {
    "lru-slices": ("s", "#000000"), "dbsc": ("o", "#0072B2"), "successor": ("^", "#009E73"),
    "successor-paced": ("^", "#009E73"),
}  # fmt: skip
TARGET = {"policy.constraint.target": 0.1}
HELD = {"policy.constraint.name": "budget", **TARGET}
#: Regime -> policy -> what it is run with.
REGIMES: dict[str, dict[str, dict[str, Any]]] = {
    FREE: {"lru-slices": {}, "dbsc": {}, "successor": {}},
    BUDGET: {"lru-slices": HELD, "dbsc": HELD, "successor-paced": TARGET},
}


def rows(subject: Subject, pairs: Sequence[Any], capacities: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Yield a row for each bit pair, cache, regime and policy, with its distance from the bound."""
    for high, low in pairs:
        for capacity in capacities:
            fixed = {**Case(high, low, capacity).settings(subject), **ROOMY_DRAM}
            for regime, policies in REGIMES.items():
                for policy, settings in policies.items():
                    (result,) = replay(subject, [Run(policy, {**fixed, **settings})], headroom=True)
                    decode = result.decode
                    yield {
                        "source": source_of(subject), "model": subject.title, "bits": f"{high}/{low}",
                        "cache_gb": capacity, "regime": regime, "policy": policy, **per_token(result),
                        "flash_mb": decode["bytes"]["flash_read"] / decode["tokens"] * 1e-6,
                        "bound_mb": decode["optimum"]["flash_read_bytes_bound"] / decode["tokens"] * 1e-6,
                    }  # fmt: skip


def draw(frame: pd.DataFrame, subjects: Sequence[Subject], given: Given, suffix: str) -> None:
    """Draw a row for each model: flash bytes over the cache, and energy over error under the budget, by bit pair."""
    plt = plotting()
    models = list(dict.fromkeys(frame["model"]))
    pairs = list(dict.fromkeys(frame["bits"]))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(models), 2 * len(pairs), figsize=(3.5 * 2 * len(pairs), 1 + 3 * len(models)), squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for line, model in zip(axes, models, strict=True):
            for number, bits in enumerate(pairs):
                part = frame[(frame["model"] == model) & (frame["bits"] == bits)]
                _over_cache(line[number], part[part["regime"] == FREE])
                _over_error(line[len(pairs) + number], part[part["regime"] == BUDGET])
                line[number].set_title(f"{model}\n{bits} bits, {FREE}")
                line[len(pairs) + number].set_title(f"{model}\n{bits} bits, {BUDGET}")
        for column in (0, len(pairs)):
            axes[0][column].legend()
        heading = "Our own policies beside DBSC, on the paper's phone"
        write_figure(figure, heading, subjects, given.out / f"{NAME}{suffix}{SUFFIX}")


def _over_cache(axis: Any, part: pd.DataFrame) -> None:
    for policy in REGIMES[FREE]:
        own = part[part["policy"] == policy]
        marker, colour = LOOKS[policy]
        axis.plot(own["cache_gb"], own["flash_mb"], marker=marker, color=colour, label=policy, ms=5)
    own = part[part["policy"] == "dbsc"]
    axis.plot(own["cache_gb"], own["bound_mb"], "--", color="#D55E00", label="bound")
    axis.set(xlabel="expert cache, GB", ylabel="flash, MB per token", ylim=(0, None))
    axis.grid(color="#EEEEEE", linewidth=0.5)


def _over_error(axis: Any, part: pd.DataFrame) -> None:
    for policy in REGIMES[BUDGET]:
        own = part[part["policy"] == policy]
        marker, colour = LOOKS[policy]
        axis.plot(own["rel_mse"], own["energy_mj"], marker=marker, color=colour, label=policy, ms=5, alpha=0.8)
        if policy == "successor-paced":
            for row in own.itertuples():
                axis.annotate(
                    f"{row.cache_gb:g}", (row.rel_mse, row.energy_mj), xytext=(0, -11), textcoords="offset points",
                    fontsize=7, ha="center", color=colour,
                )  # fmt: skip
    axis.set(xlabel="relative MSE, open loop (labels: GB)", ylabel="energy, mJ per token")
    axis.margins(0.08)
    axis.grid(color="#EEEEEE", linewidth=0.5)


def table(frame: pd.DataFrame, regime: str) -> str:
    """Return energy, headroom and error of one regime, a line for each cache."""
    policies = list(REGIMES[regime])
    own = policies[-1]
    head = ["model", "bits, cache", *(f"mJ {name}" for name in policies), "saved"]
    head += [f"headroom {name}" for name in policies]
    if regime == BUDGET:
        head += [f"rel. MSE {name}" for name in policies]
    cells = []
    part = frame[frame["regime"] == regime]
    for (model, bits, capacity), group in part.groupby(["model", "bits", "cache_gb"], sort=False):
        by = group.set_index("policy")
        energy = by["energy_mj"]
        cell = [str(model), f"{bits}, {capacity:g} GB", *(f"{energy[name]:.1f}" for name in policies)]
        cell.append(f"{1 - energy[own] / energy.drop(own).min():.1%}")
        cell += [_headroom(by["flash_mb"][name], by["bound_mb"][name]) for name in policies]
        if regime == BUDGET:
            cell += [f"{by['rel_mse'][name]:.4f}" for name in policies]
        cells.append(cell)
    return markdown(head, cells)


def _headroom(read_mb: float, bound_mb: float) -> str:
    """Return how many times the bound was read; where next to nothing must be, the ratio says nothing."""
    return f"{read_mb / bound_mb:.2f}" if bound_mb >= 1 else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, write numbers and pictures, print the tables."""
    given = read_arguments(__doc__, arguments)
    sweep = (PAIRS[:1], CAPACITIES_GB[2:3]) if given.quick else (PAIRS, CAPACITIES_GB)
    for suffix, subjects in (("", given.twins(GSM8K)), ("_real", given.recorded(GSM8K))):
        chosen = subjects[:1] if given.quick else subjects
        found = [row for subject in chosen for row in rows(subject, *sweep)]
        if not found:
            continue
        frame = write_rows(found, given.out / f"{NAME}{suffix}.csv")
        draw(frame, chosen, given, suffix)
        for regime in REGIMES:
            print(f"\n{found[0]['source']}, {regime}\n\n{table(frame, regime)}", flush=True)


if __name__ == "__main__":
    main()
