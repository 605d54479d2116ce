"""Where slicing pays: its gain over whole experts at high precision, over flash and DRAM bandwidth and energy per bit.

    python experiments/figures/beyond_bandwidth.py [--real FOLDER] [--out FOLDER] [--quick]

The paper's phone (serial, nothing but bandwidths) at 2.4 GB and 8/4 bits, with the rates of flash and DRAM replaced;
every device of the figures is marked where its own rates lie. Decisions are the same all over a map, so each policy is
decided once. Beside the simulated maps stands the roofline: with F bytes read from flash and D from DRAM for each
token, at the rates f and d,

    gain = (F / min(f, d) + D / d) / (F' / min(f, d) + D' / d),     crossover: the miss rate f / d

It depends on f / d alone, so lines of equal gain are straight. At the crossover miss rate flash takes as long as DRAM.
The gain tends to F / F' where flash is slow. Flash faster than DRAM changes nothing, as what it reads is written there.
For energy the prices are pJ/bit, D holds the fills too, and the NPU's share is on both sides. Writes
beyond_bandwidth.csv (all points) and the picture, and prints limits and crossovers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
from replays import DEVICES, ROOMY_DRAM, Device, Run, markdown, per_token, replay

from slicesim.hardware import Hardware
from slicesim.result import Result

NAME = "beyond_bandwidth"
CASE = Case()
BASE, POLICIES = "lru-high", ("dbsc", "slicemoe")
#: Lines of equal gain in a panel.
MOST_LEVELS = 9


class Axes(NamedTuple):
    """One map: what is varied (flash across, DRAM upwards), and which figure is compared."""

    figure: str
    flash: tuple[str, ...]
    dram: str
    flash_values: np.ndarray
    dram_values: np.ndarray
    flash_label: str
    dram_label: str
    gain_label: str

    def settings(self, flash: float, dram: float) -> dict[str, Any]:
        """Return the device's keys at a point."""
        return {**dict.fromkeys(self.flash, flash), self.dram: dram}


def maps(*, quick: bool) -> tuple[Axes, Axes]:
    """Return the map of time and the map of energy."""
    points = 2 if quick else 11
    flash_rate = ("device.flash.bandwidth_gbs", "device.flash.lane_bandwidth_gbs")
    return (
        Axes(
            "latency_ms", flash_rate, "device.dram.bandwidth_gbs", np.geomspace(0.5, 16, points),
            np.geomspace(8, 400, points), "flash, GB/s", "DRAM, GB/s as the client sees it", "speed-up",
        ),
        Axes(
            "energy_mj", ("device.flash.energy_pj_per_bit",), "device.dram.energy_pj_per_bit",
            np.geomspace(10, 160, points), np.geomspace(1, 16, points), "flash, pJ/bit", "DRAM, pJ/bit", "energy gain",
        ),
    )  # fmt: skip


class Load(NamedTuple):
    """What a policy asks of the tiers for one decode token: bytes of flash and DRAM, and what has neither's price."""

    flash: float
    dram: float
    fixed: float

    @classmethod
    def of(cls, result: Result, axes: Axes) -> Load:
        """Take it from a run. Fills cost energy; their time is hidden behind the next read."""
        decode = result.decode
        moved, tokens = decode["bytes"], decode["tokens"]
        if axes.figure == "latency_ms":
            return cls(moved["flash_read"] / tokens, moved["dram_read"] / tokens, 0.0)
        npu_pj = decode["energy_pj_per_token"]["npu"]
        return cls(moved["flash_read"] / tokens, (moved["dram_read"] + moved["dram_write"]) / tokens, npu_pj / 8)

    def cost(self, flash: float, dram: float) -> float:
        """Return the sum at a price for each byte (of energy: for each bit)."""
        return self.flash * flash + self.dram * dram + self.fixed


def roofline(base: Load, own: Load, axes: Axes, flash: float, dram: float) -> float:
    """Return the gain where tiers are used one after the other. flash, dram: GB/s, or pJ/bit."""
    if axes.figure == "latency_ms":
        flash, dram = max(1 / flash, 1 / dram), 1 / dram
    return base.cost(flash, dram) / own.cost(flash, dram)


def ratio_at(base: Load, own: Load, level: float) -> float | None:
    """Return the flash price over the DRAM price at which the gain is ``level``; None where it never is.

    Solves F r + D = level (F' r + D') for r; what has neither's price is left out.
    """
    above, below = level * own.dram - base.dram, base.flash - level * own.flash
    ratio = above / below if below else -1.0
    return ratio if ratio > 0 else None


