"""One table of speeds, each against a peer in the same run: ``make bench``, or ``--short`` as CI has it.

    .venv/bin/python experiments/bench.py [--short] [--trace TRACE]

The stream is recorded DeepSeek-V2-Lite routing where ``--trace`` names it (or ../shared/data holds it), and a SYNTHETIC
trace made from the shipped profile otherwise; the head of the table says which. Start-up, reading of files and writing
of results are left out unless a line says otherwise. Peers take turns, so that a slow moment of the machine meets both;
shown are medians, and the range in brackets. ``--short`` fails where the fast engine is below 100 x the reference on
the same demand tables.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slicesim.curves import lru_curve
from slicesim.decide.decide import TOKENS_PER_TABLE, Decision
from slicesim.policies import Eviction
from slicesim.scenario import Scenario
from slicesim.schedule import Plan, engine
from slicesim.simulation import Simulation, replay_together
from slicesim.trace import MemoryTrace, TraceBlock, load_trace
from slicesim.trace.synth import synthesise

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT.parent / "shared" / "data" / "traces" / "deepseek-v2-lite" / "law.npz"
REFERENCE_TOKENS = 400
LEAST_RATIO = 100


class LeastGate(Eviction):
    """A user's strategy that compiles: least gate mass per look-up first."""

    def key(self, entry: Any, now: int) -> float:
        """Mean gate score."""
        return entry.gate_mass / (entry.count + 1)  # type: ignore[no-any-return]


class Times(NamedTuple):
    """Seconds of several runs."""

    runs: list[float]

    @property
    def median(self) -> float:
        """The run in the middle."""
        return statistics.median(self.runs)

    def per(self, amount: float, unit: float = 1.0) -> str:
        """Write an amount per second: median and range."""
        low, middle, high = (amount / seconds / unit for seconds in (max(self.runs), self.median, min(self.runs)))
        return f"{middle:,.4g} ({low:,.4g} to {high:,.4g})"


def in_turns(runs: int, *actions: Callable[[], object]) -> list[Times]:
    """Time actions one after another, again and again, after a first go that is not timed."""
    for action in actions:
        action()
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(runs):
        for action, own in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            own.append(time.perf_counter() - start)
    return [Times(own) for own in times]


def simulation(trace: MemoryTrace, policy: str, **keys: Any) -> Simulation:
    """The paper's phone, all tokens as decode."""
    keys = {"trace.split": "all-decode", **{name.replace("__", "."): value for name, value in keys.items()}}
    return Simulation.prepare(Scenario.load(ROOT / "hwconfigs" / "mobile.yaml", policy=policy, assignments=keys), trace)


def tokens_of(trace: MemoryTrace, tokens: int) -> MemoryTrace:
    """So many tokens of one request each, the trace over and over."""
    index = np.arange(tokens) % len(trace.block)
    request, token = np.arange(tokens) // len(trace.block), index
    return MemoryTrace(trace.header, TraceBlock(request, token, *(column[index] for column in trace.block[2:5])))


def as_one_request(trace: MemoryTrace) -> MemoryTrace:
    """The same routes as one long stream."""
    count = len(trace.block)
    own = trace.block
    block = TraceBlock(np.zeros(count, dtype=np.int64), np.arange(count), own.phase, own.ids, own.scores)
    return MemoryTrace(trace.header.model_copy(update={"has_logits": False}), block, trace.name)


def line(label: str, figure: str, ratio: str = "") -> None:
    """Print one line of the table."""
    print(f"{label:<64} {figure:<34} {ratio}", flush=True)


# ---------------------------------------------------------------------- decide


def replay_blocks(simulated: Simulation) -> Callable[[], None]:
    """Decisions alone: the compiled batch loop over blocks that are ready."""
    block = simulated.trace.blocks().__next__()
    blocks = [block.part(start, start + TOKENS_PER_TABLE) for start in range(0, len(block), TOKENS_PER_TABLE)]

    def go() -> None:
        decision = Decision(simulated.request())
        for part in blocks:
            decision._decode(part, 0)

    return go


def flat_keys(trace: MemoryTrace) -> np.ndarray[Any, Any]:
    """(layer, expert) of every look-up, in falling gate order."""
    block = trace.block
    order = np.argsort(-block.scores, axis=2, kind="stable")
    layer = np.arange(block.ids.shape[1])[:, None] * trace.header.experts
    return (layer + np.take_along_axis(block.ids, order, axis=2)).reshape(-1).astype(np.int64)


