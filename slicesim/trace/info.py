"""What ``slicesim trace info`` tells of a trace: provenance and statistics of its routing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.trace.statistics import (
    CACHED_SHARES,
    CRITICAL_THRESHOLD,
    LAGS_TOKENS,
    WINDOWS_TOKENS,
    LruHits,
    Popularity,
    Reuse,
    Scores,
    SegmentRouting,
    WorkingSets,
    stretches,
)
from slicesim.trace.table import DECODE, Trace


def trace_info(trace: Trace) -> dict[str, Any]:
    """Return provenance and statistics of a trace, ready for JSON; one pass in bounded memory.

    Rates are fractions of 1, averaged over layers; None stands where the trace cannot tell.
    """
    header = trace.header
    layers = len(header.layers)
    reuse, working_sets = Reuse(layers, header.top_k), WorkingSets(layers)
    segments = SegmentRouting(layers)
    popularity, scores = Popularity(layers, header.experts), Scores(header.top_k)
    lru = LruHits(layers, header.experts, header.top_k)
    requests = tokens = decode_tokens = 0
    for stretch in stretches(trace):
        requests += stretch.position == 0
        tokens += len(stretch.phase)
        decode_tokens += int((stretch.phase == DECODE).sum())
        for statistic in (reuse, working_sets, segments, popularity, scores, lru):
            statistic.add(stretch)

    is_softmax = header.score_kind == "softmax"
    by_rank = scores.mean_by_rank()
    return {
        "name": trace.name,
        "sha256": trace.digest,
        "model": header.model,
        "source": header.source,
        "licence": header.licence,
        "synthetic": header.synthetic,
        "micro_model": header.micro_model,
        "tool_version": header.tool_version,
        "notes": header.notes,
        "geometry": {
            "moe_layers": layers,
            "layer_numbers": list(header.layers),
            "experts_per_layer": header.experts,
            "top_k": header.top_k,
            "expert_bytes_by_layer": header.expert_bytes,
            "layers_with_partial_prefill": list(header.partial_prefill_layers),
        },
        "score_kind": header.score_kind,
        "has_logits": header.has_logits,
        "imputed_logits": header.imputed_logits,
        "requests": requests,
        "tokens": tokens,
        "tokens_by_phase": {"prefill": tokens - decode_tokens, "decode": decode_tokens},
        "tokens_per_request_mean": tokens / requests if requests else None,
        "reuse_probability_by_lag_tokens": _labelled(LAGS_TOKENS, reuse.by_layer()),
        "reuse_probability_lag_1_by_layer": [_number(value) for value in reuse.by_layer()[0]],
        "distinct_experts_per_layer_by_window_tokens": _labelled(WINDOWS_TOKENS, working_sets.by_layer()),
        "lru_hit_rate_one_cache_per_layer_by_cached_share": _labelled(CACHED_SHARES, lru.by_layer()),
        "srp_16": _mean(segments.by_layer()),
        "popularity_max_over_mean": _mean(popularity.max_over_mean()),
        "popularity_gini": _mean(popularity.gini()),
        "score_mean_by_rank": [_number(value) for value in by_rank],
        "top_k_mass_mean": _number(by_rank.sum()) if header.score_kind != "logits" else None,
        "critical_score_threshold": CRITICAL_THRESHOLD if is_softmax else None,
        "critical_experts_per_token_and_layer": scores.critical_per_route() if is_softmax else None,
    }


def _labelled(labels: tuple[float, ...], by_layer: NDArray[np.float64]) -> dict[str, float | None]:
    """Average [labels, layers] over the layers."""
    return {f"{label:g}": _mean(row) for label, row in zip(labels, by_layer, strict=True)}


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