def points(subject: Subject, axes: Axes) -> Iterator[dict[str, Any]]:
    """Yield a row for every point of a map: the gain of each policy, simulated and by the roofline."""
    where = [(flash, dram) for dram in axes.dram_values for flash in axes.flash_values]
    fixed = {**CASE.settings(subject), **ROOMY_DRAM}
    found = {
        policy: replay(subject, [Run(policy, {**fixed, **axes.settings(*point)}) for point in where])
        for policy in (BASE, *POLICIES)
    }
    loads = {policy: Load.of(results[0], axes) for policy, results in found.items()}
    for number, (flash, dram) in enumerate(where):
        base = per_token(found[BASE][number])[axes.figure]
        for policy in POLICIES:
            own = per_token(found[policy][number])
            yield {
                "source": source_of(subject), "model": subject.title, "figure": axes.figure, "flash": flash,
                "dram": dram, "policy": policy, "gain": base / own[axes.figure],
                "roofline": roofline(loads[BASE], loads[policy], axes, flash, dram), "rel_mse": own["rel_mse"],
            }  # fmt: skip


def place(device: Device, axes: Axes) -> tuple[float, float]:
    """Return where a device lies on a map: (flash, DRAM)."""
    section = device.load().settings.device
    hardware = Hardware.of(section)
    if axes.figure == "latency_ms":
        return section.flash.bandwidth_gbs.value, hardware.dram.client_gbs
    energy = section.dram.energy_pj_per_bit
    return section.flash.energy_pj_per_bit.value, energy.value if energy else hardware.dram.energy_pj_per_bit


def on_devices(subject: Subject) -> Iterator[dict[str, Any]]:
    """Yield each device's crossover miss rates and its own gains: its whole file, not its two rates alone."""
    time, energy = maps(quick=True)
    fixed = {**CASE.settings(subject), **ROOMY_DRAM}
    found = {
        policy: replay(subject, [Run(policy, {**device.settings, **fixed}, device.path) for device in DEVICES])
        for policy in (BASE, *POLICIES)
    }
    for number, device in enumerate(DEVICES):
        (flash, dram), (flash_pj, dram_pj) = place(device, time), place(device, energy)
        base = per_token(found[BASE][number])
        row = {
            "device": device.name + " *" * device.projected, "flash_gbs": flash, "dram_gbs": dram,
            "flash_pj": flash_pj, "dram_pj": dram_pj, "time_crossover": flash / dram,
            "energy_crossover": dram_pj / flash_pj,
        }  # fmt: skip
        for policy in POLICIES:
            own = per_token(found[policy][number])
            for axes in (time, energy):
                row[f"{policy} {axes.gain_label}"] = base[axes.figure] / own[axes.figure]
        yield row


def draw(frame: pd.DataFrame, subject: Subject, given: Given, suffix: str) -> None:
    """Draw a map of each figure and policy, with the devices on it."""
    plt = plotting()
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, len(POLICIES), figsize=(11, 9), layout="constrained")
        for line, axes in zip(panels, maps(quick=given.quick), strict=True):
            part = frame[frame["figure"] == axes.figure]
            for axis, policy in zip(line, POLICIES, strict=True):
                grid = part[part["policy"] == policy].pivot(index="dram", columns="flash", values="gain")
                drawn = axis.pcolormesh(
                    grid.columns, grid.index, grid.to_numpy(), shading="gouraud", cmap="cividis", rasterized=True
                )
                figure.colorbar(drawn, ax=axis, label=axes.gain_label, pad=0.01)
                lines = axis.contour(
                    grid.columns, grid.index, grid.to_numpy(), MOST_LEVELS, colors="white", linewidths=0.8
                )
                axis.clabel(lines, fmt="%g", fontsize=8)
                axis.set(xscale="log", yscale="log", title=f"{policy} over {BASE}: {axes.gain_label}")
                axis.set(xlabel=axes.flash_label, ylabel=axes.dram_label)
                axis.xaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_major_formatter("{x:g}")
                _mark(axis, axes)
        numbers = (f"{number} {device.name}" for number, device in enumerate(DEVICES, start=1))
        figure.supxlabel(textwrap.fill("   ".join(numbers), 110), fontsize=9)
        heading = f"{subject.title}, {CASE}: gain of slices over whole experts at 8 bits (hollow: projected)"
        write_figure(figure, heading, [subject], given.out / f"{NAME}{suffix}{SUFFIX}")


