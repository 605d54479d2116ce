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
TARGET = {"policy.constraint.target": 0.1}
#: What the baselines are run with, which policy is ours, and what it is run with.
REGIMES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "every miss fetched": ({}, "successor", {}),
    "miss budget of 10 %": ({"policy.constraint.name": "budget", **TARGET}, "successor-paced", TARGET),
}


def main() -> None:
    """Print the tables, and write all rows where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", metavar="TRACE")
    parser.add_argument("--capacities", default="1.8,2.4,3.6", help="cache sizes in GB")
    parser.add_argument("--pairs", default="8/4,6/3", help="bit pairs, high/low")
    parser.add_argument("--split", default="all-decode", help="as in a scenario: trace.split")
    parser.add_argument("--model", help="model of the traces [default: that of mobile.yaml]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one scenario key")
    parser.add_argument("--share", type=float, default=0.9, help="of the budget, that successor-paced aims at")
    parser.add_argument("--out", help="CSV file for all rows")
    given = parser.parse_args()
    rows = []
    for trace in given.traces:
        for regime in REGIMES:
            part = list(_rows(trace, regime, given))
            print(f"\n{Path(trace).name}{' - SYNTHETIC' if part[0]['synthetic'] else ''}, {regime}:\n")
            _print(part)
            rows += part
    if given.out:
        pd.DataFrame(rows).to_csv(given.out, index=False)


def _print(rows: Sequence[dict[str, Any]]) -> None:
    """Print one line for each case, as Markdown."""
    width = 1 + len(BASELINES)
    policies = [row["policy"] for row in rows[:width]]
    figures = [f"{name} {policy}" for name in ("mJ/token", "rel. MSE", "headroom") for policy in policies]
    cells = [["bits, cache", *figures, "energy saved"]]
    for case in (rows[start : start + width] for start in range(0, len(rows), width)):
        *others, own = (row["mJ/token"] for row in case)
        cells.append(
            [
                case[0]["case"],
                *(f"{row['mJ/token']:.1f}" for row in case),
                *(f"{row['rel. MSE']:.4f}" for row in case),
                *(f"{row['headroom']:.2f}" for row in case),
                f"{1 - own / min(others):.1%}",
            ]
        )
    for line in (cells[0], ["---"] * len(cells[0]), *cells[1:]):
        print("|", " | ".join(line), "|", flush=True)


def _rows(trace: str, regime: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    baselines, own, ours = REGIMES[regime]
    for pair in given.pairs.split(","):
        for capacity in given.capacities.split(","):
            high, low = (int(bits) for bits in pair.split("/"))
            settings = parse_assignments([f"trace.split={given.split}", *given.set]) | {
                "cache.capacity_gb": float(capacity), "amat.high_bits": high, "amat.low_bits": low,
            }  # fmt: skip
            paced = {"policy.constraint.share": given.share} if ours else {}
            for policies, changes, share in ((BASELINES, baselines, {}), ((own,), ours, paced)):
                for result in compare(CONFIG, policies, model=given.model, trace=trace, set=settings | changes | share):
                    yield _row(trace, regime, f"{pair}, {capacity} GB", result.summary)


def _row(trace: str, regime: str, case: str, summary: dict[str, Any]) -> dict[str, Any]:
    decode = summary["decode"]
    return {
        "trace": Path(trace).name,
        "synthetic": summary["trace"]["synthetic"],
        "regime": regime,
        "case": case,
        "policy": summary["policy"],
        "mJ/token": decode["energy_pj_per_token"]["total"] * 1e-9,
        "flash MB/token": decode["bytes"]["flash_read"] / decode["tokens"] * 1e-6,
        "headroom": decode["optimum"]["headroom"],
        "miss %": decode["miss_rate"]["slices"] * 100,
        "lost mass %": (decode["quality"]["dropped_mass"] + decode["quality"]["substituted_mass"]) * 100,
        "rel. MSE": decode["quality"]["expected_rel_mse"],
    }


if __name__ == "__main__":
    main()
