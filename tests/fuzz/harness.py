"""Run a check on many made-up inputs: a fixed number in CI, more by hand (SLICESIM_FUZZ=1000000)."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from slicesim.errors import UserError

T = TypeVar("T")

#: Inputs in CI, by test; ``test_shares`` holds their sum to INPUTS.
INPUTS = 10_000
SHARES = {
    "scenario_trees": 900,
    "scenario_texts": 1200,
    "assignments": 1150,
    "policies": 600,
    "replays": 150,
    "parts_and_models": 800,
    "sweeps": 300,
    "profiles": 500,
    "text_traces": 1700,
    "npz": 500,
    "parquet_tables": 600,
    "parquet_bytes": 500,
    "demand": 450,
    "prompts": 150,
    "safetensors": 250,
    "saved_results": 150,
    "sweep_points": 100,
}

#: Inputs of one call of hypothesis: what it remembers of them stays small, however many are asked for.
BATCH = 500

#: No input takes a second; this many are a hang, on however busy a machine.
HANG_SECONDS = int(os.environ.get("SLICESIM_FUZZ_HANG_SECONDS", 60))

#: By hand: go on after a fault, and show each distinct one at the end (without shrinking it).
KEEP_GOING = "SLICESIM_FUZZ_KEEP_GOING" in os.environ


class HangError(BaseException):
    """An input that does not come to an end; no Exception, so that nothing catches it on the way."""


def inputs(share: str) -> int:
    """How many inputs a test makes: its share of SLICESIM_FUZZ."""
    asked = int(os.environ.get("SLICESIM_FUZZ", INPUTS))
    return max(1, SHARES[share] * asked // INPUTS)


def fuzz(share: str, check: Callable[[random.Random], str]) -> Counter[str]:
    """Call ``check`` with as many sources of choice as the share says; it returns how the input fared.

    The seeds are fixed (SLICESIM_FUZZ_SEED moves them); hypothesis names the number that makes an input that fails.
    Returns and prints the counts.
    """
    total, first = inputs(share), int(os.environ.get("SLICESIM_FUZZ_SEED", 0))
    fared: Counter[str] = Counter()
    faults: dict[str, str] = {}
    longest = 0.0

    def one(number: int) -> None:
        nonlocal longest
        choice = random.Random(number)  # that of hypothesis draws for each choice, which takes ten times as long
        began = time.perf_counter()
        try:
            with watched():
                fared[check(choice)] += 1
        except (Exception, HangError) as error:
            if not KEEP_GOING:
                raise
            fared["FAULT"] += 1
            faults.setdefault(_place(error), traceback.format_exc())
        longest = max(longest, time.perf_counter() - began)

    for start in range(0, total, BATCH):
        quiet = settings(
            max_examples=min(BATCH, total - start),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        seed(first + start)(quiet(given(st.integers(0, 2**64 - 1))(one)))()
    print(f"{share}: {sum(fared.values())} inputs, {dict(fared)}, longest {longest:.2f} s")
    assert not faults, "\n\n".join(f"{place}\n{text}" for place, text in faults.items())
    assert sum(fared.values()) >= total
    return fared


def _place(error: BaseException) -> str:
    """Kind of a fault, and the last place in slicesim or the tests that it went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"


@contextmanager
def watched(seconds: int = HANG_SECONDS) -> Iterator[None]:
    """Raise HangError in what takes too long."""

    def ring(*_: object) -> None:
        raise HangError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(call: Callable[[], T], *names: str | Path) -> tuple[T | None, str]:
    """Call; return what it gives and "", or None and the one line with which it refuses.

    The line must be one, printable, short, and hold one of ``names`` (a file, a key or an option).
    """
    try:
        return call(), ""
    except UserError as error:
        line = str(error)
    require_line(line, *names)
    return None, line


def require_line(line: str, *names: str | Path) -> None:
    """Hold a message to what a user can read."""
    assert line.strip() == line, line
    assert line.isprintable(), line
    assert 0 < len(line) < 2000, line
    assert any(str(name) in line for name in names), (line, names)


def plain(value: Any) -> Any:
    """NumPy and tuples to plain data, for comparison."""
    return value.tolist() if hasattr(value, "tolist") else value
