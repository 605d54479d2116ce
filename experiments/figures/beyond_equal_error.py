"""Slices against plainly fewer bits: energy over the error of what is computed, every miss fetched.

    python experiments/figures/beyond_equal_error.py [--real FOLDER] [--out FOLDER] [--quick]

Whole experts quantised at 3 to 8 bits (``lru-high`` at those bits, and with our eviction) beside slices of several bit
pairs (``dbsc``, ``successor``): which costs less for the same error? The error is that of Gaussian weights, weighted
over the experts of a token in two ways: by gate (the proxy that every summary has), and by the gate's square, as the
errors of experts add up if they are independent. Open loop: no model was run. Writes beyond_equal_error.csv and the
picture, and prints for each pair what plain bits cost at its error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
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

from slicesim.amat.error import gaussian_error
from slicesim.trace import DECODE

NAME = "beyond_equal_error"
THRESHOLD = 0.1
PLAIN_BITS = (3, 4, 5, 6, 8)
PAIRS = ((8, 6), (8, 5), (8, 4), (6, 5), (6, 4), (6, 3), (4, 3))
CAPACITIES_GB = (2.4, 6.0)
PLAIN, PLAIN_OWN = "lru-high", "whole, successor"
#: Policy of the figure -> preset and settings, where it is no preset.
COMPOSED = {PLAIN_OWN: (PLAIN, {"policy.eviction": {"name": "successor"}})}
SLICED = {"dbsc": ("o", "#0072B2"), "successor": ("^", "#009E73")}
ERRORS = {"rel_mse": "weighted by gate", "rel_mse_square": "weighted by the gate's square"}


def critical_square_share(subject: Subject) -> float:
    """Return the critical experts' share of the squared gates of decode."""
    squares, critical = 0.0, 0.0
    for block in subject.trace.blocks():
        gates = block.scores[block.phase == DECODE]
        squares += float(np.square(gates).sum())
        critical += float(np.square(gates[gates >= THRESHOLD]).sum())
    return critical / squares


def rows(subject: Subject, capacities: Sequence[float], bits: Sequence[int], pairs: Sequence[Any]) -> Iterator[dict]:
    """Yield a row for each cache and design: energy, time and both errors."""
    share = critical_square_share(subject)
    for capacity in capacities:
        designs = [(policy, high, max(2, high - 3)) for policy in (PLAIN, PLAIN_OWN) for high in bits]
        designs += [(policy, high, low) for policy in SLICED for high, low in pairs]
        for policy, high, low in designs:
            preset, composed = COMPOSED.get(policy, (policy, {}))
            settings = {**Case(high, low, capacity).settings(subject), **ROOMY_DRAM, **composed}
            (result,) = replay(subject, [Run(preset, settings)])
            at_high, at_low = gaussian_error(high, low, 32)
            own = per_token(result)
            yield {
                "source": source_of(subject), "model": subject.title, "cache_gb": capacity, "policy": policy,
                "bits": f"{high}/{low}" if policy in SLICED else f"{high}",
                **{name: own[name] for name in ("energy_mj", "latency_ms", "miss_rate", "rel_mse")},
                "rel_mse_square": share * at_high + (1 - share) * at_low if policy in SLICED else at_high,
                "critical_square_share": share,
            }  # fmt: skip


def plain_cost(plain: pd.DataFrame, error: str, at: float, figure: str = "energy_mj") -> float:
    """Return what plain bits cost at an error, between whole bits on a straight line of log cost over log error."""
    ordered = plain.sort_values(error)
    known = np.log(ordered[error].to_numpy())
    if not known[0] <= np.log(at) <= known[-1]:
        return float("nan")
    return float(np.exp(np.interp(np.log(at), known, np.log(ordered[figure].to_numpy()))))