def libcachesim_lru(keys: np.ndarray[Any, Any], experts: int, folder: Path) -> Callable[[], object]:
    """Its bulk path: LRU over a binary trace file, equal objects."""
    import libcachesim

    row = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    rows = np.zeros(len(keys), dtype=row)
    rows["id"], rows["size"], rows["next"] = keys + 1, 1, -1
    path = folder / "stream.oracleGeneral.bin"
    rows.tofile(path)

    def go() -> object:
        reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
        return libcachesim.LRU(cache_size=experts).process_trace(reader)

    return go


def ordered_dict_lru(keys: np.ndarray[Any, Any], experts: int) -> Callable[[], int]:
    """What one writes in an afternoon."""
    stream = keys.tolist()

    def go() -> int:
        cache: OrderedDict[int, None] = OrderedDict()
        hits = 0
        for key in stream:
            if key in cache:
                cache.move_to_end(key)
                hits += 1
            else:
                cache[key] = None
                if len(cache) > experts:
                    cache.popitem(last=False)
        return hits

    return go


def decisions(trace: MemoryTrace, runs: int, short: bool) -> None:
    """Look-ups per second of the decision plane."""
    keys = flat_keys(trace)
    lru = simulation(trace, "lru-high")
    experts = round(2.4e9) // int(lru.sizes.msb_bytes[0])
    with tempfile.TemporaryDirectory() as folder:
        actions = [replay_blocks(lru), libcachesim_lru(keys, experts, Path(folder)), ordered_dict_lru(keys, experts)]
        ours, library, dictionary = in_turns(runs, *actions)
    line("decide, LRU whole experts (batches, stamps, demand table)", f"{ours.per(len(keys), 1e6)} M look-ups/s")
    ratio = f"{library.median / ours.median:.2f} x (target 2)"
    line("  libcachesim LRU, bulk path over its binary file, flat", f"{library.per(len(keys), 1e6)} M", ratio)
    line("  OrderedDict, flat", f"{dictionary.per(len(keys), 1e6)} M", f"{dictionary.median / ours.median:.1f} x")
    if short:
        return
    strategies = {"lfu-keep": "lfu-keep", "belady": "belady", "a user's compiled key": f"{__file__}:LeastGate"}
    for label, name in strategies.items():
        scored = simulation(trace, "lru-high", policy__eviction={"name": name}, policy__warmup={"name": "none"})
        if scored.policy.eviction.needs_future:
            (whole,) = in_turns(runs, lambda scored=scored: [None for _ in Decision(scored.request()).run()])
            line(f"decide, {label} (indexing the future included)", f"{whole.per(len(keys), 1e6)} M (target 15)")
        else:
            (own,) = in_turns(runs, replay_blocks(scored))
            line(f"decide, {label}", f"{own.per(len(keys), 1e6)} M (target 15)")


# ---------------------------------------------------------------------- whole runs


ENGINES = ("fast", "reference")
MODES: dict[str, dict[str, Any]] = {
    "serial": {},
    "layer": {},
    "prefetch": {"policy__prefetch": {"name": "previous-token", "depth": 1, "budget_mb": 6.0}},
}


def schedule(simulated: Simulation, plans: list[Plan]) -> Callable[[], None]:
    """One engine alone, on demand tables that are ready."""
    settings = simulated.scenario.settings.schedule

    def go() -> None:
        clock = engine(settings.engine, settings.overlap)
        for plan in plans:
            clock.run(plan)
        clock.finish()

    return go


def engines(trace: MemoryTrace, runs: int) -> float:
    """Both engines on the same demand tables; returns the smallest ratio."""
    least = np.inf
    part = MemoryTrace(trace.header, trace.block.part(0, REFERENCE_TOKENS))
    for overlap, keys in MODES.items():
        both = [simulation(part, "slicemoe", schedule__overlap=overlap, schedule__engine=e, **keys) for e in ENGINES]
        plans = [plan for _, plan, _ in both[0].tables()]
        ours, slow = in_turns(runs, *(schedule(simulated, plans) for simulated in both))
        ratio = slow.median / ours.median
        least = min(least, ratio)
        line(f"engine alone, slicemoe, {overlap}", f"{ours.per(len(part.block))} tokens/s")
        line("  reference engine (SimPy)", f"{slow.per(len(part.block))} tokens/s", f"{ratio:.0f} x")
    return float(least)


