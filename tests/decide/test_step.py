"""Batch by batch, the decisions are those on the trace of the same routing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import DecodeDemand, decide
from slicesim.decide.step import Stepper
from slicesim.errors import UserError
from slicesim.policies import load_preset, presets
from slicesim.simulation import Simulation
from slicesim.trace import PREFILL, MemoryTrace
from tests.kit import make_trace, random_trace, simulation
from tests.parity.test_decisions import EVICTIONS, budgets, caches, priors, sizes_of, traces

#: Presets that a running model cannot have, and which part of them asks for the future.
KNOW_THE_FUTURE = {
    "belady": "eviction belady",
    "belady-slices": "eviction belady",
    "static": "eviction static",
    "static-widths": "precision static-widths",
    "read-ahead-oracle": "prefetch oracle",
    "cache-prior-bisect": "constraint bisect",
    "edgemoe": "precision static-widths",
    **dict.fromkeys(("adapmoe", "buddymoe", "hobbit", "pre-gated-moe"), "prefetch next-logits"),
}
LINKED = {"expert-parallel", "speculative-moe"}  # need several devices, which decide does not know of
ONLINE = sorted(set(presets()) - set(KNOW_THE_FUTURE) - LINKED)


def step_through(simulated: Simulation) -> tuple[list, list]:
    """Drive a Stepper as a model would: prompts whole, then token by token and layer by layer."""
    request = simulated.request()
    stepper, block = Stepper(request), simulated.trace.block
    prompts, tokens = [], []
    place = 0
    for number, length in simulated.trace.request_lengths().items():
        stepper.begin_request()
        own = block.part(place, place + length)
        prompt = int((own.phase == PREFILL).sum())
        if prompt:
            prompts.append(stepper.prompt(number, own.ids[:prompt], own.scores[:prompt]))
        for token in range(prompt, length):
            demand = stepper.begin_token(number, int(own.token[token]), token + 1)
            for layer in range(stepper.layers):
                logits = None if own.logits is None else own.logits[token, layer]
                batch = stepper.step(own.ids[token, layer], own.scores[token, layer], logits)
                assert batch.expert.tolist() == demand.expert[0, layer].tolist()
            tokens.append(demand)
        place += length
    return prompts, tokens


def assert_same(simulated: Simulation) -> None:
    """Every column of every table."""
    prompts, tokens = step_through(simulated)
    expected_prompts, expected_tokens = [], []
    for demand in decide(simulated.request()):
        (expected_tokens if isinstance(demand, DecodeDemand) else expected_prompts).append(demand)
    assert len(prompts) == len(expected_prompts)
    for own, expected in zip(prompts, expected_prompts, strict=True):
        for name in own._fields:
            np.testing.assert_array_equal(getattr(own, name), getattr(expected, name), err_msg=name)
    for name in DecodeDemand._fields:
        own, expected = (
            np.concatenate([getattr(part, name) for part in parts]) if parts else None
            for parts in (tokens, expected_tokens)
        )
        np.testing.assert_array_equal(own, expected, err_msg=name)


@pytest.mark.parametrize(
    ("preset", "logits"),
    [
        (name, logits)
        for name in ONLINE
        for logits in (False, True)
        if logits or load_preset(name).routing.name in ("stock", "skip", "buddy")
    ],
)
def test_all_presets(preset, logits):
    trace = random_trace(3, tokens=60, requests=3, prompt=20, logits=logits)
    assert_same(simulation(trace, policy=preset))
    assert_same(simulation(trace, policy=preset, cache__scope="layer", cache__reset="request"))


@given(data=st.data(), eviction=st.sampled_from(EVICTIONS[:-1]), constrained=st.booleans())
@settings(max_examples=60, deadline=None)
def test_random_cases_without_rerouting(data, eviction, constrained):
    trace = data.draw(traces(logits=data.draw(st.booleans())))
    constraint = {"name": "budget", **data.draw(budgets)} if constrained else {"name": "none"}
    assert_same(case(trace, data.draw(caches(trace)), eviction, {"name": "stock"}, constraint))


@given(data=st.data(), eviction=st.sampled_from(EVICTIONS[:-1]), constraint=st.sampled_from(("none", "bias", "budget")))
@settings(max_examples=60, deadline=None)
def test_random_cases_of_cache_prior(data, eviction, constraint):
    trace = data.draw(traces(logits=True))
    target = {} if constraint == "none" else data.draw(budgets)
    routing = {"name": "cache-prior", **data.draw(priors)}
    assert_same(case(trace, data.draw(caches(trace)), eviction, routing, {"name": constraint, **target}))


def case(trace: MemoryTrace, cache: dict, eviction: str, routing: dict, constraint: dict) -> Simulation:
    precision = {"name": cache["objects"]}
    if sizes_of(cache["objects"])[1]:
        precision["threshold"] = cache["threshold"]
    return simulation(
        trace,
        policy="dbsc",
        trace__top_k=trace.header.top_k,
        cache__capacity_gb=cache["capacity"] / 1e9,
        cache__scope=cache["scope"],
        cache__reset=cache["reset"],
        policy__precision=precision,
        policy__eviction={"name": eviction},
        policy__warmup={"name": cache["warmup"]},
        policy__routing=routing,
        policy__constraint=constraint,
        policy__prefill_precision=cache["prefill_precision"],
    )


@pytest.mark.parametrize("routing", [{"name": "max-rank", "max_rank": 5}, {"name": "cumsum", "mass": 0.8}])
def test_windows_of_rank(routing):
    trace = random_trace(4, tokens=50, requests=2, prompt=10, logits=True)
    assert_same(simulation(trace, policy="dbsc", policy__routing=routing))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", ["previous-token", "adaptive", "activation-matching"])
def test_prefetch(name, depth):
    trace = random_trace(5, tokens=40, requests=2, prompt=5)
    prefetch = {"name": name, "depth": depth, "budget_mb": 0.01}
    assert_same(simulation(trace, policy="dbsc", schedule__overlap="prefetch", policy__prefetch=prefetch))


@pytest.mark.parametrize(
    ("routing", "precision"),
    [
        ({"name": "skip", "beta": 0.4, "only_missing": True}, {"name": "hobbit"}),
        ({"name": "buddy", "flatness": 0.0, "top_j": 0}, {"name": "hobbit"}),
        ({"name": "cache-prior", "strength": 0.5, "top_j": 0}, {"name": "top-1"}),
        ({"name": "cache-prior", "strength": 0.5, "top_j": 0}, {"name": "budgeted", "most": 1}),
    ],
)
@pytest.mark.parametrize("constraint", [{"name": "none"}, {"name": "budget", "target": 0.1, "start_step": 3}])
def test_precision_that_ranks(routing, precision, constraint):
    trace = random_trace(8, tokens=40, requests=2, prompt=8, logits=True)
    keys = {"policy__routing": routing, "policy__precision": precision, "policy__constraint": constraint}
    assert_same(simulation(trace, policy="dbsc", policy__prefill_precision="threshold", **keys))


def test_a_table_of_widths(tmp_path: Path):
    """One layer at a time finds its own rows."""
    rows = [f"{layer},{expert},{8 if (layer + expert) % 3 else 4}" for layer in (1, 2) for expert in range(8)]
    (tmp_path / "w.csv").write_text("\n".join(["layer,expert,bits", *rows]))
    precision = {"name": "static-widths", "table": str(tmp_path / "w.csv")}
    trace = random_trace(9, tokens=40, requests=2, prompt=8)
    assert_same(simulation(trace, policy="static-widths", policy__precision=precision))


def test_whose_gate_weight_serves():
    """A buddy serves with its original's; one that the budget puts in brings its own."""
    trace = random_trace(10, tokens=120, logits=True)
    routing = {"name": "buddy", "flatness": 0.0, "buddies": 2}
    budget = {"name": "budget", "target": 0.05, "start_step": 0}
    stepper = Stepper(simulation(trace, policy="dbsc", policy__routing=routing, policy__constraint=budget).request())
    stepper.begin_request()
    own = trace.block
    by_buddy = by_budget = 0
    for token in range(120):
        stepper.begin_token(0, token, token + 1)
        for layer in range(2):
            ids, scores, logits = own.ids[token, layer], own.scores[token, layer], own.logits[token, layer]
            batch = stepper.step(ids, scores, logits)
            every = np.exp(logits.astype(np.float64) - logits.max())
            np.testing.assert_allclose((every / every.sum())[batch.weighed_as], batch.served_gate, rtol=1e-6)
            replaced = (batch.expert != ids[np.argsort(-scores, kind="stable")]) & batch.runs
            by_buddy += int((replaced & (batch.weighed_as != batch.expert)).sum())
            by_budget += int((replaced & (batch.weighed_as == batch.expert)).sum())
    assert by_buddy > 0
    assert by_budget > 0