def draw(frame: pd.DataFrame, subjects: Sequence[Subject], given: Given, suffix: str) -> None:
    """Draw energy over error: a row for each model and weighting, a column for each cache."""
    plt = plotting()
    lines = [(model, error) for model in dict.fromkeys(frame["model"]) for error in ERRORS]
    capacities = list(dict.fromkeys(frame["cache_gb"]))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(capacities), len(lines), figsize=(1 + 3.4 * len(lines), 1.2 + 2.9 * len(capacities)), squeeze=False,
            sharey="row", layout="constrained",
        )  # fmt: skip
        for column, (model, error) in enumerate(lines):
            for axis, capacity in zip(axes[:, column], capacities, strict=True):
                part = frame[(frame["model"] == model) & (frame["cache_gb"] == capacity)]
                _line(axis, part[part["policy"] == PLAIN], error, ("s", "#000000"), "whole experts, LRU", "-")
                _line(axis, part[part["policy"] == PLAIN_OWN], error, ("", "#009E73"), "whole experts, successor", "-")
                for policy, look in SLICED.items():
                    _line(axis, part[part["policy"] == policy], error, look, f"slices, {policy}", "")
                axis.set(xscale="log", yscale="log", title=f"{model}, {capacity:g} GB")
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter("{x:g}")
                axis.tick_params(axis="y", which="minor", labelsize=7)
                axis.grid(color="#EEEEEE", linewidth=0.5)
            axes[-1][column].set_xlabel(f"relative MSE, {ERRORS[error]}")
        for axis in axes[:, 0]:
            axis.set_ylabel("energy, mJ per token")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        heading = "The same error by plainly fewer bits, or by slices? (labels: bits; down and left is better)"
        write_figure(figure, heading, subjects, given.out / f"{NAME}{suffix}{SUFFIX}")


def _line(axis: Any, part: pd.DataFrame, error: str, look: tuple[str, str], label: str, style: str) -> None:
    marker, colour = look
    axis.plot(part[error], part["energy_mj"], marker=marker, color=colour, label=label, linestyle=style, ms=5)
    above = label.endswith("dbsc")
    if label.endswith("successor"):
        return  # the same bits lie below dbsc's labels
    for row in part.itertuples():
        axis.annotate(
            row.bits, (getattr(row, error), row.energy_mj), xytext=(3, 4) if above else (-9, -9),
            textcoords="offset points", fontsize=7, color=colour,
        )  # fmt: skip


def table(frame: pd.DataFrame) -> str:
    """Return for each pair what it costs, and what plain bits cost at the same error by either weighting."""
    head = ["model", "cache", "bits"]
    for error in ERRORS.values():
        head += [f"error, {error}", "dbsc", "plain, LRU", "successor", "plain, successor"]
    cells = []
    for (model, capacity), part in frame.groupby(["model", "cache_gb"], sort=False):
        by = {policy: part[part["policy"] == policy].set_index("bits") for policy in (PLAIN, PLAIN_OWN, *SLICED)}
        for bits in by["dbsc"].index:
            cell = [str(model), f"{capacity:g} GB", str(bits)]
            for error in ERRORS:
                at = by["dbsc"].loc[bits, error]
                cell.append(f"{at:.5f}")
                for policy, plain in (("dbsc", PLAIN), ("successor", PLAIN_OWN)):
                    cost = plain_cost(by[plain], error, at)
                    cell += [f"{by[policy].loc[bits, 'energy_mj']:.0f}", "beyond" if np.isnan(cost) else f"{cost:.0f}"]
            cells.append(cell)
    return markdown(head, cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, write numbers and pictures, print the table."""
    given = read_arguments(__doc__, arguments)
    sweep = (CAPACITIES_GB[:1], PLAIN_BITS[::3], PAIRS[2:3]) if given.quick else (CAPACITIES_GB, PLAIN_BITS, PAIRS)
    for suffix, subjects in (("", given.twins(GSM8K)), ("_real", given.recorded(GSM8K))):
        chosen = subjects[:1] if given.quick else subjects
        found = [row for subject in chosen for row in rows(subject, *sweep)]
        if not found:
            continue
        frame = write_rows(found, given.out / f"{NAME}{suffix}.csv")
        draw(frame, chosen, given, suffix)
        shares = frame.drop_duplicates("model").set_index("model")["critical_square_share"]
        print(f"\n{found[0]['source']}; critical experts' share of squared gates:", end=" ")
        print(", ".join(f"{model} {share:.0%}" for model, share in shares.items()))
        print(f"\n{table(frame)}", flush=True)


if __name__ == "__main__":
    main()
