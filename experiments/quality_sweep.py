"""Quality in the loop over lambda, cache size, threshold and bit pair: perplexity, miss rate and energy, one picture.

    python experiments/quality_sweep.py MODEL [--text FILE] [--prompts FILE] [--tokens N] [--requests R] [--out DIR]

MODEL is a live model's folder, a micro model for one (then everything is stamped so). Each point is one run of the
loop, token by token, and the replay of what it recorded. Needs the extra ``capture``. Writes points.parquet and
quality_sweep.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from slicesim.live.load import LoadOptions
from slicesim.quality.loop import Listener, Text, predict, predict_at_once
from slicesim.quality.study import Row, Subject, choose_bank, load_subject, prepare_loops, run_row
from slicesim.quality.texts import Cut, read_texts
from slicesim.report.curves import COLOURS, MARKERS
from slicesim.report.figure import finish
from slicesim.report.folder import write_folder

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "hwconfigs" / "mobile.yaml"

CACHES_GB = (1.8, 2.4, 3.6)
STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7)
MASSES = (0.3, 0.5, 0.7, 0.9)
THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 1.0)
PAIRS = ((8, 4), (6, 3), (4, 2))
#: Of the panels over lambda: the coarsest pair, since a micro model hardly feels finer ones.
COARSE = {"amat.high_bits": 4, "amat.low_bits": 2}
UNCONSTRAINED = {"policy.constraint": {"name": "none"}}


@dataclass(frozen=True)
class Point:
    """One run: the panel and line that it belongs to, and what is set."""

    panel: str
    line: str
    x: float
    preset: str
    settings: Mapping[str, Any]
    at_once: bool = False


def points() -> Iterator[Point]:
    """Yield all runs."""
    priors = {"high bits": "lru-high", "low bits": "lru-low", "bit slices": "dbsc"}
    for cache in CACHES_GB:
        own = {"cache.capacity_gb": cache, **COARSE, **UNCONSTRAINED}
        for name, preset in priors.items():
            for strength in STRENGTHS:
                routing = {"policy.routing": {"name": "cache-prior", "strength": strength}}
                yield Point(f"{cache:g} GB", f"Cache-Prior, {name}", strength, preset, {**own, **routing})
        for mass in MASSES:
            routing = {"policy.routing": {"name": "cumsum", "mass": mass}}
            yield Point(f"{cache:g} GB", "Cumsum, high bits", mass, "lru-high", {**own, **routing})
    for strength in STRENGTHS:
        free = {"policy.routing": {"name": "cache-prior", "strength": strength, "top_j": 0}}
        yield Point(
            "scoring", "Cache-Prior, J = 0", strength, "dbsc", {**COARSE, **UNCONSTRAINED, **free}, at_once=True
        )
    for high, low in PAIRS:
        for threshold in THRESHOLDS:
            bits = {"amat.high_bits": high, "amat.low_bits": low, "policy.precision.threshold": threshold}
            yield Point("threshold", f"{high}/{low} bits", threshold, "dbsc", {**bits, **UNCONSTRAINED})


def sweep(subject: Subject, texts: list[Text]) -> pd.DataFrame:
    """Run all points; one row each."""
    banks: dict[tuple[int, int], Any] = {}
    with subject.plain():
        plain = Row(
            "full precision",
            predict(subject.live.model, texts, Listener()),
            predict_at_once(subject.live.model, texts, Listener()),
        )
    rows = []
    every = list(points())
    for number, point in enumerate(every, 1):
        (simulation,) = prepare_loops(subject, CONFIG, [point.preset], point.settings)
        amat = simulation.scenario.settings.amat
        bank = banks.setdefault((amat.high_bits, amat.low_bits), choose_bank(subject, amat))
        row = run_row(subject, texts, simulation, bank, at_once=point.at_once).describe(plain)
        quality, decode = row["quality"], row["decode"]
        whole = quality["perplexity_at_once"]
        rows.append(
            {
                "panel": point.panel,
                "line": point.line,
                "x": point.x,
                "perplexity": quality["perplexity"],
                "perplexity_change": quality["perplexity_ratio"] - 1,
                "standard_error": quality["nll_change_standard_error"],
                "perplexity_change_at_once": None if whole is None else whole / _plain_at_once(plain) - 1,
                "accuracy": quality["accuracy"],
                "agreement": quality["agreement"],
                "miss_rate_slices": decode["miss_rate"]["slices"],
                "miss_rate_msb": decode["miss_rate"]["msb"],
                "energy_pj_per_token": decode["energy_pj_per_token"]["total"],
                "latency_ps": decode["latency_ps"]["mean"],
                "micro_model": subject.is_micro,
            }
        )
        print(f"{number}/{len(every)} {point.panel} {point.line} {point.x:g}: {_words(rows[-1])}", flush=True)
    return pd.DataFrame(rows)


def _plain_at_once(plain: Row) -> float:
    return float(Row("", plain.at_once or plain.predictions).describe(plain)["quality"]["perplexity"])


def _words(row: dict[str, Any]) -> str:
    return (
        f"perplexity {100 * row['perplexity_change']:+.2f} %, misses {100 * row['miss_rate_slices']:.1f} %, "
        f"{row['energy_pj_per_token'] / 1e9:.0f} mJ/token"
    )


def draw(frame: pd.DataFrame, subject: Subject, note: str, path: Path) -> None:
    """Draw perplexity against misses and energy for each cache, then thresholds, then what a whole batch hides."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(3, len(CACHES_GB), figsize=(12, 10.5), layout="constrained")
        for column, cache in enumerate(CACHES_GB):
            own = frame[frame["panel"] == f"{cache:g} GB"]
            _lines(
                axes[0, column],
                own,
                "miss_rate_slices",
                100,
                f"{cache:g} GB, 4/2 bits: miss rate of slice requests (%)",
            )
            _lines(axes[1, column], own, "energy_pj_per_token", 1e-9, f"{cache:g} GB, 4/2 bits: energy (mJ/token)")
        axes[0, 0].legend(frameon=False)
        own = frame[frame["panel"] == "threshold"]
        _lines(axes[2, 0], own, "x", 1, "threshold (bit slices, stock routing, 2.4 GB)")
        _lines(axes[2, 1], own, "energy_pj_per_token", 1e-9, "energy (mJ/token), thresholds as at the left")
        axes[2, 0].legend(frameon=False)
        own = frame[frame["perplexity_change_at_once"].notna()]
        for key, label in (("perplexity_change", "token by token"), ("perplexity_change_at_once", "as one batch")):
            axes[2, 2].plot(own["x"], 100 * own[key].astype(float), marker="o", markersize=4, label=label)
        axes[2, 2].set_xlabel("lambda (Cache-Prior, J = 0, bit slices, 4/2 bits, 2.4 GB)")
        axes[2, 2].set_yscale("symlog", linthresh=1)
        axes[2, 2].legend(frameon=False)
        for axis in axes[:, 0]:
            axis.set_ylabel("change of perplexity (%)")
        whose = f"micro model of {subject.stands_for}, sizes of the real one" if subject.is_micro else subject.name
        heading = f"Quality in the loop: {whose}"
        about = {"micro_model": subject.is_micro, "synthetic": False, "path": note}
        finish(figure, heading, about, path)


