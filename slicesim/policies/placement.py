"""Placement: which device holds which expert, and where a token is when its experts are called (expert parallelism)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from slicesim.policies.base import Strategy
from slicesim.policies.slices import FloatArray, IntArray

#: Experts of tokens, [tokens, layers, top_k]; below 0 where there is none.
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Placed(ABC):
    """Experts on devices. device: int64 [layers, experts]; devices: how many there are."""

    device: IntArray
    devices: int

    @abstractmethod
    def homes(self, ids: Ids, before: Ids, first: int) -> IntArray:
        """Return the device that each token is on in each layer, int64 [tokens, layers].

        before: [0 or 1, layers, top_k], the token ahead of these; first: tokens so far. What a token chooses in a
        layer must not be looked at for its home there.
        """


class Placement(Strategy):
    """Base of all placement strategies. shares: it spreads experts over several devices, and needs an interconnect."""

    kind: ClassVar[str] = "placement"
    shares: ClassVar[bool] = True

    @property
    def learns_from(self) -> int:
        """Tokens of the trace that ``place`` is given."""
        return 0

    def place(self, ids: Ids, experts: int, devices: int) -> Placed:
        """Put the experts of every layer on devices; ids: the first tokens of the trace."""
        raise NotImplementedError(f"{type(self).__name__} must define place")


class OneDevice(Placement):
    """Everything is on one device; others, where there are any, stand idle.

    Source: standard. Simplified: nothing.
    Checked by: tests/schedule/test_parallel.py (no byte is exchanged).
    """

    name: ClassVar[str] = "none"
    shares: ClassVar[bool] = False

    def place(self, ids: Ids, experts: int, devices: int) -> Placed:
        """Put all experts on device 0."""
        return _RoundRobin(np.zeros((ids.shape[1], experts), dtype=np.int64), 1)


class RoundRobin(Placement):
    """Experts and tokens go to the devices in turn.

    Expert e of each layer is on device e mod N, token t on device t mod N in all layers.
    Source: standard expert parallelism. Simplified: see docs/model.md, "Several devices".
    Checked by: tests/schedule/test_parallel.py, by hand.
    """

    name: ClassVar[str] = "round-robin"

    def place(self, ids: Ids, experts: int, devices: int) -> Placed:
        """Take turns."""
        return _RoundRobin(np.tile(np.arange(experts) % devices, (ids.shape[1], 1)), devices)


class _RoundRobin(Placed):
    def homes(self, ids: Ids, before: Ids, first: int) -> IntArray:
        """Take turns."""
        turn = (first + np.arange(len(ids), dtype=np.int64)) % self.devices
        return np.repeat(turn[:, None], ids.shape[1], axis=1)


class Speculative(Placement):
    """Experts that go together are grouped on one device, and a token is sent ahead to where its experts will be.

    Expert grouping, offline: W(l, a, b) counts the calibration tokens that use experts a and b of layer l, F(l, a, d)
    the pairs of a with the same token's experts of layer l - 1 on device d. Every device gets as many experts of a
    layer as the others (they differ by 1 at most), and two experts change places as long as the sum of W over pairs on
    one device, and of F, grows. Token shuffling: T(l, a, d) counts how often tokens with expert a in layer l - 1 (in
    layer 0: a token before with a in layer 0) have experts of layer l on device d; the home is the device with the
    largest sum of T over the experts that are known, ties the lowest.
    Source: Speculative MoE (arXiv 2503.04398), s-EG and s-TS. Simplified: local search in place of its
    cross-entropy solver of the co-clustering problem; counts over experts in place of its tables over token ids, which
    a routing trace does not hold; no fused reduce-scatter and all-gather of tensor-parallel attention; one token at a
    time in decode, where the paper has large batches on GPUs.
    Checked by: tests/policies/test_placement.py (all ways to place four experts; no exchange gains; equal numbers).
    """

    name: ClassVar[str] = "speculative"

    calibration_tokens: int = Field(2048, ge=1, description="first tokens of the trace that it learns from")

    @property
    def learns_from(self) -> int:
        """Tokens of the trace that it learns from."""
        return self.calibration_tokens

    def place(self, ids: Ids, experts: int, devices: int) -> Placed:
        """Group the experts layer by layer, then count what follows what."""
        layers = ids.shape[1]
        device = np.zeros((layers, experts), dtype=np.int64)
        follows = np.zeros((layers, experts, devices), dtype=np.int64)
        uses = _uses(ids, experts)  # [layers, tokens, experts]
        for layer in range(layers):
            own = uses[layer]
            ahead = np.zeros((experts, devices))
            if layer:
                ahead = own.T @ (uses[layer - 1] @ _one_hot(device[layer - 1], devices))
            device[layer] = grouped((own.T @ own).astype(np.int64), ahead.astype(np.int64), devices)
            there = own @ _one_hot(device[layer], devices)  # [tokens, devices]
            follows[layer] = uses[layer - 1].T @ there if layer else own[:-1].T @ there[1:]
        return _Speculative(device, devices, follows)


@dataclass(frozen=True)
class _Speculative(Placed):
    """follows: int64 [layers, experts of what is known, devices]."""

    follows: IntArray

    def homes(self, ids: Ids, before: Ids, first: int) -> IntArray:
        """Go by the layer before, or by the token before."""
        tokens, layers, top_k = ids.shape
        known = np.full((tokens, layers, top_k), -1, dtype=np.int64)
        known[:, 1:] = ids[:, :-1]
        known[1:, 0] = ids[:-1, 0]
        if len(before) and tokens:
            known[0, 0] = before[-1, 0]
        there: Any = np.asarray(known >= 0)
        score = (self.follows[np.arange(layers)[None, :, None], known] * there[..., None]).sum(axis=2)
        unknown = ~there.any(axis=2)
        score = np.where(unknown[..., None], self.follows.sum(axis=1)[None], score)
        return np.asarray(score.argmax(axis=2), dtype=np.int64)


def grouped(together: IntArray, ahead: IntArray, devices: int) -> IntArray:
    """Share experts out in equal numbers, int64 [experts]; together: [experts, experts], ahead: [experts, devices].

    First each in turn, the most used first, to where it fits best; then the best exchange of two, while one gains.
    """
    experts = len(together)
    pair = together.astype(np.int64)
    used = np.diag(pair).copy()
    np.fill_diagonal(pair, 0)
    room = np.bincount(np.arange(experts) % devices, minlength=devices)
    fit = ahead.astype(np.int64).copy()  # of each expert on each device, with those that are there
    place = np.full(experts, -1, dtype=np.int64)
    for expert in np.argsort(-used, kind="stable").tolist():
        best = int(np.where(room > 0, fit[expert], -1).argmax())
        place[expert] = best
        room[best] -= 1
        fit[:, best] += pair[:, expert]
    rows = np.arange(experts)
    while True:
        moved = fit[:, place] - fit[rows, place][:, None]  # expert (row) to the place of another one (column)
        gain = moved + moved.T - 2 * pair
        gain[place[:, None] == place[None, :]] = 0
        one, other = divmod(int(gain.argmax()), experts)
        if gain[one, other] <= 0:
            return place
        fit[:, place[one]] += pair[:, other] - pair[:, one]
        fit[:, place[other]] += pair[:, one] - pair[:, other]
        place[one], place[other] = place[other], place[one]


def _uses(ids: Ids, experts: int) -> FloatArray:
    """Mark which experts each token uses, [layers, tokens, experts]; floats, since their products are much faster."""
    tokens, layers, _ = ids.shape
    uses = np.zeros((layers, tokens, experts + 1))
    at: Any = (np.arange(layers)[None, :, None], np.arange(tokens)[:, None, None], ids)
    uses[at] = 1  # an absent one falls into the last column
    return uses[:, :, :experts]


def _one_hot(device: IntArray, devices: int) -> FloatArray:
    return np.equal(device[:, None], np.arange(devices)).astype(np.float64)
