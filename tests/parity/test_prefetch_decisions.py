"""What is read ahead, against predictors in plain Python that were written from their descriptions alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit import EXPERT_BYTES, LSB_BYTES, MSB_BYTES, random_trace, simulation, tiny_model
from tests.parity.naive_prefetch import ReadingAhead
from tests.parity.naive_replay import Setup
from tests.parity.test_decisions import assert_equal, plain_tokens

DEEP = tiny_model("tiny-deep")
LAYERS = len(DEEP.moe_layers)

CASES: list[dict[str, Any]] = [
    {"name": "previous-token"},
    {"name": "oracle"},
    {"name": "popularity"},
    {"name": "popularity", "decay": 0.75},
    {"name": "co-activation"},
    {"name": "path"},
    {"name": "adaptive", "window": 7, "low": 0.4, "high": 0.5},
    {"name": "activation-matching", "kept": 2, "matrix_tokens": 0},
    {"name": "activation-matching", "kept": 3, "matrix_tokens": 2},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
@given(
    seed=st.integers(0, 10**6),
    depth=st.integers(1, 4),
    budget=st.integers(3, 60),
    experts=st.integers(3, 30),
    scope=st.sampled_from(("global", "layer")),
    objects=st.sampled_from(("threshold", "threshold", "uniform-low")),
    shape=st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 12)),
)
@settings(max_examples=40, deadline=None)
def test_against_plain_predictors(case, seed, depth, budget, experts, scope, objects, shape):
    """Every count, the bytes after each batch, what is resident at the end, what was read ahead and used."""
    requests, prompt, answer = shape
    trace = random_trace(seed, prompt + answer, requests=requests, prompt=prompt, model=DEEP)
    if prompt == 0:
        trace.block.phase[:] = 1
    capacity = max(experts, 3 * (LAYERS if scope == "layer" else 1)) * EXPERT_BYTES
    slices = objects == "threshold"
    setup = Setup(
        experts=DEEP.experts,
        layers=LAYERS,
        sizes=[(MSB_BYTES, LSB_BYTES if slices else 0)] * LAYERS,
        capacity=capacity,
        slices=slices,
        eviction="dbsc",
        warmup="last-layer",
        scope=scope,
    )
    prefetch = {**case, "depth": depth, "budget_mb": budget / 1000}
    simulated = simulation(
        trace,
        "tiny-deep",
        "dbsc",
        schedule__overlap="prefetch",
        cache__capacity_gb=capacity / 1e9,
        cache__scope=scope,
        policy__precision={"name": objects},
        policy__prefetch=prefetch,
    )
    parameters = {key: value for key, value in case.items() if key != "name"}
    naive = ReadingAhead(setup, plain_tokens(trace.blocks()), case["name"], budget * 1000, depth=depth, **parameters)
    assert_equal(simulated, naive)
    assert simulated.run().decode["prefetched"] == {"slices": naive.slices_read, "used": naive.used}


def test_the_cases_read_ahead_and_are_of_use():
    """The comparison above is worth something only where something is read."""
    trace = random_trace(3, 40, model=DEEP)
    keys = {"cache__capacity_gb": 20 * EXPERT_BYTES / 1e9, "schedule__overlap": "prefetch"}
    for case in CASES:
        wishes = {**case, "budget_mb": 0.02}
        found = simulation(trace, "tiny-deep", "dbsc", policy__prefetch=wishes, **keys).run().decode["prefetched"]
        if case != CASES[7]:  # one request: no matrix is filed before it ends
            assert 0 < found["used"] < found["slices"] or case["name"] == "oracle", case
    assert np.all(trace.block.phase == 1)
