"""Small traces and decision requests; nothing here needs the clock."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from slicesim.decide import Request, SliceSizes
from slicesim.policies import Policy, build_policy
from slicesim.scenario import Scenario
from slicesim.trace import DECODE, PREFILL, MemoryTrace, TraceBlock, TraceHeader
from tests.conftest import REPOSITORY

LAYERS, EXPERTS = 3, 6


@cache
def policy(name: str, *assignments: tuple[str, Any]) -> Policy:
    keys = {key: dict(value) if isinstance(value, tuple) else value for key, value in assignments}
    config = REPOSITORY / "hwconfigs" / "mobile.yaml"
    return build_policy(Scenario.load(config, policy=name, assignments=keys), has_logits=False)


def make_trace(ids: Any, scores: Any, requests: Any, phase: Any, experts: int = EXPERTS) -> MemoryTrace:
    """From [tokens][layers][top_k] lists; requests and phase by token."""
    ids, requests = np.array(ids, np.int32), np.array(requests, np.int64)
    token = np.concatenate([np.arange((requests == r).sum()) for r in dict.fromkeys(requests.tolist())])
    header = TraceHeader(
        model="tiny", layers=list(range(ids.shape[1])), experts=experts, top_k=ids.shape[2], score_kind="softmax",
        synthetic=True, source="made for the tests", licence="none", tool_version="0",
    )  # fmt: skip
    block = TraceBlock(requests, token, np.array(phase, np.int8), ids, np.array(scores, np.float64))
    return MemoryTrace(header, block)


def request_of(
    trace: MemoryTrace, policy: Policy, sizes: SliceSizes, *, split: str | float = "recorded", **keys: Any
) -> Request:
    given = {"max_tokens": None, "capacity_bytes": 0, "scope_layers": False, "reset_each_request": False, "seed": 0}
    return Request(trace=trace, split=split, policy=policy, sizes=sizes, **(given | keys))


def sizes_of(msb: Any, lsb: Any, layers: int) -> SliceSizes:
    """Sizes by layer, or one for all layers."""
    return SliceSizes(
        np.broadcast_to(msb, layers).astype(np.int64), np.broadcast_to(lsb, layers).astype(np.int64), 4, 4
    )


@st.composite
def traces(draw: st.DrawFn) -> MemoryTrace:
    """Requests of unequal length, with and without prompt; scores are often equal, or equal to the threshold."""
    top_k = draw(st.integers(1, 3))
    shapes = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 15)), min_size=1, max_size=4))
    shapes = [shape for shape in shapes if sum(shape)] or [(2, 8)]
    tokens = sum(map(sum, shapes))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    drift = np.cumsum(rng.normal(0, 0.5, (tokens, LAYERS, EXPERTS)), axis=0)
    p = np.exp(drift + rng.normal(0, draw(st.sampled_from((0.1, 1.0))), drift.shape))
    p = np.round(p / p.sum(axis=2, keepdims=True) * 32) / 32
    ids = np.lexsort((rng.random(p.shape), -p), axis=2)[:, :, :top_k]
    ids = rng.permuted(ids, axis=2)
    requests = np.repeat(np.arange(len(shapes)), [sum(shape) for shape in shapes])
    phase = [code for prompt, answer in shapes for code in [PREFILL] * prompt + [DECODE] * answer]
    return make_trace(ids, np.take_along_axis(p, ids, axis=2), requests, phase)
