"""What a fit sees of recorded routing: the chosen experts, their log scores, and where requests begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from slicesim.errors import UserError
from slicesim.trace.statistics import SegmentRouting, Stretch, used_experts
from slicesim.trace.table import ABSENT, Trace, TraceHeader, count_in_order, require_faultless

#: Whole requests are taken until there are as many tokens; more would only cost time.
MOST_TOKENS = 20_000
FEWEST_TOKENS = 256
LAGS_TOKENS = (1, 2, 4, 8, 16, 32, 64)

#: Scores are stored with few digits: below this they say nothing.
_LEAST_SCORE = 1e-5

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Recording:
    """Recorded tokens, requests one after another.

    ids: int32 [tokens, layers, top_k]; scores: float64, same shape, highest first; latents: float32 [tokens, layers,
    experts], the log score where ``known``; lengths: tokens of each request; headers: of the traces that it is from.
    """

    headers: tuple[TraceHeader, ...]
    digests: tuple[str, ...]
    names: tuple[str, ...]
    ids: NDArray[np.int32]
    scores: Array
    latents: Single
    known: Bools
    lengths: tuple[int, ...]

    @property
    def header(self) -> TraceHeader:
        """Of the first trace; the others have the same geometry."""
        return self.headers[0]

    def requests(self, numbers: Sequence[int]) -> Recording:
        """Return some of the requests, in the given order."""
        ends = np.cumsum(self.lengths)
        tokens = np.concatenate([np.arange(ends[n] - self.lengths[n], ends[n]) for n in numbers])
        parts = (self.ids[tokens], self.scores[tokens], self.latents[tokens], self.known[tokens])
        return Recording(self.headers, self.digests, self.names, *parts, tuple(self.lengths[n] for n in numbers))


def read_recording(traces: Sequence[Trace]) -> Recording:
    """Read traces of one model; raises UserError where they do not go together or hold too little to fit.

    Tokens that lack a layer are left out. Of large traces, requests are taken evenly up to 20,000 tokens.
    """
    first = traces[0].header
    ids, scores, logits = [], [], []
    lengths: list[int] = []
    for trace in traces:
        _check_alike(traces[0], trace)
        keep = _evenly(trace.request_lengths(), MOST_TOKENS // len(traces))
        requests = []
        for block in trace.blocks():
            require_faultless(trace.header, block, trace.name)
            whole = (block.ids != ABSENT).all(axis=(1, 2)) & np.isin(block.request, keep)
            ids.append(block.ids[whole])
            scores.append(block.scores[whole])
            if block.logits is not None:
                logits.append(block.logits[whole])
            requests.append(block.request[whole])
        lengths += count_in_order(np.concatenate(requests)).values()
    if sum(lengths) < FEWEST_TOKENS:
        raise UserError(f"{traces[0].name}: {sum(lengths)} whole tokens are too few to fit (at least {FEWEST_TOKENS})")
    all_ids, all_scores = np.concatenate(ids), np.concatenate(scores)
    order = np.argsort(-all_scores, axis=2, kind="stable")
    all_ids, all_scores = (np.take_along_axis(part, order, axis=2) for part in (all_ids, all_scores))
    if logits:
        latents = _log_softmax(np.concatenate(logits))
        known = np.ones(latents.shape, np.bool_)
        if first.score_kind == "logits":
            all_scores = np.exp(np.take_along_axis(latents, all_ids, axis=2)).astype(np.float64)
    else:
        latents, known = known_latents(first, all_ids, all_scores)
    return Recording(
        headers=tuple(trace.header for trace in traces),
        digests=tuple(trace.digest for trace in traces),
        names=tuple(trace.name for trace in traces),
        ids=all_ids,
        scores=all_scores,
        latents=latents,
        known=known,
        lengths=tuple(lengths),
    )


def known_latents(header: TraceHeader, ids: NDArray[np.int32], scores: Array) -> tuple[Single, Bools]:
    """Return log scores [tokens, layers, experts] and where they are known: of the recorded top-k.

    Scores that are only relative (renormalised, or logits) are moved so that the last of the top-k stands where it
    stands on average among as many normal values.
    """
    values = scores if header.score_kind == "logits" else log_of(scores)
    if header.score_kind != "softmax":
        threshold = NormalDist(-np.log(header.experts), 1).inv_cdf(1 - header.top_k / (header.experts + 1))
        values = values - values.min(axis=2, keepdims=True) + threshold
    latents = np.zeros((*ids.shape[:2], header.experts), np.float32)
    known = np.zeros(latents.shape, np.bool_)
    np.put_along_axis(latents, ids, values.astype(np.float32), axis=2)
    np.put_along_axis(known, ids, True, axis=2)
    return latents, known


def log_of(scores: Array) -> Array:
    """Return the logarithm of recorded scores, held where they say nothing."""
    return np.asarray(np.log(np.maximum(scores, _LEAST_SCORE)))


def reuse(ids: NDArray[np.int32], lengths: Sequence[int], experts: int) -> tuple[Array, Array]:
    """Return P(an expert of token t is used at t + lag) [lags, layers], NaN where no request is as long, and how often
    each expert is used [layers, experts]."""
    used, _ = used_experts(ids, experts)
    request = np.repeat(np.arange(len(lengths)), lengths)
    rates = np.full((len(LAGS_TOKENS), ids.shape[1]), np.nan)
    for row, lag in enumerate(LAGS_TOKENS):
        same = request[lag:] == request[:-lag]
        if same.any():
            both = (used[lag:] & used[:-lag]).sum(axis=2)
            rates[row] = both[same].mean(axis=0) / ids.shape[2]
    return rates, used.mean(axis=0)


def segment_routing(ids: NDArray[np.int32], lengths: Sequence[int], experts: int) -> float:
    """Return SRP(16), the mean over layers (``statistics.SegmentRouting``)."""
    used, present = used_experts(ids, experts)
    routing, start = SegmentRouting(ids.shape[1]), 0
    for length in lengths:
        part = slice(start, start + length)
        nothing = np.empty((length, 0))
        routing.add(Stretch(nothing, ids[part], nothing, used[part], present[part], 0))  # type: ignore[arg-type]
        start += length
    return float(np.nanmean(routing.by_layer()))


def _check_alike(one: Trace, other: Trace) -> None:
    for key in ("model", "layers", "experts", "top_k", "score_kind", "has_logits"):
        mine, its = getattr(one.header, key), getattr(other.header, key)
        if mine != its:
            raise UserError(f"{other.name}: {key} is {its}, but {one.name} has {mine}: fit them apart")


def _evenly(lengths: dict[int, int], most: int) -> list[int]:
    """Choose whole requests, evenly over the trace, of at most so many tokens (one request at least)."""
    total = sum(lengths.values())
    step = max(1, -(-total // most))
    return list(lengths)[:: min(step, len(lengths))]


def _log_softmax(logits: NDArray[np.float32]) -> Single:
    shifted = logits - logits.max(axis=2, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True)), np.float32)