INTERPRETED = """
import numpy as np
from slicesim.policies import Eviction

class Score(Eviction):
    def score(self, state, entries):
        return state.gate_mass[entries] / (1 + state.count[entries])

class Key(Eviction):
    def key(self, entry, now):
        return sum(int(digit) for digit in str(entry.count))  # numba knows no such sum
"""


@pytest.mark.parametrize("name", ["Score", "Key"])
def test_strategies_in_plain_python(tmp_path: Path, name):
    (tmp_path / "mine.py").write_text(INTERPRETED)
    trace = random_trace(6, tokens=40, requests=2, prompt=10)
    assert_same(simulation(trace, policy=f"{tmp_path}/mine.py:{name}"))


@pytest.mark.parametrize(("preset", "part"), sorted(KNOW_THE_FUTURE.items()))
def test_what_knows_the_future_is_refused(preset, part):
    with pytest.raises(UserError, match=rf"policy {preset}: {part} knows the future"):
        Stepper(simulation(random_trace(0, tokens=4, logits=True), policy=preset).request())


@pytest.mark.parametrize("name", ["oracle", "next-logits"])
def test_prefetch_that_looks_ahead_is_refused(name):
    simulated = simulation(
        random_trace(0, tokens=4), policy="dbsc", schedule__overlap="prefetch", policy__prefetch={"name": name}
    )
    with pytest.raises(UserError, match=f"prefetch {name} knows the future"):
        Stepper(simulated.request())