def _lines(axis: Any, frame: pd.DataFrame, key: str, factor: float, label: str) -> None:
    for number, (name, own) in enumerate(frame.groupby("line", sort=False)):
        axis.errorbar(
            factor * own[key], 100 * own["perplexity_change"], yerr=100 * own["standard_error"],
            color=COLOURS[number], marker=MARKERS[number], markersize=4, linewidth=1, elinewidth=0.5, label=name,
        )  # fmt: skip
    axis.axhline(0, color="#999999", linewidth=0.5)
    axis.set_xlabel(label)


def main() -> None:
    """Run the sweep and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, action="append", default=[])
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/quality-sweep"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    subject = load_subject(given.model, LoadOptions())
    cut = Cut(given.tokens, given.prompt_tokens, given.requests)
    texts = read_texts(given.text, given.prompts, subject.live.tokenizer, cut, subject.context)
    frame = sweep(subject, texts)
    scored = sum(text.scored for text in texts)
    files = [*given.text, *([given.prompts] if given.prompts else [])]
    note = f"{scored} tokens of {', '.join(file.name for file in files)}, scored token by token"
    write_folder(
        given.out,
        {
            "points.parquet": frame.to_parquet,
            "quality_sweep.png": lambda path: draw(frame, subject, note, path),
            "summary.json": lambda path: path.write_text(frame.to_json(orient="records", indent=1), encoding="utf-8"),
        },
    )
    print(f"written: {given.out}/ (points.parquet, summary.json, quality_sweep.png)", file=sys.stderr)


if __name__ == "__main__":
    main()
