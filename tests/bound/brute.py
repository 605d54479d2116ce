"""The least bytes that any cache reads, by going through every state that it can be in after every batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from slicesim.bound import FlashBound
from slicesim.decide import DecodeDemand, PrefillDemand
from slicesim.decide.demand import LSB_FETCHED, LSB_REQUESTED, MSB_FETCHED
from tests.curves.samples import make_trace, policy, request_of, sizes_of

LAYERS, EXPERTS = 2, 2
SLICES = 2 * LAYERS * EXPERTS


class Case(NamedTuple):
    """Slices looked up by each layer: of a decode token, or of a prompt. batches: (is prompt, [per layer: entries])."""

    msb: tuple[int, int]
    lsb: tuple[int, int]
    capacity: int
    steps: tuple[tuple[bool, tuple[tuple[int, ...], ...]], ...]

    @property
    def sizes(self) -> np.ndarray:
        return np.array([(self.msb, self.lsb)[entry % 2][entry // (2 * EXPERTS)] for entry in range(SLICES)])


def random_case(seed: int) -> Case:
    """A few tokens and perhaps a prompt among them; an LSB is never asked for without its MSB."""
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(rng.integers(3, 9)):
        layers = []
        for layer in range(LAYERS):
            asked = []
            for expert in rng.permutation(EXPERTS)[: rng.integers(1, EXPERTS + 1)]:
                entry = int(2 * (layer * EXPERTS + expert))
                asked += [entry, entry + 1][: rng.integers(1, 3)]
            layers.append(tuple(asked))
        steps.append((bool(rng.random() < 0.15), tuple(layers)))
    msb, lsb = rng.integers(1, 20, (2, LAYERS)).tolist()
    capacity = int(rng.integers(max(msb) + max(lsb), 2 * (sum(msb) + sum(lsb))))
    return Case(tuple(msb), tuple(lsb), capacity, tuple(steps))


def optimum(case: Case) -> int:
    """Read for decode at least so much: over all states, with bypassing, and with reading ahead while decoding."""
    sizes, states = case.sizes, np.arange(1 << SLICES)
    holds = (states[:, None] >> np.arange(SLICES)) & 1
    allowed = holds @ sizes <= case.capacity
    missing = (states[:, None] & ~states[None, :]) & (len(states) - 1)  # what ``row`` has and ``column`` has not
    weight = holds @ sizes
    cost = np.where(states == 0, 0.0, np.inf)
    for is_prompt, layers in case.steps:
        for asked in layers:
            mask = sum(1 << entry for entry in asked)
            read = 0 if is_prompt else weight[mask & ~states]
            there = states | mask
            ahead = missing[:, there]  # [next, before]: read ahead of any request
            step = np.where(ahead == 0, 0.0, np.inf) if is_prompt else weight[ahead]
            cost = np.where(allowed, (step + (cost + read)[None, :]).min(axis=1), np.inf)
    return int(cost.min())


def bound(case: Case) -> int:
    """The same look-ups as demand tables."""
    trace = make_trace(np.zeros((1, LAYERS, EXPERTS)), np.zeros((1, LAYERS, EXPERTS)), [0], [1], experts=EXPERTS)
    sizes = sizes_of(case.msb, case.lsb, LAYERS)
    own = FlashBound(request_of(trace, policy("dbsc"), sizes, capacity_bytes=case.capacity))
    for is_prompt, layers in case.steps:
        own.add(_prompt(layers) if is_prompt else _token(layers))
    return own.decode_bytes()[0]


def _outcomes(asked: tuple[int, ...]) -> dict[int, int]:
    """By expert. Hit or fetched is all the same to the bound, but that nothing is there from the beginning."""
    found = {entry // 2 % EXPERTS: MSB_FETCHED for entry in asked if entry % 2 == 0}
    for entry in asked:
        if entry % 2:
            found[entry // 2 % EXPERTS] |= LSB_REQUESTED | LSB_FETCHED
    return found


def _token(layers: tuple[tuple[int, ...], ...]) -> DecodeDemand:
    one = np.zeros(1, dtype=np.int64)
    demand = DecodeDemand.empty(one, one, one, (1, LAYERS, EXPERTS), 0)
    demand.expert[:], demand.outcome[:], demand.resident_bytes[:] = np.arange(EXPERTS), 0, 0
    for layer, asked in enumerate(layers):
        for expert, outcome in _outcomes(asked).items():
            demand.outcome[0, layer, expert] = outcome
    return demand


def _prompt(layers: tuple[tuple[int, ...], ...]) -> PrefillDemand:
    rows = [(layer, *pair) for layer, asked in enumerate(layers) for pair in _outcomes(asked).items()]
    layer, expert, outcome = np.array(rows, dtype=np.int64).T
    nothing, none = np.zeros(len(rows)), np.zeros(0, dtype=np.int64)
    count = np.ones(len(rows), dtype=np.int64)
    no_topup = (none, none, none.astype(np.bool_))
    return PrefillDemand(
        0, 1, layer, expert, count, count, outcome.astype(np.uint16), nothing, nothing, *no_topup, resident_bytes=0
    )
