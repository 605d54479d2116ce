"""What devices of 2024 to 2026 get: speed and energy of decode, and the time to the first token, by policy.

    python experiments/figures/beyond_devices.py [--real FOLDER] [--out FOLDER] [--quick]

Two cache sizes. "half of DRAM": the model may have half of the device's DRAM; what non-expert weights and the KV cache
leave of it is the cache, at most all experts. "a quarter of the experts": the same share on every device, as a model
four times as large as the cache would find it. Each device overlaps as its file says. Writes beyond_devices.csv and the
picture, and prints the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from kit import (
    GSM8K,
    STYLE,
    SUFFIX,
    Given,
    Subject,
    plotting,
    read_arguments,
    source_of,
    write_figure,
    write_rows,
)
from replays import DEVICES, Device, Run, expert_gb, markdown, per_token, replay, resident_gb

NAME = "beyond_devices"
RULES = ("half of DRAM", "a quarter of the experts")

#: Policy -> marker and colour (Okabe and Ito), in the order of the legend.
POLICIES = {
    "lru-high": ("s", "#000000"), "lru-low": ("D", "#999999"), "dbsc": ("o", "#0072B2"), "successor": ("^", "#009E73"),
    "cache-prior": ("v", "#E69F00"), "slicemoe": ("P", "#D55E00"), "successor-paced": ("X", "#CC79A7"),
}  # fmt: skip
NEEDS_LOGITS = {"cache-prior"}
QUICK_POLICIES = ("lru-high", "dbsc")
#: Above it, experts were dropped or replaced: low precision alone gives 0.012.
GOOD_MSE = 0.05
#: Of the picture: what, and its axis.
PANELS = (("tokens_per_s", "decode, tokens/s"), ("energy_mj", "energy, mJ per token"))


#: What is printed: figure, name, digits.
TABLES = (
    ("tokens_per_s", "tokens/s", 1), ("latency_ms", "ms per token", 1), ("energy_mj", "mJ per token", 0),
    ("ttft_s", "time to first token, s", 1), ("rel_mse", "relative MSE, open loop", 4),
)  # fmt: skip


def cache_gb(device: Device, model: str, rule: str, context: int) -> float:
    """Return the cache that a rule gives a device, in GB, as if all layers were there."""
    everything = expert_gb(model)
    if rule != RULES[0]:
        return round(everything / 4, 2)
    dram_gb = device.load().settings.device.dram.capacity_gb.value
    return round(min(dram_gb / 2 - resident_gb(model, context), everything), 2)


def rows(subject: Subject, devices: Sequence[Device], policies: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield one row for each rule, policy and device."""
    context = max(subject.trace.request_lengths().values())
    for rule in RULES:
        sizes = [cache_gb(device, subject.model, rule, context) for device in devices]
        for policy in policies:
            runs = [
                Run(policy, {**device.settings, "cache.capacity_gb": size * subject.layer_share}, device.path)
                for device, size in zip(devices, sizes, strict=True)
            ]
            for device, size, result in zip(devices, sizes, replay(subject, runs), strict=True):
                ttft = result.prefill["ttft_ps"]
                yield {
                    "source": source_of(subject), "model": subject.title, "rule": rule, "device": device.name,
                    "projected": device.projected, "cache_gb": size, "policy": policy,
                    "tokens_per_s": result.decode["tokens_per_s"], **per_token(result),
                    "ttft_s": ttft["mean"] * 1e-12 if ttft else None,
                }  # fmt: skip


def draw(frame: pd.DataFrame, subjects: Sequence[Subject], given: Given, suffix: str) -> None:
    """Draw speed and energy: a row of panels for each model, a dot for each device and policy."""
    plt = plotting()
    from matplotlib.ticker import LogLocator

    models = list(dict.fromkeys(frame["model"]))
    names = list(dict.fromkeys(frame["device"]))
    projected = set(frame.loc[frame["projected"], "device"])
    with plt.rc_context(STYLE):
        height = 1.5 + len(models) * (1.2 + 0.22 * len(names))
        figure, axes = plt.subplots(
            len(models), 4, figsize=(13, height), squeeze=False, sharey=True, sharex="col", layout="constrained"
        )
        for line, model in zip(axes, models, strict=True):
            panels = [(rule, column, label) for rule in RULES for column, label in PANELS]
            for axis, (rule, column, label) in zip(line, panels, strict=True):
                part = frame[(frame["model"] == model) & (frame["rule"] == rule)]
                for policy, (marker, colour) in POLICIES.items():
                    own = part[part["policy"] == policy]
                    for is_good, fill in ((True, colour), (False, "none")):
                        dots = own[(own["rel_mse"] <= GOOD_MSE) == is_good]
                        places = [names.index(name) for name in dots["device"]]
                        axis.plot(dots[column], places, marker, color=colour, mfc=fill, ms=6, alpha=0.85, mew=1)
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
                axis.xaxis.set_major_formatter("{x:g}")
                axis.grid(axis="both", color="#DDDDDD", linewidth=0.5)
                axis.set_yticks(range(len(names)), [f"{n} *" if n in projected else n for n in names])
                axis.set_title(f"cache: {rule}")
                if model == models[-1]:
                    axis.set_xlabel(label)
            line[0].set_ylabel(model)
            line[0].set_ylim(len(names) - 0.5, -0.5)
        handles = [
            plt.Line2D([], [], marker=marker, color=colour, linestyle="", label=policy)
            for policy, (marker, colour) in POLICIES.items()
            if policy in set(frame["policy"])
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), markerscale=1.2)
        heading = f"Decode by device and policy, 8/4 bits (* projected; hollow: relative error above {GOOD_MSE:g})"
        write_figure(figure, heading, subjects, given.out / f"{NAME}{suffix}{SUFFIX}")


def table(frame: pd.DataFrame, figure: str, digits: int) -> str:
    """Return one figure: a line for each device, a column for each policy; ~ marks a relative error above GOOD_MSE."""
    policies = list(dict.fromkeys(frame["policy"]))
    cells = []
    for (model, device), part in frame.groupby(["model", "device"], sort=False):
        by = part.set_index("policy")
        one = part.iloc[0]
        cell = [str(model), str(device) + " *" * bool(one["projected"]), f"{one['cache_gb']:g} GB"]
        for policy in policies:
            mark = "~" * bool(by["rel_mse"][policy] > GOOD_MSE)
            cell.append(f"{by[figure][policy]:.{digits}f}{mark}")
        cells.append(cell)
    return markdown(["model", "device", "cache", *policies], cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, write numbers and pictures, print the tables."""
    given = read_arguments(__doc__, arguments)
    devices = DEVICES[:2] if given.quick else DEVICES
    for suffix, subjects in (("", given.twins(GSM8K)), ("_real", given.recorded(GSM8K))):
        found = []
        subjects = [subject for subject in subjects if subject.layer_share == 1]  # tokens/s are of whole models
        for subject in subjects[:1] if given.quick else subjects:
            known = subject.trace.header.has_logits
            policies = [name for name in POLICIES if known or name not in NEEDS_LOGITS]
            found += list(rows(subject, devices, QUICK_POLICIES if given.quick else policies))
        if not found:
            continue
        frame = write_rows(found, given.out / f"{NAME}{suffix}.csv")
        draw(frame, subjects, given, suffix)
        for rule, part in frame.groupby("rule", sort=False):
            for figure, name, digits in TABLES:
                print(f"\n{found[0]['source']}, cache: {rule}, {name} (* projected)\n")
                print(table(part, figure, digits), flush=True)


if __name__ == "__main__":
    main()
