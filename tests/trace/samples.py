"""Small traces for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from slicesim.trace import DECODE, PREFILL, MemoryTrace, TraceBlock, TraceHeader


def header(**changes: Any) -> TraceHeader:
    facts: dict[str, Any] = {
        "model": "tiny",
        "layers": [1, 2],
        "experts": 8,
        "top_k": 2,
        "score_kind": "softmax",
        "source": "made for a test",
        "licence": "none",
        "tool_version": "test",
    }
    return TraceHeader(**(facts | changes))


def random_trace(
    seed: int = 0,
    lengths: tuple[int, ...] = (5, 3),
    layers: tuple[int, ...] = (1, 2),
    experts: int = 8,
    top_k: int = 2,
    has_logits: bool = False,
) -> MemoryTrace:
    """Requests of the given lengths; the first half of each is prefill."""
    rng = np.random.default_rng(seed)
    tokens = sum(lengths)
    logits = rng.standard_normal((tokens, len(layers), experts)).astype(np.float32)
    ids = np.argsort(-logits, axis=-1, kind="stable")[..., :top_k].astype(np.int32)
    weights = np.exp(logits.astype(np.float64))
    weights /= weights.sum(axis=-1, keepdims=True)
    number = np.concatenate([np.arange(n) for n in lengths] or [np.empty(0)]).astype(np.int64)
    phase = [PREFILL if i < n // 2 else DECODE for n in lengths for i in range(n)]
    block = TraceBlock(
        request=np.repeat(np.arange(len(lengths)), lengths).astype(np.int64),
        token=number,
        phase=np.array(phase, np.int8),
        ids=ids,
        scores=np.take_along_axis(weights, ids, axis=-1),
        logits=logits if has_logits else None,
    )
    facts = header(layers=list(layers), experts=experts, top_k=top_k, has_logits=has_logits)
    return MemoryTrace(facts, block)


def joined(blocks: Any) -> TraceBlock:
    """Put blocks together again."""
    columns = zip(*blocks, strict=True)
    return TraceBlock(*(None if c[0] is None else np.concatenate(c) for c in columns))


def assert_same(one: TraceBlock, other: TraceBlock) -> None:
    for name, a, b in zip(TraceBlock._fields, one, other, strict=True):
        if a is None or b is None:
            assert a is b, name
        else:
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
