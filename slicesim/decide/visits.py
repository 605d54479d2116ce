"""Which devices a token's experts are on, and from where it visits them. Knows no clock and no bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from slicesim.decide.demand import DROPPED, DecodeDemand, Demand
from slicesim.policies.placement import Ids, Placed, Placement
from slicesim.policies.slices import IntArray
from slicesim.trace.split import segments
from slicesim.trace.table import ABSENT, PREFILL, Trace


class Visits(NamedTuple):
    """By step and MoE layer, int64 [steps, layers], in tokens sent one way.

    devices: visited ones, home included; remote: without it; busiest: over the link that carries the most.
    """

    devices: IntArray
    remote: IntArray
    busiest: IntArray


class Visitor:
    """Goes through the demand tables of a run in their order.

    Raises UserError for faulty rows of the trace, as ``decide`` does.
    """

    def __init__(
        self, placement: Placement, devices: int, trace: Trace, split: str | float, max_tokens: int | None
    ) -> None:
        header = trace.header
        layers = len(header.layers)
        self._prompts = _prompts(trace, split, max_tokens)
        self._before: Ids = np.full((0, layers, header.top_k), ABSENT, dtype=np.int32)
        self._tokens = 0
        learnt = _first_tokens(trace, split, max_tokens, placement.learns_from)
        self.placed: Placed = placement.place(learnt, header.experts, devices)

    def __call__(self, demand: Demand) -> Visits:
        """Return the visits of one demand table: a step for each decode token, or one for the whole prompt."""
        if isinstance(demand, DecodeDemand):
            ids = np.where(demand.outcome & DROPPED != 0, ABSENT, demand.expert).astype(np.int32)
            there, home = self._visit(ids)
            remote = _away(there, home).sum(axis=2)
            return Visits(there.sum(axis=2), remote, remote)
        there, home = self._visit(next(self._prompts))
        away = _away(there, home)
        sources = np.arange(self.placed.devices)[:, None, None, None]
        sent = (away * (home[:, :, None] == sources)).sum(axis=1)  # [from, layers, to]
        busiest = np.maximum(sent.sum(axis=2).max(axis=0), sent.sum(axis=0).max(axis=1))
        return Visits(there.sum(axis=(0, 2))[None], sent.sum(axis=(0, 2))[None], busiest[None])

    def _visit(self, ids: Ids) -> tuple[IntArray, IntArray]:
        """Return which devices each token needs, [tokens, layers, devices], and its homes, [tokens, layers]."""
        tokens, layers, _ = ids.shape
        there = np.zeros((tokens, layers, self.placed.devices + 1), dtype=np.int64)
        device = np.where(ids >= 0, self.placed.device[np.arange(layers)[None, :, None], ids], -1)
        there[np.arange(tokens)[:, None, None], np.arange(layers)[None, :, None], device] = 1
        home = self.placed.homes(ids, self._before, self._tokens)
        self._before, self._tokens = ids[-1:], self._tokens + tokens
        return there[:, :, :-1], home


def _away(there: IntArray, home: IntArray) -> IntArray:
    return np.where(np.arange(there.shape[2]) != home[:, :, None], there, 0)


def _prompts(trace: Trace, split: str | float, max_tokens: int | None) -> Iterator[Ids]:
    """Yield the experts of each prompt, in the order of the prefill demand tables."""
    parts: list[Ids] = []
    for segment in segments(trace, split, max_tokens):
        if parts and (segment.starts_request or segment.phase != PREFILL):
            yield np.concatenate(parts)
            parts = []
        if segment.phase == PREFILL:
            parts.append(segment.block.ids)
    if parts:
        yield np.concatenate(parts)


def _first_tokens(trace: Trace, split: str | float, max_tokens: int | None, tokens: int) -> Ids:
    parts = [np.zeros((0, len(trace.header.layers), trace.header.top_k), dtype=np.int32)]
    for segment in segments(trace, split, max_tokens) if tokens else ():
        parts.append(segment.block.ids[:tokens])
        tokens -= len(parts[-1])
        if not tokens:
            break
    return np.concatenate(parts)
