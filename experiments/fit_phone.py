"""Fit the phone: five figures of hwconfigs/oneplus-15r.yaml, on B1, B3 and the flash table. B5 is a prediction.

    python experiments/fit_phone.py            # figures and errors

Fitted: the ceiling and the gap of the flash (24 rows of the table, and I/O of B1), the computing rate (B1), the cost
of a batch of reads and of a byte put into the cache (I/O and computing of B3). Not fitted: latency (200 us), lane rate
(follows from it and the lone lane's 2.21 ms), lanes (4). Coordinate search on the simulator itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

from slicesim.hardware.closed_loop import throughput_bytes_per_s
from slicesim.hardware.flash_law import FlashLaw
from slicesim.validation.phone import Figures, phone_rows, replay, trace_of
from slicesim.validation.reference import reference_rows, relative_error

CONFIG = Path(__file__).resolve().parents[1] / "hwconfigs" / "oneplus-15r.yaml"
MIB = 2**20
LATENCY_US, LANE_GBS = 200.0, 2.087


@dataclass(frozen=True)
class Parameters:
    """The five figures, in the units of their keys."""

    bandwidth_gbs: float
    gap_us: float
    gflops: float
    insert_latency_us: float
    insert_bandwidth_gbs: float

    def changes(self) -> dict[str, float]:
        """The keys of a scenario that they stand for."""
        return {
            "device.flash.bandwidth_gbs": self.bandwidth_gbs,
            "device.flash.gap_us": self.gap_us,
            "device.cpu.gflops": self.gflops,
            "software.insert_latency_us": self.insert_latency_us,
            "software.insert_bandwidth_gbs": self.insert_bandwidth_gbs,
        }

    def law(self, lanes: int) -> FlashLaw:
        """The flash alone."""
        return FlashLaw(
            latency_ps=round(LATENCY_US * 1e6),
            gap_ps=round(self.gap_us * 1e6),
            lane_bytes_per_s=round(LANE_GBS * 1e9),
            ceiling_bytes_per_s=round(self.bandwidth_gbs * 1e9),
            lanes=lanes,
        )


START = Parameters(2.5, 100, 50, 350, 8.0)
#: The result, rounded: hwconfigs/oneplus-15r.yaml holds it.
FITTED = Parameters(2.5, 102, 50.6, 342, 8.6)


def table_errors(parameters: Parameters) -> list[float]:
    """Errors of the 24 rows of both measuring runs."""
    rows = [row for row in reference_rows("ufs4_reads") if row["run"] != "held-out"]
    return [
        relative_error(
            throughput_bytes_per_s(parameters.law(int(row["lanes"])), int(row["read_kib"]) * 1024),
            float(row["mib_per_s"]) * MIB,
        )
        for row in rows
    ]


def phone_errors(parameters: Parameters, row: dict[str, str]) -> tuple[float, float]:
    """Errors of I/O and computing time of one row."""
    measured, simulated = Figures.measured(row), replay(CONFIG, trace_of(row), parameters.changes())
    return tuple(relative_error(getattr(simulated, name), getattr(measured, name)) for name in ("io_s", "compute_s"))  # type: ignore[return-value]


def loss(parameters: Parameters, rows: list[dict[str, str]]) -> float:
    """Root mean square of the table's errors, and the mean of the four errors of the phone rows."""
    table = table_errors(parameters)
    phone = [abs(error) for row in rows for error in phone_errors(parameters, row)]
    return sqrt(sum(error**2 for error in table) / len(table)) + sum(phone) / len(phone)


def fit(rows: list[dict[str, str]], start: Parameters = START) -> Parameters:
    """One figure at a time, up and down, with a step that shrinks where neither helps."""
    best, best_loss = start, loss(start, rows)
    steps = dict.fromkeys(vars(start), 0.04)
    while max(steps.values()) > 2e-3:
        for name, step in steps.items():
            for factor in (1 + step, 1 - step):
                tried = replace(best, **{name: getattr(best, name) * factor})
                tried_loss = loss(tried, rows)
                if tried_loss < best_loss - 1e-6:
                    best, best_loss = tried, tried_loss
                    break
            else:
                steps[name] = step * 0.5
    return best


def main() -> None:
    """Fit, and print what comes out."""
    rows = {row["id"]: row for row in phone_rows()}
    best = fit([rows["B1"], rows["B3"]])
    for title, parameters in (("fit", best), ("rounded, as in hwconfigs", FITTED)):
        table = [abs(error) for error in table_errors(parameters)]
        print(f"{title}: {parameters}")
        print(f"  flash table: mean {100 * sum(table) / len(table):.1f} %, worst {100 * max(table):.1f} %")
        for name, row in rows.items():
            simulated, measured = replay(CONFIG, trace_of(row), parameters.changes()), Figures.measured(row)
            parts = (
                f"{key} {getattr(measured, key):.4g} -> {getattr(simulated, key):.4g} "
                f"({100 * relative_error(getattr(simulated, key), getattr(measured, key)):+.1f} %)"
                for key in ("tokens_per_s", "rate_p5", "rate_p50", "rate_p95", "io_s", "compute_s")
            )
            print(f"  {name} {'predicted' if name == 'B5' else 'fitted'}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
