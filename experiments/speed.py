"""Speed of the reference engine: 1,000 decode tokens of DeepSeek-V2-Lite shape (synthetic), and of ``--help``.

    .venv/bin/python experiments/speed.py

Replay means decide, schedule and account; start-up and the writing of files are left out.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import slicesim
from slicesim.trace.synth import synthesise

ROOT = Path(__file__).resolve().parents[1]
TOKENS, RUNS = 1000, 3


def seconds(action) -> list[float]:  # type: ignore[no-untyped-def]
    """Time an action several times."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return times


def show(label: str, times: list[float]) -> None:
    """Print median and range."""
    print(f"{label:<42} {statistics.median(times):6.2f} s  ({min(times):.2f} to {max(times):.2f}, {len(times)} runs)")


def main() -> None:
    """Print one line per case."""
    profile = ROOT / "traces" / "deepseek-v2-lite-published.yaml"
    trace = synthesise(profile, tokens=TOKENS, seed=0, prompt_fraction=0.0)
    for policy in ("slicemoe", "dbsc", "lru-high"):
        for overlap in ("serial", "layer"):
            keys = {"trace.split": "all-decode", "schedule.overlap": overlap}
            times = seconds(
                lambda policy=policy, keys=keys: slicesim.simulate(
                    ROOT / "hwconfigs" / "mobile.yaml", trace=trace, policy=policy, set=keys
                )
            )
            show(f"replay of {TOKENS} tokens, {policy}, {overlap}", times)
    show(
        "slicesim --help",
        seconds(
            lambda: subprocess.run([sys.executable, "-m", "slicesim", "--help"], check=True, stdout=subprocess.DEVNULL)
        ),
    )


if __name__ == "__main__":
    main()
