"""The project's decisions against a second replay that was written from the specification alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import DecodeDemand
from slicesim.decide.decide import Decision
from slicesim.simulation import Simulation
from slicesim.trace import DECODE, MemoryTrace, TraceBlock
from tests.kit import EXPERT_BYTES, LSB_BYTES, MSB_BYTES, make_trace, simulation
from tests.parity.naive_replay import Counts, Replay, Setup

EVICTIONS = ("lru", "dbsc", "lfu-keep", "lfu-forget", "fifo", "successor", "belady")
WARMUPS = ("none", "empty", "last-layer", "pcw", "pcw-topup")
LAYERS, EXPERTS = 2, 8  # of the tiny model


# ---------------------------------------------------------------------- both sides in one form


def plain_tokens(blocks: Iterable[TraceBlock], prompts: dict[int, int] | None = None) -> list[dict[str, Any]]:
    """Turn blocks into the naive replay's lists; ``prompts``: prompt tokens by request, instead of the phases."""
    tokens, seen = [], {}
    for block in blocks:
        for number, request in enumerate(block.request.tolist()):
            place = seen[request] = seen.get(request, 0) + 1
            decode = int(block.phase[number]) == DECODE if prompts is None else place > prompts[request]
            layers = []
            for layer, (ids, scores) in enumerate(
                zip(block.ids[number].tolist(), block.scores[number].tolist(), strict=True)
            ):
                there = [slot for slot, expert in enumerate(ids) if expert >= 0]
                row = {"ids": [ids[slot] for slot in there], "scores": [scores[slot] for slot in there]}
                if block.logits is not None:
                    z = block.logits[number, layer].astype(np.float64)
                    p = np.exp(z - z.max())
                    row |= {"logits": z.tolist(), "all_scores": (p / p.sum()).tolist()}
                layers.append(row)
            tokens.append({"request": request, "phase": "decode" if decode else "prefill", "layers": layers})
    return tokens


def as_summary(counts: Counts) -> dict[str, Any]:
    """Write the naive counts as the project's summary does."""
    pair = dict(zip(("msb", "lsb"), counts.requests, strict=True))
    return {
        "requests": pair,
        "hits": dict(zip(("msb", "lsb"), counts.hits, strict=True)),
        "misses": dict(zip(("msb", "lsb"), counts.misses, strict=True)),
        "denied": {"degraded": counts.degraded, "substituted": counts.substituted, "dropped": counts.dropped},
        "bytes": {"flash_read": counts.flash_bytes, "topup": counts.topup_bytes},
    }


def of_summary(part: dict[str, Any]) -> dict[str, Any]:
    chosen = {name: part[name] for name in ("requests", "hits", "misses", "denied")}
    return {**chosen, "bytes": {name: part["bytes"][name] for name in ("flash_read", "topup")}}


