"""LRU at all cache sizes from one pass over the trace: byte-weighted stack distances.

Hits are judged against what was resident when the batch began. LRU keeps the slices looked up last, so a slice hits
in every cache that holds it and all bytes looked up after it: its depth. The histogram of depths is the curve.

Prefill streams layer by layer, and slices of layers that are not yet processed are the last to go. Where a prompt
meets a filled cache, they push out slices that were looked up later, and each size keeps another part of the order of
use. Objects of one size still form a stack, though not one in order of use (``ordered``); with slices of unequal size
a larger cache can even lose hits, and such traces are left to replays. A prompt that meets an empty cache pushes out
nothing of that sort, and misses throughout (``recency``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from slicesim.curves.curve import PHASES, Counts, as_sizes, least_bytes
from slicesim.curves.ordered import OrderedStack
from slicesim.curves.recency import COLD, NOT_REQUESTED, RecencyStack
from slicesim.decide import Request, judge
from slicesim.decide.prefill import PromptCounts
from slicesim.errors import UserError
from slicesim.policies import LSB, MSB
from slicesim.policies.constraint import NoConstraint
from slicesim.policies.eviction import Lru
from slicesim.policies.fetch import FetchAll
from slicesim.policies.precision import Asked
from slicesim.policies.prefetch import NoPrefetch
from slicesim.policies.routing import Stock
from slicesim.policies.slices import BoolArray, IntArray
from slicesim.policies.warmup import LastLayer, NoWarmup
from slicesim.trace.split import Segment, segments
from slicesim.trace.table import PREFILL, TraceBlock

#: Decode tokens whose depths are held at once.
_TOKENS_AT_ONCE = 4096

#: What each part of a policy must be; a subclass may do anything, so the class itself is asked for.
_PLAIN = {
    "eviction": (Lru,),
    "routing": (Stock,),
    "fetch": (FetchAll,),
    "constraint": (NoConstraint,),
    "prefetch": (NoPrefetch,),
    "warmup": (LastLayer, NoWarmup),
}

WARM_PROMPT = "prompts meet a filled cache, and with slices of unequal size LRU is then no stack policy"


def why_not_one_pass(request: Request) -> str | None:
    """Return why a curve needs replays, or None where one pass gives all sizes."""
    for part, kinds in _PLAIN.items():
        strategy = getattr(request.policy, part)
        if type(strategy) not in kinds:
            return f"{part} is {strategy.name or type(strategy).__name__}"
    if request.policy.precision.skips:
        return f"precision {request.policy.precision.name} skips experts"
    if request.per_layer:
        return "there is one cache per layer"
    return WARM_PROMPT if not _has_one_size(request) and _prompt_meets_filled_cache(request) else None


def lru_curve(request: Request) -> StackCurve:
    """Return the curve of an LRU policy at all cache sizes; ``request.capacity_bytes`` plays no part.

    Raises UserError where one pass does not give it (see ``why_not_one_pass``).
    """
    reason = why_not_one_pass(request)
    if reason:
        raise UserError(f"{request.policy.label}: one pass does not give this curve: {reason}")
    return _Pass(request).run()


@dataclass(frozen=True)
class Steps:
    """Look-ups of slices of one kind and size: depth: int64, rising; hits: int64, look-ups at most that deep."""

    kind: int
    size_bytes: int
    depth: IntArray
    hits: IntArray
    lookups: int

    def hits_at(self, capacities: IntArray) -> IntArray:
        """Return the hits in caches of these sizes."""
        return np.concatenate(([0], self.hits))[np.searchsorted(self.depth, capacities, side="right")]


@dataclass(frozen=True)
class StackCurve:
    """Exact at every size that holds one batch. steps: by phase; tokens: of each phase."""

    label: str
    least_bytes: int
    steps: dict[str, list[Steps]]
    tokens: dict[str, int]
    method: str = field(default="one pass", init=False)

    def at(self, capacities: ArrayLike) -> dict[str, Counts]:
        """Return the counts of ``prefill`` and ``decode`` at these cache sizes in bytes."""
        sizes = as_sizes(capacities, self.least_bytes, self.label)
        return {phase: self._phase(phase, sizes) for phase in PHASES}

    def _phase(self, phase: str, sizes: IntArray) -> Counts:
        hits, misses = np.zeros((2, len(sizes), 2), dtype=np.int64)
        flash_bytes = np.zeros(len(sizes), dtype=np.int64)
        for steps in self.steps[phase]:
            found = steps.hits_at(sizes)
            hits[:, steps.kind] += found
            misses[:, steps.kind] += steps.lookups - found
            flash_bytes += (steps.lookups - found) * steps.size_bytes
        return Counts(self.tokens[phase], hits, misses, flash_bytes)


class _Histogram:
    """Depths of one kind and size of slice, sorted and counted part by part."""

    def __init__(self) -> None:
        self.parts: list[tuple[IntArray, IntArray]] = []
        self.lookups = 0

    def add(self, depths: IntArray) -> None:
        self.lookups += len(depths)
        self.parts.append(np.unique(depths[depths != COLD], return_counts=True))
        if len(self.parts) > 64:  # a long trace: sum up, so that memory stays bounded by the distinct depths
            self.parts = [self.total()]

    def total(self) -> tuple[IntArray, IntArray]:
        depths, counts = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        unique, place = np.unique(depths, return_inverse=True)
        total = np.zeros(len(unique), dtype=np.int64)
        np.add.at(total, place, counts)
        return unique, total

    def steps(self, kind: int, size: int) -> Steps:
        depth, counts = self.total()
        return Steps(kind, size, depth, np.cumsum(counts), self.lookups)


class _Pass:
    """One pass: the stack, and the histograms that it fills."""

    def __init__(self, request: Request) -> None:
        header = request.trace.header
        self.request, self.policy = request, request.policy
        self.layers, self.experts = len(header.layers), header.experts
        by_order = _has_one_size(request) and _prompt_meets_filled_cache(request)
        geometry = (request.sizes, self.experts, header.top_k)
        self.stack: OrderedStack | RecencyStack
        self.stack = OrderedStack.empty(*geometry) if by_order else RecencyStack.empty(*geometry)
        self.histograms: dict[tuple[str, int, int], _Histogram] = defaultdict(_Histogram)
        self.tokens = dict.fromkeys(PHASES, 0)
        self.prompt: PromptCounts | None = None

    def run(self) -> StackCurve:
        for segment in _segments(self.request):
            if segment.starts_request or segment.phase != PREFILL:
                self._stream()
            if segment.starts_request and self.request.reset_each_request:
                self.stack.clear()
            if segment.phase == PREFILL:
                self.prompt = self.prompt or PromptCounts.empty(self.layers, self.experts)
                self.prompt.add(Asked(segment.block.ids, segment.block.scores), self.policy)
            else:
                for start in range(0, len(segment.block), _TOKENS_AT_ONCE):
                    self._decode(segment.block.part(start, start + _TOKENS_AT_ONCE))
        self._stream()
        steps: dict[str, list[Steps]] = {phase: [] for phase in PHASES}
        for (phase, kind, size), histogram in self.histograms.items():
            steps[phase].append(histogram.steps(kind, size))
        return StackCurve(self.policy.label, least_bytes(self.request), steps, self.tokens)

    def _decode(self, block: TraceBlock) -> None:
        self.tokens["decode"] += len(block)
        depths = np.empty((*block.ids.shape, 2), dtype=np.int64)
        critical = judge.critical(self.policy.precision, Asked(block.ids, block.scores))
        self.stack.decode(block.ids, block.scores, critical, depths)
        for kind, sizes in ((MSB, self.request.sizes.msb_bytes), (LSB, self.request.sizes.lsb_bytes)):
            for size in np.unique(sizes).tolist():
                of_size = depths[:, sizes == size, :, kind]
                self._count("decode", kind, size, of_size[of_size != NOT_REQUESTED])

    def _stream(self) -> None:
        """Take the prompt in hand, if there is one, through the stack."""
        if self.prompt is None:
            return
        prompt, self.prompt = self.prompt, None
        self.tokens["prefill"] += prompt.tokens
        wants_lsb = prompt.requests_lsb(self.policy)
        for layer in range(self.layers):
            experts = prompt.union(layer)
            entries = _in_order(2 * (layer * self.experts + experts), wants_lsb[layer, experts])
            depths, kinds = self.stack.stream(layer, entries), entries % 2
            for kind, sizes in ((MSB, self.request.sizes.msb_bytes), (LSB, self.request.sizes.lsb_bytes)):
                self._count("prefill", kind, int(sizes[layer]), depths[kinds == kind])

    def _count(self, phase: str, kind: int, size: int, depths: IntArray) -> None:
        if len(depths):
            self.histograms[phase, kind, size].add(depths)


def _in_order(msb: IntArray, wants_lsb: BoolArray) -> IntArray:
    """Return the slices that experts request, each LSB just before its MSB."""
    entries = np.stack((msb + 1, msb), axis=1)
    return entries[np.stack((wants_lsb, np.ones_like(wants_lsb)), axis=1)]


def _segments(request: Request) -> Iterator[Segment]:
    return segments(request.trace, request.split, request.max_tokens)


def _has_one_size(request: Request) -> bool:
    return request.policy.precision.objects != "slices" and len(set(request.sizes.msb_bytes.tolist())) == 1


def _prompt_meets_filled_cache(request: Request) -> bool:
    if request.reset_each_request or request.split == "all-decode":
        return False
    starts = (segment for segment in _segments(request) if segment.starts_request)
    return any(number > 0 and segment.phase == PREFILL for number, segment in enumerate(starts))
