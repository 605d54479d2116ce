"""Statistics of routing that add up token by token, in bounded memory.

Each is fed stretches: consecutive tokens of one request, with enough of the tokens before to look back on.
Averages over layers weigh layers equally; a layer that is absent for a token is left out there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slicesim.trace.table import ABSENT, Trace, require_faultless

LAGS_TOKENS = (1, 2, 8, 32)
WINDOWS_TOKENS = (8, 32, 128)
SEGMENT_TOKENS = 16
CACHED_SHARES = (0.10, 0.25, 0.50, 0.75)
CRITICAL_THRESHOLD = 0.1

#: Tokens looked back on: a window of 128 that ends at a new token.
_TAIL = max(*LAGS_TOKENS, *WINDOWS_TOKENS) - 1
_STRETCH_TOKENS = 512


class Stretch(NamedTuple):
    """New tokens of one request behind a tail of its earlier ones.

    phase: [new tokens]; ids, scores: [new tokens, layers, top_k]; used: bool [tail + new, layers, experts];
    present: bool [tail + new, layers]; position: tokens of the request before the new ones.
    """

    phase: NDArray[np.int8]
    ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    used: NDArray[np.bool_]
    present: NDArray[np.bool_]
    position: int

    @property
    def tail(self) -> int:
        """Number of earlier tokens at the head of ``used``."""
        return len(self.used) - len(self.ids)


def stretches(trace: Trace) -> Iterator[Stretch]:
    """Cut a trace into stretches of at most 512 new tokens, each of one request.

    Raises UserError for a faulty row.
    """
    experts = trace.header.experts
    request: int | None = None
    position = 0
    used = present = np.empty(0, np.bool_)
    for block in trace.blocks():
        require_faultless(trace.header, block, trace.name)
        cuts = np.flatnonzero(np.diff(block.request)) + 1
        for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(block)], strict=True):
            for start in range(begin, end, _STRETCH_TOKENS):
                part = block.part(start, min(start + _STRETCH_TOKENS, end))
                here = int(part.request[0])
                new_used, new_present = used_experts(part.ids, experts)
                if here == request:
                    used = np.concatenate((used[-_TAIL:], new_used))
                    present = np.concatenate((present[-_TAIL:], new_present))
                else:
                    request, position, used, present = here, 0, new_used, new_present
                yield Stretch(part.phase, part.ids, part.scores, used, present, position)
                position += len(part)


def used_experts(ids: NDArray[np.int32], experts: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which experts are used [tokens, layers, experts], and which layers are there [tokens, layers]."""
    present = ~(ids == ABSENT).all(axis=2)
    used = np.zeros((*ids.shape[:2], experts + 1), np.bool_)  # the last one takes the ids of absent rows
    np.put_along_axis(used, np.where(ids == ABSENT, experts, ids), True, axis=2)
    return used[:, :, :experts], present


class Reuse:
    """P(an expert of token t is used at token t + lag of the same request)."""

    def __init__(self, layers: int, top_k: int) -> None:
        self._top_k = top_k
        self._hits = np.zeros((len(LAGS_TOKENS), layers))
        self._pairs = np.zeros((len(LAGS_TOKENS), layers))

    def add(self, stretch: Stretch) -> None:
        """Count the pairs that end in a new token."""
        used, present = stretch.used, stretch.present
        for index, lag in enumerate(LAGS_TOKENS):
            first = max(stretch.tail, lag)
            if first < len(used):
                now, then = slice(first, None), slice(first - lag, len(used) - lag)
                self._hits[index] += (used[now] & used[then]).sum(axis=(0, 2))
                self._pairs[index] += (present[now] & present[then]).sum(axis=0)

    def by_layer(self) -> NDArray[np.float64]:
        """Return [lags, layers], NaN where no request is long enough."""
        return _ratio(self._hits, self._pairs * self._top_k)


