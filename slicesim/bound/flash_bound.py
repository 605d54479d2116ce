"""The bound of a run: takes the demand tables as they pass, and keeps the intervals between look-ups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slicesim.bound.prices import Reuses, least_read_bytes
from slicesim.compiled import jit
from slicesim.decide import DecodeDemand, Demand, PrefillDemand, Request
from slicesim.decide.demand import LSB_AHEAD, LSB_FETCHED, LSB_HIT, MSB_AHEAD, MSB_FETCHED, MSB_HIT, has
from slicesim.policies import LSB, MSB

#: Intervals kept at once, ten bytes each: longer runs are bounded part by part, and the parts add up.
_MOST_REUSES = 1 << 22

_COLD = -1


class FlashBound:
    """Bytes that any cache must read from flash while decoding, for the look-ups that a policy made.

    Proof and definition: docs/bound.md. What prompts ask for, and what the policy topped up after them, may stay in the
    cache at no cost. The capacity is that of all caches together where each layer has one; the bound is weaker there.
    Where a cache was seen to hold more than its capacity (all experts resident, or one batch too large), no bound is
    known, and it is 0. capacities: in bytes, of the caches that are asked about [default: the request's own].
    """

    def __init__(self, request: Request, capacities: Sequence[int] = ()) -> None:
        header, sizes = request.trace.header, request.sizes
        self._experts, self._layers = header.experts, len(header.layers)
        self._capacities = list(capacities) or [request.capacity_bytes]
        self._size_bytes = np.stack((sizes.msb_bytes, sizes.lsb_bytes), axis=1).reshape(-1)
        self._reset_each_request = request.reset_each_request
        self._request: int | None = None
        self._last = np.full(self._layers * self._experts * 2, _COLD, dtype=np.int32)
        self._batch = 1  # batch 0 is the beginning
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16]]] = []
        self._kept = 0
        self._bytes = [0] * len(self._capacities)
        self._most_bytes = request.capacity_bytes
        self._overfilled = False

    def add(self, demand: Demand) -> None:
        """Enter the next demand table."""
        is_decode = isinstance(demand, DecodeDemand)
        self._overfilled |= bool(np.max(demand.resident_bytes, initial=0) > self._most_bytes)
        request = int(demand.request[0]) if isinstance(demand, DecodeDemand) else demand.request
        if request != self._request and self._reset_each_request:
            self._last[:] = _COLD
        self._request = request
        if isinstance(demand, DecodeDemand):
            self._add_tokens(demand)
        else:
            self._add_prompt(demand)
        if is_decode and self._kept >= _MOST_REUSES:
            self._close()

    def decode_bytes(self) -> list[int]:
        """Return the bound for all that was entered, at each capacity."""
        if self._overfilled:
            return [0] * len(self._bytes)
        self._close()
        return self._bytes

    def _add_prompt(self, demand: PrefillDemand) -> None:
        """A prompt's own reads cost nothing here; one batch for each layer, and one for the hand-over."""
        expert = 2 * (demand.layer * self._experts + demand.expert)
        for kind, bits in ((MSB, MSB_HIT | MSB_FETCHED), (LSB, LSB_HIT | LSB_FETCHED)):
            asked = has(demand.outcome, bits)
            self._last[expert[asked] + kind] = self._batch + demand.layer[asked]
        topup = 2 * (demand.topup_layer * self._experts + demand.topup_expert) + demand.topup_is_lsb
        self._last[topup] = self._batch + self._layers
        self._batch += self._layers + 1

    def _add_tokens(self, demand: DecodeDemand) -> None:
        most = 2 * demand.outcome.size
        begin, end = np.empty((2, most), dtype=np.int32)
        kind = np.empty(most, dtype=np.int16)
        cold = np.zeros(len(self._size_bytes), dtype=np.int64)
        count = _enter(demand.expert, demand.outcome, self._experts, self._batch, self._last, begin, end, kind, cold)
        self._parts.append((begin[:count].copy(), end[:count].copy(), kind[:count].copy()))
        self._kept += count
        self._raise([int(cold @ self._size_bytes)] * len(self._bytes))
        self._batch += demand.outcome.shape[0] * self._layers

    def _raise(self, more: Sequence[int]) -> None:
        self._bytes = [own + part for own, part in zip(self._bytes, more, strict=True)]

    def _close(self) -> None:
        """Bound what is kept, and begin anew with what the last batch may have left."""
        if self._kept:
            begin, end, kind = (np.concatenate(column) for column in zip(*self._parts, strict=True))
            reuses = Reuses(begin, end, kind, self._size_bytes, self._batch)
            self._raise([least_read_bytes(reuses, capacity) for capacity in self._capacities])
        self._parts, self._kept = [], 0
        self._last[self._last != _COLD] = 0
        self._batch = 1


@jit
def _enter(expert, outcome, experts, first, last, begin, end, kind, cold):
    """Enter the look-ups of decode tokens; return how many intervals they end. cold: how many have none, by kind.

    expert, outcome: [tokens, layers, top_k]; first: number of the first batch; last: of each slice's look-up before.
    """
    count = 0
    hit, at_once = (MSB_HIT, LSB_HIT), (MSB_HIT | MSB_AHEAD, LSB_HIT | LSB_AHEAD)
    for token in range(outcome.shape[0]):
        for layer in range(outcome.shape[1]):
            batch = first + token * outcome.shape[1] + layer
            for slot in range(outcome.shape[2]):
                what = outcome[token, layer, slot]
                entry = 2 * (layer * experts + expert[token, layer, slot])
                for own in range(2):
                    if what & ((MSB_HIT | MSB_FETCHED) if own == MSB else (LSB_HIT | LSB_FETCHED)):
                        before = last[entry + own]
                        if before == _COLD and what & at_once[own] == hit[own]:
                            before = 0  # there from the beginning
                        if before == _COLD:
                            cold[2 * layer + own] += 1
                        elif before < batch:
                            begin[count], end[count], kind[count] = before, batch, 2 * layer + own
                            count += 1
                        last[entry + own] = batch
    return count