def whole_runs(trace: MemoryTrace, runs: int) -> None:
    """Decide, schedule and account against the reference engine."""
    part = MemoryTrace(trace.header, trace.block.part(0, REFERENCE_TOKENS))
    for overlap, keys in MODES.items():
        fast = simulation(trace, "slicemoe", schedule__overlap=overlap, **keys)
        reference = simulation(part, "slicemoe", schedule__overlap=overlap, schedule__engine="reference", **keys)
        ours, slow = in_turns(runs, fast.run, reference.run)
        ratio = (slow.median / len(part.block)) / (ours.median / len(trace.block))
        target = 100 if overlap == "prefetch" else 300
        line(f"whole run, slicemoe, {overlap}", f"{ours.per(len(trace.block))} tokens/s")
        line("  reference engine (SimPy)", f"{slow.per(len(part.block))} tokens/s", f"{ratio:.0f} x (target {target})")


def planes(trace: MemoryTrace, runs: int) -> None:
    """Miss-ratio curves, and one more hardware point on ready demand tables."""
    slices = simulation(trace, "lru-slices")
    curve, replay = in_turns(
        runs, lambda: lru_curve(slices.request()), lambda: [None for _ in Decision(slices.request()).run()]
    )
    ratio = f"{curve.median / replay.median:.2f} x one replay (target 5)"
    line("LRU curve over slices, every cache size", f"{curve.median:.3f} s", ratio)
    for overlap in ("serial", "layer"):
        points = [
            simulation(trace, "slicemoe", schedule__overlap=overlap, device__flash__bandwidth_gbs=rate)
            for rate in (1.25, 1.5, 1.75, 2.0, 2.5)
        ]
        one, five = in_turns(runs, points[0].run, lambda points=points: list(replay_together(points)))
        more = (five.median - one.median) / (len(points) - 1)
        ratio = f"{more / one.median:.2f} x a whole run (target 0.5)"
        line(f"one more hardware point, {overlap}", f"{more:.3f} s", ratio)


def scaling(trace: MemoryTrace) -> None:
    """Cost per token as tokens double and as the cache grows."""
    for thousands in (1, 2, 4, 8, 16, 32, 64, 128):
        longer = simulation(tokens_of(trace, 1000 * thousands), "slicemoe")
        (own,) = in_turns(1, longer.run)
        line(f"whole run, slicemoe, {thousands},000 tokens", f"{own.median / thousands * 1e3:.2f} us/token")
    for gigabytes in (0.6, 1.2, 2.4, 3.6, 4.8):
        (own,) = in_turns(3, simulation(trace, "slicemoe", cache__capacity_gb=gigabytes).run)
        line(f"whole run, slicemoe, cache of {gigabytes} GB", f"{own.median / len(trace.block) * 1e6:.2f} us/token")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="decide and whole runs only, few repetitions")
    parser.add_argument("--trace", type=Path, help="recorded DeepSeek-V2-Lite routing")
    chosen = parser.parse_args()
    path = chosen.trace or (RECORDED if RECORDED.is_file() else None)
    if path is None:
        profile = ROOT / "traces" / "deepseek-v2-lite-twin.yaml"
        trace = synthesise(profile, tokens=8000, seed=0, prompt_fraction=0.0)
        print(f"stream: SYNTHETIC, made from {profile.name}")
    else:
        trace = load_trace(path)  # type: ignore[assignment]
        print(f"stream: {path.name}")
    recorded, trace = trace, as_one_request(trace)
    print(f"{len(trace.block)} tokens, {len(trace.header.layers)} layers, top-{trace.header.top_k}\n")
    runs = 3 if chosen.short else 7
    decisions(trace, runs, chosen.short)
    least = engines(recorded, runs)
    whole_runs(recorded, runs)
    if not chosen.short:
        planes(recorded, runs)
        scaling(trace)
    elif least < LEAST_RATIO:
        sys.exit(f"the fast engine is {least:.0f} x the reference, below {LEAST_RATIO} x")


if __name__ == "__main__":
    main()
