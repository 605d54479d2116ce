"""Prefill: a prompt's experts stream through DRAM layer by layer, and the warm-up policy keeps some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slicesim.decide import judge
from slicesim.decide.cache import hand_over, look_up_all, make_room, streaming_score
from slicesim.decide.demand import (
    LSB_FETCHED,
    LSB_HIT,
    LSB_REQUESTED,
    MSB_FETCHED,
    MSB_HIT,
    PrefillDemand,
)
from slicesim.decide.future import Future, advance
from slicesim.policies import LSB, MSB, Policy
from slicesim.policies.precision import Asked
from slicesim.policies.slices import LAYER, TOKEN, BoolArray, FloatArray, IntArray, SliceState
from slicesim.trace.table import ABSENT


@dataclass
class PromptCounts:
    """What a prompt asks of every expert, accumulated token by token.

    selections, critical: int64 [layers, experts]; gate_mass, critical_mass: float64, same shape; dropped_mass: gate
    scores of selections that are not run.
    """

    selections: IntArray
    critical: IntArray
    gate_mass: FloatArray
    critical_mass: FloatArray
    tokens: int = 0
    dropped_mass: float = 0.0

    @classmethod
    def empty(cls, layers: int, experts: int) -> PromptCounts:
        """Start counting."""
        shape = (layers, experts)
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape))

    def add(self, asked: Asked, policy: Policy) -> None:
        """Enter prompt tokens: what is asked for is [tokens, layers, top_k]."""
        ids, gates, critical = asked.ids, asked.gates, judge.critical(policy.precision, asked)
        layers, experts = self.selections.shape
        there = ids != ABSENT
        if policy.precision.skips and not policy.prefill_high:
            skipped = there & judge.skipped(policy.precision, asked)
            self.dropped_mass += float(gates[skipped].sum())
            there &= ~skipped
        cell = (np.arange(layers)[None, :, None] * experts + ids)[there]
        for total, weights in (
            (self.selections, np.ones(len(cell), np.int64)),
            (self.critical, critical[there].astype(np.int64)),
            (self.gate_mass, gates[there]),
            (self.critical_mass, np.where(critical, gates, 0.0)[there]),
        ):
            np.add.at(total.reshape(-1), cell, weights)
        self.tokens += len(ids)

    def requests_lsb(self, policy: Policy) -> BoolArray:
        """Return which experts stream their LSB slice too, [layers, experts]."""
        if policy.precision.objects != "slices":
            return np.zeros(self.selections.shape, dtype=np.bool_)
        return self.selections > 0 if policy.prefill_high else self.critical > 0

    def union(self, layer: int) -> IntArray:
        """Return a layer's experts by falling score sum, ties by id."""
        chosen = np.flatnonzero(self.selections[layer])
        return chosen[np.argsort(-self.gate_mass[layer, chosen], kind="stable")]

    def entries(self, layer: int, policy: Policy) -> IntArray:
        """Return the slices that a layer requests."""
        experts = self.union(layer)
        base = 2 * (self.selections.shape[1] * layer + experts)
        return np.concatenate((base, base[self.requests_lsb(policy)[layer, experts]] + 1))


def stream_prompt(
    state: SliceState, policy: Policy, prompt: PromptCounts, request: int, future: Future | None, memory: object
) -> PrefillDemand:
    """Take one whole prompt through the cache and hand over to decode. memory: rule of a strategy that remembers."""
    layers = len(prompt.selections)
    _begin(state)
    state.clock[TOKEN] += 1
    outcomes = []
    lsb_wanted = prompt.requests_lsb(policy)
    for layer in range(layers):
        _learn(state, prompt, layer)
        state.clock[LAYER] = layer
        outcomes.append(_stream_layer(state, prompt, layer, lsb_wanted[layer], memory))
        if future is not None:
            advance(future, state.slices)
        make_room(state, _NOTHING, streaming_score(state, policy.warmup, policy.eviction, layer))
    full_tokens = lsb_wanted * (prompt.selections if policy.prefill_high else prompt.critical)
    full_mass = lsb_wanted * (prompt.gate_mass if policy.prefill_high else prompt.critical_mass)
    topup = _NOTHING if policy.eviction.keeps_all else hand_over(state, policy.warmup)
    unions = [prompt.union(layer) for layer in range(layers)]
    layer_of_row = np.repeat(np.arange(layers), [len(union) for union in unions])
    expert = np.concatenate(unions)
    return PrefillDemand(
        request=request,
        prompt_tokens=prompt.tokens,
        layer=layer_of_row,
        expert=expert,
        tokens=prompt.selections[layer_of_row, expert],
        full_tokens=full_tokens[layer_of_row, expert],
        outcome=np.concatenate(outcomes).astype(np.uint16),
        gate_mass=prompt.gate_mass[layer_of_row, expert],
        full_mass=full_mass[layer_of_row, expert],
        topup_layer=state.layer[topup],
        topup_expert=topup // 2 % state.experts,
        topup_is_lsb=state.kind[topup] == LSB,
        resident_bytes=int(state.used_bytes.sum()),
        dropped_mass=prompt.dropped_mass,
    )


def _begin(state: SliceState) -> None:
    state.prompt_count[:] = 0
    state.prompt_score[:] = 0.0


def _learn(state: SliceState, prompt: PromptCounts, layer: int) -> None:
    """Tell the warm-up what the prompt asked of this layer."""
    start, stop = (2 * state.experts * number for number in (layer, layer + 1))
    state.prompt_count[start + MSB : stop : 2] = prompt.selections[layer]
    state.prompt_count[start + LSB : stop : 2] = prompt.critical[layer]
    state.prompt_score[start:stop] = np.repeat(prompt.gate_mass[layer], 2)


def _stream_layer(
    state: SliceState, prompt: PromptCounts, layer: int, lsb_wanted: BoolArray, memory: object
) -> IntArray:
    """Look up a layer's union, LSB just before MSB; return the outcome of each expert."""
    experts = prompt.union(layer)
    msb = 2 * (state.experts * layer + experts)
    wants = lsb_wanted[experts]
    outcome = np.where(state.resident[msb], MSB_HIT, MSB_FETCHED)
    outcome |= np.where(
        wants, np.where(state.resident[msb + 1], LSB_REQUESTED | LSB_HIT, LSB_REQUESTED | LSB_FETCHED), 0
    )
    entries = np.stack((msb + 1, msb), axis=1)
    wanted = np.stack((wants, np.ones_like(wants)), axis=1)
    gates = np.repeat(prompt.gate_mass[layer, experts], wanted.sum(axis=1))
    look_up_all(state.slices, state.caches, state.clock, entries[wanted], gates, memory)
    return outcome


_NOTHING: IntArray = np.zeros(0, dtype=np.int64)
