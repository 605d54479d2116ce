"""Fit the flash law to the UFS 4.x table: five parameters, each measuring run with a ceiling of its own.

    python experiments/fit_flash.py            # parameters and errors
    python experiments/fit_flash.py --cross    # and the errors of rows, lane counts and sizes left out of the fit

Coordinate search on the law itself: every figure comes from running the closed loop of slicesim/hardware.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from math import sqrt

from slicesim.hardware.closed_loop import throughput_bytes_per_s
from slicesim.hardware.flash_law import FlashLaw
from slicesim.validation.reference import reference_rows, relative_error

MIB = 2**20
RUNS = ("by-lanes", "by-size")


@dataclass(frozen=True)
class Read:
    """One row of the table."""

    run: str
    size_bytes: int
    lanes: int
    bytes_per_s: float


@dataclass(frozen=True)
class Parameters:
    """What is fitted; the ceilings are those of the two runs."""

    latency_us: float
    gap_us: float
    lane_gbs: float
    by_lanes_gbs: float
    by_size_gbs: float

    def law(self, read: Read) -> FlashLaw:
        """The law for one row."""
        ceiling = self.by_lanes_gbs if read.run == "by-lanes" else self.by_size_gbs
        return FlashLaw(
            latency_ps=round(self.latency_us * 1e6),
            gap_ps=round(self.gap_us * 1e6),
            lane_bytes_per_s=round(self.lane_gbs * 1e9),
            ceiling_bytes_per_s=round(ceiling * 1e9),
            lanes=read.lanes,
        )

    def error(self, read: Read) -> float:
        """Relative error of the row's throughput."""
        return relative_error(throughput_bytes_per_s(self.law(read), read.size_bytes), read.bytes_per_s)


START = Parameters(latency_us=200, gap_us=90, lane_gbs=2.1, by_lanes_gbs=2.55, by_size_gbs=2.45)
#: The result, rounded: hwconfigs/parts/flash-ufs4-oneplus15r.yaml holds it.
FITTED = Parameters(latency_us=199, gap_us=102, lane_gbs=2.085, by_lanes_gbs=2.517, by_size_gbs=2.453)


def table(runs: Iterable[str] = RUNS) -> list[Read]:
    """Rows of the reference table."""
    return [
        Read(row["run"], int(row["read_kib"]) * 1024, int(row["lanes"]), float(row["mib_per_s"]) * MIB)
        for row in reference_rows("ufs4_reads")
        if row["run"] in runs
    ]


def loss(parameters: Parameters, reads: list[Read]) -> float:
    """Mean and root mean square of the errors, and a penalty on one above 10 %."""
    errors = [abs(parameters.error(read)) for read in reads]
    square = sqrt(sum(error**2 for error in errors) / len(errors))
    return sum(errors) / len(errors) + square + 3 * max(0.0, max(errors) - 0.10)


def fit(reads: list[Read], start: Parameters = START) -> Parameters:
    """Coordinate search: one parameter at a time, up and down, with a step that shrinks where neither helps."""
    best, best_loss = start, loss(start, reads)
    steps = dict.fromkeys(vars(start), 0.2)
    while max(steps.values()) > 1e-3:
        for name, step in steps.items():
            for factor in (1 + step, 1 - step):
                tried = replace(best, **{name: getattr(best, name) * factor})
                tried_loss = loss(tried, reads)
                if tried_loss < best_loss - 1e-9:
                    best, best_loss = tried, tried_loss
                    break
            else:
                steps[name] = step * 0.6
    return best


def mean_and_worst(errors: Iterable[float]) -> str:
    """Both in percent."""
    sizes = [abs(error) for error in errors]
    return f"mean {100 * sum(sizes) / len(sizes):.1f} %, worst {100 * max(sizes):.1f} %"


def cross_validate(reads: list[Read], start: Parameters) -> None:
    """Leave out each row, each lane count, each size; fit the others; judge what was left out."""
    groups = {
        "one row": [[read] for read in reads],
        "one lane count": [[r for r in reads if r.lanes == n] for n in sorted({r.lanes for r in reads})],
        "one size": [[r for r in reads if r.size_bytes == s] for s in sorted({r.size_bytes for r in reads})],
    }
    for name, parts in groups.items():
        errors = {}
        for held in parts:
            fitted = fit([read for read in reads if read not in held], start)
            errors.update({(read.run, read.size_bytes, read.lanes): fitted.error(read) for read in held})
        run, size, lanes = max(errors, key=lambda key: abs(errors[key]))
        print(f"left out {name}: {mean_and_worst(errors.values())} ({run}, {size // 1024} KiB, {lanes} lanes)")


def main() -> None:
    """Print it all."""
    reads = table()
    fitted = fit(reads)
    print("fitted", *(f"{name} {value:.3f}" for name, value in zip(vars(fitted), astuple(fitted), strict=True)))
    for title, parameters in (("fitted", fitted), ("rounded", FITTED)):
        print(f"{title}: {mean_and_worst(parameters.error(read) for read in reads)}")
    for read in reads + table(["held-out"]):
        size, measured = read.size_bytes // 1024, read.bytes_per_s / MIB
        print(f"{read.run:9} {size:5} KiB x {read.lanes:2}: {measured:5.0f} MiB/s, {100 * FITTED.error(read):+5.1f} %")
    if "--cross" in sys.argv:
        cross_validate(reads, START)


if __name__ == "__main__":
    main()
