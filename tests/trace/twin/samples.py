"""A small twin, and traces that it makes."""

from __future__ import annotations

import numpy as np

from slicesim.trace import DECODE, MemoryTrace, TraceBlock, TraceHeader
from slicesim.trace.twin.model import Twin
from slicesim.trace.twin.scores import LEVELS

LAYERS, EXPERTS, TOP_K, FACTORS, KINDS = 4, 16, 3, 6, 12


def small_twin(seed: int = 1) -> Twin:
    rng = np.random.default_rng(seed)
    size = LAYERS * EXPERTS
    loadings = np.linalg.qr(rng.standard_normal((size, FACTORS)))[0]
    kinds = 4 * rng.standard_normal((KINDS, FACTORS))
    return Twin(
        mean=-2.8 + 0.3 * rng.standard_normal(size),
        shift=np.zeros(size),
        loadings=loadings,
        noise=np.full(size, 0.3),
        noise_factor=np.ones(LAYERS),
        carry=np.array([0.0, 0.2, 0.2, 0.3]),
        centre=kinds.mean(axis=0),
        kinds=kinds,
        followers=rng.integers(0, 4, (KINDS, KINDS)).astype(float),
        share=np.full(KINDS, 1 / KINDS),
        attraction=np.array(0.5),
        lasting=np.full((FACTORS, 4), 0.8),
        brief=np.full(FACTORS, 0.5),
        chance=np.full(FACTORS, 0.5),
        answered=np.full(FACTORS, 0.3),
        drift=np.zeros(FACTORS),
        slope=np.full(LAYERS, 0.9),
        corners=np.tile(np.linspace(-2, 1, len(LEVELS)), (LAYERS, 1)),
        heights=np.tile(np.linspace(-2, 0.5, len(LEVELS)), (LAYERS, 1)),
    )


def small_trace(
    tokens: int = 300, requests: int = 8, seed: int = 2, *, logits: bool = False, score_kind: str = "softmax"
) -> MemoryTrace:
    twin = small_twin()
    values = np.concatenate(
        [twin.logits(part) for part in twin.draw_latents([tokens] * requests, np.random.default_rng(seed))]
    )
    ids = np.argsort(-values, axis=2, kind="stable")[:, :, :TOP_K].astype(np.int32)
    weights = np.exp(values.astype(np.float64))
    chosen = np.take_along_axis(weights, ids, 2)
    scores = chosen / (chosen if score_kind == "renormalised" else weights).sum(axis=2, keepdims=True)
    header = TraceHeader(
        model="small",
        layers=list(range(LAYERS)),
        experts=EXPERTS,
        top_k=TOP_K,
        score_kind=score_kind,
        has_logits=logits,
        synthetic=True,
        source="tests",
        licence="none",
        tool_version="0",
    )
    block = TraceBlock(
        request=np.repeat(np.arange(requests), tokens),
        token=np.tile(np.arange(tokens), requests),
        phase=np.full(tokens * requests, DECODE, np.int8),
        ids=ids,
        scores=scores,
        logits=values if logits else None,
    )
    return MemoryTrace(header, block, "small")
