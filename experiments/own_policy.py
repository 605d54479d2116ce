"""slicesim's own policies against DBSC and one LRU over slices: energy, flash bytes and distance from the bound.

    python experiments/own_policy.py TRACE... [--capacities 1.8,2.4,3.6] [--pairs 8/4,6/3] [--split all-decode]
                                     [--model NAME] [--set KEY=VALUE]... [--out FILE.csv]

Two tables for each trace. With every miss fetched, what is computed is the same for all rows. Under a miss budget of
10 %, DBSC and LRU have the constraint ``budget``, ours is ``successor-paced``; quality is the open-loop proxy.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from slicesim import compare
from slicesim.scenario import parse_assignments

CONFIG = Path(__file__).resolve().parents[1] / "hwconfigs" / "mobile.yaml"
BASELINES = ("lru-slices", "dbsc")
TARGET = 0.1
BUDGET = {"policy.constraint.name": "budget", "policy.constraint.target": TARGET}


def main() -> None:
    """Print the tables, and write all rows where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", metavar="TRACE")
    parser.add_argument("--capacities", default="1.8,2.4,3.6", help="cache sizes in GB")
    parser.add_argument("--pairs", default="8/4,6/3", help="bit pairs, high/low")
    parser.add_argument("--split", default="all-decode", help="as in a scenario: trace.split")
    parser.add_argument("--model", help="model of the traces [default: that of mobile.yaml]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one scenario key")
    parser.add_argument("--out", help="CSV file for all rows")
    given = parser.parse_args()
    frames = []
    for trace in given.traces:
        rows = pd.DataFrame(_rows(trace, given))
        frames.append(rows)
        for regime, part in rows.groupby("regime", sort=False):
            synthetic = " - SYNTHETIC" if part.synthetic.any() else ""
            print(f"\n{Path(trace).name}{synthetic}, {regime}\n")
            _print(part.drop(columns=["trace", "synthetic", "regime"]))
    if given.out:
        pd.concat(frames).to_csv(given.out, index=False)


def _print(rows: pd.DataFrame) -> None:
    """Print a table as Markdown."""
    for cells in (rows.columns, ["---"] * len(rows.columns), *rows.astype(str).to_numpy()):
        print("|", " | ".join(cells), "|")


def _rows(trace: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for pair in given.pairs.split(","):
        for capacity in given.capacities.split(","):
            high, low = (int(bits) for bits in pair.split("/"))
            settings = parse_assignments([f"trace.split={given.split}", *given.set]) | {
                "cache.capacity_gb": float(capacity), "amat.high_bits": high, "amat.low_bits": low,
            }  # fmt: skip
            for regime, baselines, own, ours in (
                ("every miss fetched", {}, "successor", {}),
                (f"miss budget {TARGET:.0%}", BUDGET, "successor-paced", {"policy.constraint.target": TARGET}),
            ):
                summaries = _run(trace, given.model, BASELINES, settings | baselines)
                summaries += _run(trace, given.model, (own,), settings | ours)
                best = min(_energy(summary) for summary in summaries[:-1])
                for summary in summaries:
                    yield _row(trace, regime, f"{pair} {capacity} GB", summary, best)


def _run(trace: str, model: str | None, policies: Sequence[str], settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [result.summary for result in compare(CONFIG, policies, model=model, trace=trace, set=settings)]


def _energy(summary: dict[str, Any]) -> float:
    return float(summary["decode"]["energy_pj_per_token"]["total"])


def _row(trace: str, regime: str, case: str, summary: dict[str, Any], best: float) -> dict[str, Any]:
    decode = summary["decode"]
    return {
        "trace": Path(trace).name,
        "synthetic": summary["trace"]["synthetic"],
        "regime": regime,
        "case": case,
        "policy": summary["policy"],
        "mJ/token": round(_energy(summary) * 1e-9, 1),
        "of the best other": f"{_energy(summary) / best:.1%}",
        "flash MB/token": round(decode["bytes"]["flash_read"] / decode["tokens"] * 1e-6, 1),
        "headroom": round(decode["optimum"]["headroom"], 2),
        "miss %": round(decode["miss_rate"]["slices"] * 100, 1),
        "lost mass %": round((decode["quality"]["dropped_mass"] + decode["quality"]["substituted_mass"]) * 100, 1),
        "rel. MSE": round(decode["quality"]["expected_rel_mse"], 4),
    }


if __name__ == "__main__":
    main()