class WorkingSets:
    """Distinct experts per layer in consecutive windows, counted from each request's first token."""

    def __init__(self, layers: int) -> None:
        self._distinct = np.zeros((len(WINDOWS_TOKENS), layers))
        self._windows = np.zeros((len(WINDOWS_TOKENS), layers))

    def add(self, stretch: Stretch) -> None:
        """Count the windows that end in a new token; one that a request's end cuts short is left out."""
        before, shift = stretch.position, stretch.position - stretch.tail
        after = before + len(stretch.ids)
        for index, window in enumerate(WINDOWS_TOKENS):
            for end in range((before // window + 1) * window, after + 1, window):
                tokens = slice(end - window - shift, end - shift)
                whole = stretch.present[tokens].all(axis=0)
                self._distinct[index] += stretch.used[tokens].any(axis=0).sum(axis=1) * whole
                self._windows[index] += whole

    def by_layer(self) -> NDArray[np.float64]:
        """Return [windows, layers], NaN where no request is long enough."""
        return _ratio(self._distinct, self._windows)


class SegmentRouting:
    """SRP(16): best F1 of a router that must use one fixed set of experts over 16 tokens (arXiv 2505.16056)."""

    def __init__(self, layers: int) -> None:
        self._sums = np.zeros(layers)
        self._segments = np.zeros(layers)

    def add(self, stretch: Stretch) -> None:
        """Count the whole segments that end in a new token, as for working sets."""
        before, shift = stretch.position, stretch.position - stretch.tail
        for end in range(
            (before // SEGMENT_TOKENS + 1) * SEGMENT_TOKENS, before + len(stretch.ids) + 1, SEGMENT_TOKENS
        ):
            tokens = slice(end - SEGMENT_TOKENS - shift, end - shift)
            uses = -np.sort(-stretch.used[tokens].sum(axis=0), axis=1)
            sizes = np.arange(1, uses.shape[1] + 1)
            top_k = stretch.ids.shape[2]
            whole = stretch.present[tokens].all(axis=0)
            best = (2 * uses.cumsum(axis=1) / (SEGMENT_TOKENS * (sizes + top_k))).max(axis=1)
            self._sums += best * whole
            self._segments += whole

    def by_layer(self) -> NDArray[np.float64]:
        """Return [layers], NaN where no request is long enough."""
        return _ratio(self._sums, self._segments)


class Popularity:
    """How unevenly a layer's experts are used."""

    def __init__(self, layers: int, experts: int) -> None:
        self._counts = np.zeros((layers, experts), np.int64)

    def add(self, stretch: Stretch) -> None:
        """Count the uses of each expert."""
        self._counts += stretch.used[stretch.tail :].sum(axis=0)

    def max_over_mean(self) -> NDArray[np.float64]:
        """Return the most used expert's share over the mean share, [layers]."""
        return _ratio(self._counts.max(axis=1), self._counts.mean(axis=1))

    def gini(self) -> NDArray[np.float64]:
        """Return the Gini coefficient of the counts, [layers]: 0 all alike, near 1 one for all."""
        experts = self._counts.shape[1]
        weights = 2 * np.arange(1, experts + 1) - experts - 1
        return _ratio(np.sort(self._counts, axis=1) @ weights, experts * self._counts.sum(axis=1))


class Scores:
    """Gate scores by rank, and how many are critical."""

    def __init__(self, top_k: int) -> None:
        self._sums = np.zeros(top_k)
        self._critical = 0
        self._routes = 0

    def add(self, stretch: Stretch) -> None:
        """Add the scores of the new tokens."""
        scores = stretch.scores[stretch.present[stretch.tail :]]
        self._sums += np.sort(scores, axis=1)[:, ::-1].sum(axis=0)
        self._critical += int((scores >= CRITICAL_THRESHOLD).sum())
        self._routes += len(scores)

    def mean_by_rank(self) -> NDArray[np.float64]:
        """Return the mean score of each rank, highest first, [top_k]."""
        return self._sums / max(self._routes, 1)

    def critical_per_route(self) -> float:
        """Return the mean number of experts per token and layer with a score of at least 0.1."""
        return self._critical / max(self._routes, 1)


class LruHits:
    """Hit rate of one LRU cache per layer, from cold; all experts of a token are looked up at once."""

    def __init__(self, layers: int, experts: int, top_k: int) -> None:
        # A cache holds one token's experts at least.
        self._sizes = np.array([max(top_k, int(share * experts)) for share in CACHED_SHARES])
        # Stamp of the last use; experts never used lie below all others and are never hit.
        self._last = np.full((layers, experts), -1, np.int64)
        self._hits = np.zeros((len(CACHED_SHARES), layers))
        self._lookups = np.zeros(layers)
        self._clock = 0

    def add(self, stretch: Stretch) -> None:
        """Replay the new tokens."""
        rows = np.arange(len(self._last))[:, None]
        for ids in stretch.ids:
            present = ids != ABSENT
            last = self._last[rows, ids]
            younger = (self._last[:, None, :] > last[:, :, None]).sum(axis=2)  # LRU stack distance
            found = present & (last >= 0)
            self._hits += (found & (younger < self._sizes[:, None, None])).sum(axis=2)
            self._lookups += present.sum(axis=1)
            stamps = self._clock + np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
            self._last[rows, ids] = np.where(present, stamps, last)
            self._clock += ids.shape[1]

    def by_layer(self) -> NDArray[np.float64]:
        """Return [cached shares, layers]."""
        return _ratio(self._hits, self._lookups)


def _ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """Divide, with NaN where there is nothing to divide by."""
    top, bottom = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    quotient: NDArray[np.float64] = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return quotient