def test_a_header_is_enough():
    """Nothing of the trace's tokens is read."""
    trace = random_trace(7, tokens=5)
    none = MemoryTrace(trace.header, trace.block.part(0, 0))
    stepper = Stepper(simulation(none, policy="dbsc").request())
    stepper.begin_request()
    stepper.begin_token(0, 0, 1)
    batch = stepper.step(trace.block.ids[0, 0], trace.block.scores[0, 0], None)
    assert sorted(batch.expert.tolist()) == sorted(trace.block.ids[0, 0].tolist())


def test_slots_by_hand():
    """Two layers, top-2, threshold 0.1, room for all: 0.5 is critical and runs high, 0.05 needs its MSB alone."""
    trace = make_trace([[[3, 1], [2, 0]]], [[[0.05, 0.5], [0.2, 0.1]]])
    stepper = Stepper(simulation(trace, policy="dbsc", trace__top_k=2).request())
    stepper.begin_request()
    stepper.begin_token(0, 0, 1)
    first = stepper.step(trace.block.ids[0, 0], trace.block.scores[0, 0], None)
    second = stepper.step(trace.block.ids[0, 1], trace.block.scores[0, 1], None)
    assert (first.expert.tolist(), first.high.tolist(), first.runs.tolist()) == ([1, 3], [True, False], [True, True])
    assert (second.expert.tolist(), second.high.tolist()) == ([2, 0], [True, True])
    with pytest.raises(ValueError, match="begin a token first"):
        stepper.step(trace.block.ids[0, 0], trace.block.scores[0, 0], None)