def assert_equal(simulated: Simulation, naive: Replay) -> None:
    """Every count of both phases, the bytes after each decode batch, and the slices that stay at the end."""
    decision = Decision(simulated.request())
    decode = [demand.resident_bytes for demand in decision.run() if isinstance(demand, DecodeDemand)]
    assert [count for part in decode for count in part.reshape(-1).tolist()] == naive.bytes_after_batch
    entries = np.flatnonzero(decision.state.resident & (decision.state.size_bytes > 0)).tolist()
    experts = naive.setup.experts
    assert {(entry // 2 // experts, entry // 2 % experts, entry % 2) for entry in entries} == naive.resident
    result = simulated.run()
    for phase, mass in zip(("prefill", "decode"), naive.dropped_mass, strict=True):
        rows = result.tokens[result.tokens["phase"] == phase]
        if not naive.setup.strength:  # which moves gates between slots
            assert rows["dropped_mass"].sum() == pytest.approx(mass, abs=1e-9)
        parts = rows[["high_mass", "low_mass", "substituted_mass", "dropped_mass"]].to_numpy().sum(axis=1)
        np.testing.assert_allclose(parts, rows["total_mass"], rtol=1e-12)
    assert of_summary(result.prefill) == as_summary(naive.prefill)
    assert of_summary(result.decode) == as_summary(naive.decode)


# ---------------------------------------------------------------------- random traces


@st.composite
def traces(draw: st.DrawFn, logits: bool) -> MemoryTrace:
    """Requests of unequal length; ties abound, slots stand in any order, scores may equal the threshold."""
    top_k = draw(st.integers(2, 4))
    shapes = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), min_size=1, max_size=4))
    shapes = [(prompt, answer) for prompt, answer in shapes if prompt + answer] or [(2, 8)]
    tokens = sum(map(sum, shapes))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    grain = draw(st.sampled_from((1, 2, 8)))  # coarse logits are often equal
    drift = np.cumsum(rng.normal(0, 0.4, (tokens, LAYERS, EXPERTS)), axis=0)
    z = np.round((drift + rng.normal(0, 1, drift.shape)) * grain) / grain
    p = np.exp(z - z.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    if not logits and draw(st.booleans()):
        p = np.round(p * 32) / 32
    # The router may break ties in any way: a random order of the experts decides, and slots are shuffled.
    shuffle = rng.permuted(np.broadcast_to(np.arange(EXPERTS), p.shape), axis=2)
    ids = np.lexsort((shuffle, -p), axis=2)[:, :, :top_k]
    ids = rng.permuted(ids, axis=2)
    scores = np.take_along_axis(p, ids, axis=2)
    requests = np.repeat(np.arange(len(shapes)), [prompt + answer for prompt, answer in shapes])
    trace = make_trace(ids, scores, requests=requests, logits=z if logits else None)
    for number, (prompt, _) in enumerate(shapes):
        trace.block.phase[np.flatnonzero(requests == number)[:prompt]] = 0
    return trace


def sizes_of(objects: str) -> tuple[int, int]:
    return {"threshold": (MSB_BYTES, LSB_BYTES), "uniform-high": (EXPERT_BYTES, 0), "uniform-low": (MSB_BYTES, 0)}[
        objects
    ]


def both(trace: MemoryTrace, objects: str, capacity: int, table: str = "", **keys: Any) -> tuple[Simulation, Replay]:
    """Prepare the project's simulation and the naive replay of the same case."""
    setup = Setup(
        experts=EXPERTS,
        layers=LAYERS,
        sizes=[sizes_of(objects)] * LAYERS,
        capacity=capacity,
        slices=objects == "threshold",
        **keys,
    )
    precision = {
        "threshold": {"threshold": setup.threshold},
        "top-1": {"threshold": setup.threshold},
        "budgeted": {"most": setup.most_high, "threshold": setup.threshold},
        "hobbit": {"t1": setup.t1, "t2": setup.t2},
        "static-widths": {"table": table},
    }[setup.precision]
    routing = {"name": "stock"}
    if setup.skip is not None:
        routing = {"name": "skip", **setup.skip}
    if setup.buddy is not None:
        routing = {"name": "buddy", **setup.buddy}
    budget = {"name": "budget", "target": setup.target, "start_step": setup.start_step}
    if setup.pace is not None:
        budget |= {"name": "paced", **setup.pace}
    prior = {"name": "cache-prior", "strength": setup.strength, "top_j": setup.top_j}
    simulated = simulation(
        trace,
        policy="dbsc",
        trace__top_k=trace.header.top_k,
        cache__capacity_gb=capacity / 1e9,
        cache__scope=setup.scope,
        cache__reset=setup.reset,
        policy__precision={"name": setup.precision, **precision} if setup.slices else {"name": objects},
        policy__eviction={"name": setup.eviction},
        policy__warmup={"name": setup.warmup},
        policy__routing=routing if setup.strength is None else prior,
        policy__constraint={"name": "none"} if setup.target is None else budget,
        policy__prefill_precision=setup.prefill_precision,
    )
    return simulated, Replay(setup, plain_tokens(trace.blocks()))


@st.composite
def caches(draw: st.DrawFn, trace: MemoryTrace) -> dict[str, Any]:
    """Cache and policy parts that go with any trace; from one batch to all 16 experts."""
    objects = draw(st.sampled_from(("threshold", "threshold", "uniform-high", "uniform-low")))
    scope = draw(st.sampled_from(("global", "global", "layer")))
    least = trace.header.top_k * sum(sizes_of(objects)) * (LAYERS if scope == "layer" else 1)
    return {
        "objects": objects,
        "scope": scope,
        "capacity": draw(st.integers(least, 16 * sum(sizes_of(objects)))),
        "reset": draw(st.sampled_from(("never", "request"))),
        "warmup": draw(st.sampled_from(WARMUPS)),
        "threshold": draw(st.sampled_from((0.0, 0.0625, 0.1, 0.125, 0.25, 0.5, 1.0))),
        "prefill_precision": draw(st.sampled_from(("high", "high", "threshold"))),
    }


budgets = st.fixed_dictionaries(
    {"target": st.sampled_from((0.0, 0.02, 0.05, 0.125, 0.25, 0.5, 1.0)), "start_step": st.integers(0, 4)}
)
priors = st.fixed_dictionaries(
    {"strength": st.sampled_from((0.0, 0.1, 0.25, 0.5, 1.0)) | st.floats(0, 1), "top_j": st.integers(0, 4)}
)


@given(data=st.data(), eviction=st.sampled_from(EVICTIONS))
@settings(max_examples=250, deadline=None)
def test_every_miss_fetched(data, eviction):
    trace = data.draw(traces(logits=False))
    keys = data.draw(caches(trace))
    assert_equal(*both(trace, eviction=eviction, **keys))


@given(data=st.data(), eviction=st.sampled_from(EVICTIONS[:-1]), logits=st.booleans())
@settings(max_examples=250, deadline=None)
def test_budget_drops_and_substitutes(data, eviction, logits):
    trace = data.draw(traces(logits=logits))
    keys = data.draw(caches(trace)) | data.draw(budgets)
    assert_equal(*both(trace, eviction=eviction, **keys))


paces = st.fixed_dictionaries(
    {"share": st.sampled_from((0.0, 0.5, 0.9, 1.0)), "gain": st.sampled_from((0.01, 0.1, 1.0))}
)


@given(data=st.data(), eviction=st.sampled_from(("lru", "successor")), logits=st.booleans())
@settings(max_examples=250, deadline=None)
def test_paced(data, eviction, logits):
    trace = data.draw(traces(logits=logits))
    keys = data.draw(caches(trace)) | data.draw(budgets) | {"pace": data.draw(paces)}
    assert_equal(*both(trace, eviction=eviction, **keys))


@given(data=st.data(), eviction=st.sampled_from(EVICTIONS[:-1]), constrained=st.booleans())
@settings(max_examples=250, deadline=None)
def test_cache_prior(data, eviction, constrained):
    trace = data.draw(traces(logits=True))
    keys = data.draw(caches(trace)) | data.draw(priors) | (data.draw(budgets) if constrained else {})
    assert_equal(*both(trace, eviction=eviction, **keys))


fractions = st.sampled_from((0.0, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0)) | st.floats(0, 1)
skips = st.fixed_dictionaries(
    {"beta": fractions, "mass": st.sampled_from((0.3, 0.6, 0.8, 1.0)), "only_missing": st.booleans()}
)
buddies = st.fixed_dictionaries(
    {
        "buddies": st.integers(1, 8),
        "most": st.integers(0, 3),
        "flatness": st.sampled_from((0.0, 0.51, 0.83, 0.97)),
        "margin": st.sampled_from((0.131, 0.373, 1.0)),
        "top_j": st.integers(0, 2),
    }
)
thresholds_of_mass = st.lists(fractions, min_size=2, max_size=2).map(sorted)


@st.composite
def rules(draw: st.DrawFn, names: tuple[str, ...]) -> dict[str, Any]:
    """One precision rule of several."""
    t1, t2 = draw(thresholds_of_mass)
    cells = st.tuples(st.integers(0, LAYERS - 1), st.integers(0, EXPERTS - 1))
    own = {
        "threshold": {},
        "top-1": {},
        "budgeted": {"most_high": draw(st.integers(0, 4))},
        "hobbit": {"t1": t1, "t2": t2},
        "static-widths": {"high": draw(st.sets(cells))},
    }
    name = draw(st.sampled_from(names))
    return {"precision": name, **own[name]}


def table_of(high: set[tuple[int, int]], folder: Path) -> str:
    """Write a table of widths; the layers of the tiny model with experts are 1 and 2."""
    rows = [f"{layer + 1},{e},{8 if (layer, e) in high else 4}" for layer in range(LAYERS) for e in range(EXPERTS)]
    (folder / "widths.csv").write_text("\n".join(["layer,expert,bits", *rows]))
    return str(folder / "widths.csv")


RULES = ("top-1", "budgeted", "hobbit", "static-widths")


@given(data=st.data(), eviction=st.sampled_from(("lru", "dbsc", "belady")))
@settings(max_examples=200, deadline=None)
def test_precision_rules(data, eviction, tmp_path_factory):
    trace = data.draw(traces(logits=data.draw(st.booleans())))
    keys = data.draw(caches(trace)) | {"objects": "threshold"} | data.draw(rules(RULES))
    if eviction != "belady" and data.draw(st.booleans()):
        keys |= data.draw(budgets)
    table = table_of(keys.get("high", set()), tmp_path_factory.mktemp("widths"))
    keys["capacity"] = max(keys["capacity"], trace.header.top_k * EXPERT_BYTES * LAYERS)
    assert_equal(*both(trace, eviction=eviction, table=table, **keys))


@given(data=st.data(), eviction=st.sampled_from(("lru", "dbsc")), skips_slots=st.booleans())
@settings(max_examples=250, deadline=None)
def test_skipped_and_replaced_slots(data, eviction, skips_slots):
    """Skipping and buddies, with and without logits, with a rule that skips besides, under a budget or without."""
    trace = data.draw(traces(logits=data.draw(st.booleans())))
    keys = data.draw(caches(trace)) | data.draw(rules(("threshold", "top-1", "budgeted", "hobbit")))
    keys |= {"skip": data.draw(skips)} if skips_slots else {"buddy": data.draw(buddies)}
    if data.draw(st.booleans()):
        keys |= data.draw(budgets)
    assert_equal(*both(trace, eviction=eviction, **keys))
