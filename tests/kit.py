"""What many tests need: tiny models, traces in memory, and scenarios around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slicesim.models import ModelGeometry, load_model
from slicesim.result import Result
from slicesim.scenario import Scenario
from slicesim.simulation import Simulation
from slicesim.trace import DECODE, PREFILL, MemoryTrace, TraceBlock, TraceHeader

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(__file__).resolve().parent / "data"
MOBILE = ROOT / "hwconfigs" / "mobile.yaml"

#: Bytes of one expert of the tiny models (64 x 32 x 3 weights) at 8/4 bits: 4 bits a weight and 24 bits a group of 32.
MSB_BYTES, LSB_BYTES = 3648, 3072
EXPERT_BYTES = MSB_BYTES + LSB_BYTES


def tiny_model(name: str = "tiny-moe") -> ModelGeometry:
    return load_model(str(DATA / f"{name}.yaml"))


def make_trace(
    ids: Any,
    scores: Any,
    *,
    prompt: int = 0,
    requests: Any = None,
    model: ModelGeometry | None = None,
    logits: Any = None,
) -> MemoryTrace:
    """A trace from [tokens][layers][top_k] lists; the first ``prompt`` tokens of each request are prefill."""
    model = model or tiny_model()
    ids, scores = np.array(ids, dtype=np.int32), np.array(scores, dtype=np.float64)
    request = np.zeros(len(ids), dtype=np.int64) if requests is None else np.array(requests, dtype=np.int64)
    token = np.concatenate([np.arange((request == r).sum()) for r in dict.fromkeys(request.tolist())])
    header = TraceHeader(
        model=model.name,
        layers=list(model.moe_layers),
        experts=model.experts,
        top_k=ids.shape[2],
        score_kind="softmax",
        has_logits=logits is not None,
        source="made for the tests",
        licence="none",
        tool_version="0",
        synthetic=True,
    )
    phase = np.where(token < prompt, PREFILL, DECODE).astype(np.int8)
    given = None if logits is None else np.array(logits, dtype=np.float32)
    return MemoryTrace(header, TraceBlock(request, token.astype(np.int64), phase, ids, scores, given))


def random_trace(
    seed: int,
    tokens: int,
    *,
    requests: int = 1,
    prompt: int = 0,
    logits: bool = False,
    model: ModelGeometry | None = None,
) -> MemoryTrace:
    """Random routing with some locality: softmax of slowly moving logits; ``tokens`` of each request."""
    model = model or tiny_model()
    rng = np.random.default_rng(seed)
    layers, experts = len(model.moe_layers), model.experts
    drift = np.cumsum(rng.normal(0, 0.4, (requests * tokens, layers, experts)), axis=0)
    z = (np.round((drift + rng.normal(0, 1, drift.shape)) * 8) / 8).astype(np.float32)
    p = np.exp(z.astype(np.float64) - z.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    ids = np.argsort(-z, axis=2, kind="stable")[:, :, : model.top_k]
    scores = np.take_along_axis(p, ids, axis=2)
    request = np.repeat(np.arange(requests), tokens)
    return make_trace(ids, scores, prompt=prompt, requests=request, model=model, logits=z if logits else None)


def scenario(model: str = "tiny-moe", policy: str = "dbsc", **assignments: Any) -> Scenario:
    """The paper's phone around a tiny model; keys are written with __ for dots."""
    keys = {"cache.capacity_gb": 6 * EXPERT_BYTES / 1e9, **{k.replace("__", "."): v for k, v in assignments.items()}}
    return Scenario.load(MOBILE, model=str(DATA / f"{model}.yaml"), policy=policy, assignments=keys)


def simulation(trace: MemoryTrace, model: str = "tiny-moe", policy: str = "dbsc", **assignments: Any) -> Simulation:
    return Simulation.prepare(scenario(model, policy, **assignments), trace)


def run(trace: MemoryTrace, model: str = "tiny-moe", policy: str = "dbsc", **assignments: Any) -> Result:
    return simulation(trace, model, policy, **assignments).run()