def _mark(axis: Any, axes: Axes) -> None:
    """Mark the devices that lie on the map; those in one place share a number list."""
    from matplotlib.patheffects import withStroke

    spots: dict[tuple[float, float], list[int]] = {}
    for number, device in enumerate(DEVICES, start=1):
        spots.setdefault(place(device, axes), []).append(number)
    left, right = axes.flash_values[[0, -1]]
    bottom, top = axes.dram_values[[0, -1]]
    for (flash, dram), numbers in spots.items():
        hollow = all(DEVICES[number - 1].projected for number in numbers)
        inside = left <= flash <= right and bottom <= dram <= top
        at = (min(max(flash, left), right), min(max(dram, bottom), top))
        marker = "o" if inside else "^"
        offset = (6, 4) if numbers[0] % 2 else (-13, -4) if axes.figure == "latency_ms" else (4, -13)
        axis.plot(*at, marker, mfc="none" if hollow else "#D55E00", mec="#D55E00", ms=7, mew=1.5, clip_on=False)
        axis.annotate(
            ",".join(map(str, numbers)), at, xytext=offset, textcoords="offset points", fontsize=9, color="white",
            weight="bold", path_effects=[withStroke(linewidth=2, foreground="black")],
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, write numbers and pictures, print crossovers and the devices' own gains."""
    given = read_arguments(__doc__, arguments)
    for suffix, subjects in (("", given.twins(GSM8K)), ("_real", given.recorded(GSM8K))):
        for subject in subjects[:1]:
            found = [row for axes in maps(quick=given.quick) for row in points(subject, axes)]
            frame = write_rows(found, given.out / f"{NAME}{suffix}.csv")
            draw(frame, subject, given, suffix)
            print(f"\n{source_of(subject)}, {subject.title}, {CASE}, against {BASE}\n")
            print(_limits(subject), "\n")
            error = (frame["roofline"] / frame["gain"] - 1).abs().groupby(frame["figure"]).max()
            print("roofline against the simulated maps, off at most:", error.map("{:.1%}".format).to_dict(), "\n")
            if not given.quick:
                print(_device_table(list(on_devices(subject))), flush=True)


def _limits(subject: Subject) -> str:
    """Return each policy's bytes, the limits of its gains, and where they are 1.05, 1.5 and 2."""
    fixed = {**CASE.settings(subject), **ROOMY_DRAM}
    results = {policy: replay(subject, [Run(policy, fixed)])[0] for policy in (BASE, *POLICIES)}
    cells = []
    for axes in maps(quick=True):
        loads = {policy: Load.of(result, axes) for policy, result in results.items()}
        base = loads[BASE]
        for policy in POLICIES:
            own = loads[policy]
            cell = [f"{policy}, {axes.gain_label}"]
            cell += [f"{mine / 1e6:.0f} of {its / 1e6:.0f}" for mine, its in zip(own[:2], base[:2], strict=True)]
            least = roofline(base, own, axes, 1.0, 1.0) if axes.figure == "latency_ms" else base.dram / own.dram
            cell += [f"{base.flash / own.flash:.2f}", f"{least:.2f}"]
            cells.append(cell + [_where(ratio_at(base, own, level), axes) for level in (1.05, 1.5, 2.0)])
    head = ["", "flash MB/token", "DRAM MB/token", "most: flash alone", "least", "1.05 at", "1.5 at", "2 at"]
    return markdown(head, cells)


def _where(ratio: float | None, axes: Axes) -> str:
    """Say at which ratio of the tiers; in time, flash that is faster than DRAM changes nothing."""
    if ratio is None or (axes.figure == "latency_ms" and ratio < 1):
        return "nowhere"
    return f"f / d = {1 / ratio:.2f}" if axes.figure == "latency_ms" else f"{ratio:.1f} : 1 pJ/bit"


def _device_table(rows: Sequence[dict[str, Any]]) -> str:
    gains = [name for name in rows[0] if name.startswith(POLICIES)]
    head = ["", "device", "flash, DRAM GB/s", "time crossover", "flash, DRAM pJ/bit", "energy crossover", *gains]
    cells = (
        [
            str(number), row["device"], f"{row['flash_gbs']:.2f}, {row['dram_gbs']:.1f}",
            f"{row['time_crossover']:.1%}",
            f"{row['flash_pj']:.0f}, {row['dram_pj']:.1f}", f"{row['energy_crossover']:.1%}",
            *(f"{row[name]:.2f}" for name in gains),
        ]
        for number, row in enumerate(rows, start=1)
    )  # fmt: skip
    return markdown(head, cells)


if __name__ == "__main__":
    main()
