"""Scored eviction strategies by hand, their hooks, and the laws that every registered one keeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import DecodeDemand
from slicesim.decide.decide import Decision
from slicesim.errors import UserError
from slicesim.policies import Eviction
from slicesim.policies.base import Strategy
from tests.kit import EXPERT_BYTES, make_trace, random_trace, run, simulation

NAMES = sorted(Strategy.registry["eviction"])


def decision_of(trace: Any, eviction: Any, **keys: Any) -> Decision:
    """Whole experts, no warm-up, unless told otherwise."""
    own = eviction if isinstance(eviction, dict) else {"name": eviction}
    keys = {"policy__precision": {"name": "uniform-high"}, "policy__warmup": {"name": "none"}, **keys}
    return Decision(simulation(trace, policy="dbsc", policy__eviction=own, **keys).request())


def evictions(stream: str, eviction: Any, experts: int, scores: Any = None, **keys: Any) -> list[str]:
    """Serve one token for each letter, an expert of layer 0; name who left with each.

    Layer 1 always asks for its last expert, for which there is room beside ``experts`` others.
    """
    ids = [[[ord(letter) - ord("a")], [7]] for letter in stream]
    gates = [[[score], [score]] for score in (scores or [0.5] * len(stream))]
    before: set[str] = set()
    left = []
    for count in range(1, len(stream) + 1):
        own = keys | ({"requests": keys["requests"][:count]} if keys else {})
        trace = make_trace(ids[:count], gates[:count], **own)
        decision = decision_of(trace, eviction, cache__capacity_gb=(experts + 1) * EXPERT_BYTES / 1e9, trace__top_k=1)
        list(decision)
        after = {chr(ord("a") + expert) for expert in np.flatnonzero(decision.state.resident[:16:2]).tolist()}
        left.append("".join(sorted(before - after)))
        before = after
    return left


def test_aged_counts_by_hand():
    """Room for two; two look-ups a token, one in each layer.

    a a a a b b c: a was looked up 4 times, b twice and later. With a half-life of 4 look-ups (2 tokens) at token 7:
    a = 2^(-6/2) + 2^(-5/2) + 2^(-4/2) + 2^(-3/2) = 0.906, b = 2^(-2/2) + 2^(-1/2) = 1.207: a leaves. With a long one
    the counts decide, and b leaves.
    """
    assert evictions("aaaabbc", {"name": "lfu-aged", "half_life": 4.0}, 2)[-1] == "a"
    assert evictions("aaaabbc", {"name": "lfu-aged", "half_life": 1e6}, 2)[-1] == "b"


def test_dynamic_ageing_by_hand():
    """a a a b c d e f g, room for two. L is read before the request in hand makes room.

    a 3. b 0 + 1 leaves for c: L = 1. c 0 + 1 leaves for d: L = 1. d 1 + 1 leaves for e: L = 2. e 1 + 1 leaves for f:
    L = 2. f 2 + 1, as much as a, which was used longer ago and leaves for g. Plain LFU keeps a for ever.
    """
    assert evictions("aaabcdefg", "lfuda", 2)[3:] == ["", "b", "c", "d", "e", "a"]
    assert evictions("aaabcdefg", "lfu-forget", 2)[3:] == ["", "b", "c", "d", "e", "f"]


def test_density_by_hand():
    """Of slices with one look-up each the larger one leaves: an MSB (3,648 bytes) before an LSB (3,072 bytes).

    Expert 0 is looked up with every token at high precision, experts 1, 2 and 3 once each at low precision.
    """
    gates = [[[0.5, 0.05], [0.5, 0.05]], [[0.5, 0.05], [0.5, 0.05]], [[0.5, 0.05], [0.5, 0.05]]]
    ids = [[[0, 1], [0, 1]], [[0, 2], [0, 2]], [[0, 3], [0, 3]]]
    decision = decision_of(
        make_trace(ids, gates),
        "gdsf",
        policy__precision={"name": "threshold", "threshold": 0.1},
        cache__capacity_gb=(2 * EXPERT_BYTES + 3 * 3648) / 1e9,
    )
    list(decision)
    assert decision.state.resident[:3].tolist() == [True, True, False]


def test_gate_mass_by_hand():
    """a twice at 0.2 = 0.4, b once at 0.5: a leaves for c, though it was used more often."""
    assert evictions("aabc", "gate-mass", 2, scores=[0.2, 0.2, 0.5, 0.5])[-1] == "a"


def test_uses_at_high_precision_by_hand():
    """a three times at 0.05, b once at 0.5: a never mattered and leaves for c. A new request starts at 0 for all.

    In the second request a (0.5) has one use that mattered and b none: b leaves for d.
    """
    assert evictions("aaabc", "lhu", 2, scores=[0.05, 0.05, 0.05, 0.5, 0.5])[-1] == "a"
    assert evictions("bbaac", "lhu", 2, scores=[0.5, 0.5, 0.5, 0.5, 0.5], requests=[0, 0, 1, 1, 1])[-1] == "b"


def test_layers_by_hand():
    """Room for 3; token 1 asks layer 0 for a, layer 1 for A; token 2 for b and B: B's layer (1) makes room.

    Seen from layer 1, layer 0 comes next (distance 1 of 2) and layer 1 itself is at distance 0. fld: the farthest one
    goes, and of a and b (layer 0) the less recent: a. least-stale: stale are a and A, not used by token 2; layer 1 has
    just had its turn, so A goes. LRU: a.
    """
    trace = make_trace([[[0], [0]], [[1], [1]]], [[[0.5], [0.5]]] * 2)
    left = {}
    for name in ("fld", "least-stale", "lru"):
        decision = decision_of(trace, name, cache__capacity_gb=3 * EXPERT_BYTES / 1e9, trace__top_k=1)
        list(decision)
        resident = np.flatnonzero(decision.state.resident[::2]).tolist()
        left[name] = [entry for entry in (0, 1, 8, 9) if entry not in resident]
    assert left == {"fld": [0], "least-stale": [8], "lru": [0]}


def test_slices_of_the_token_in_hand_are_not_stale():
    """Room for 3: a A, then b B (A leaves, see above), then c in layer 0 of token 3: resident a, b, B.

    All three are stale for token 3. Layer 0 is in hand, so layers passed since: layer 0: 0, layer 1: 1. a goes, the
    less recent one of layer 0. At C (layer 1), c was used by token 3; b and B are stale; B's layer is in hand: B goes.
    """
    trace = make_trace([[[0], [0]], [[1], [1]], [[2], [2]]], [[[0.5], [0.5]]] * 3)
    decision = decision_of(trace, "least-stale", cache__capacity_gb=3 * EXPERT_BYTES / 1e9, trace__top_k=1)
    list(decision)
    assert np.flatnonzero(decision.state.resident[::2]).tolist() == [1, 2, 10]


def test_weighted_sum_by_hand():
    """Token 5 of the request, layer 0 in hand. R / T, F / T, H / T of a: 3/5, 3/5, 0; of b: 4/5, 1/5, 1/5.

    a a a b c with scores 0.05 (a), 0.5 (b). lru alone: a (3 < 4) goes; lfu alone: b (1 < 3); lhu alone: a (0 < 1);
    lfu 1 and lhu 3: a = 3 < b = 1 + 3: a goes; lfu 3, lhu 1: b = 3 + 1 < a = 9: b goes.
    """
    scores = [0.05, 0.05, 0.05, 0.5, 0.5]

    def left(**weights: float) -> str:
        own = {"name": "hobbit", "lru": 0.0, "lfu": 0.0, "lhu": 0.0, "fld": 0.0, **weights}
        return evictions("aaabc", own, 2, scores=scores)[-1]

    assert left(lru=1.0) == "a"
    assert left(lfu=1.0) == "b"
    assert left(lhu=1.0) == "a"
    assert left(lfu=1.0, lhu=3.0) == "a"
    assert left(lfu=3.0, lhu=1.0) == "b"


def test_weighted_sum_weighs_the_layer():
    """The case of ``test_layers_by_hand``: B makes room at token 2, T = 2. With lru 1 and fld w:

    a: 1/2 + w x 1/2, A: 1/2 + w, b: 2/2 + w x 1/2. a goes for any w; with lru 0, a and b are equal, and a is older.
    """
    trace = make_trace([[[0], [0]], [[1], [1]]], [[[0.5], [0.5]]] * 2)
    for lru in (1.0, 0.0):
        own = {"name": "hobbit", "lru": lru, "lfu": 0.0, "lhu": 0.0, "fld": 1.0}
        decision = decision_of(trace, own, cache__capacity_gb=3 * EXPERT_BYTES / 1e9, trace__top_k=1)
        list(decision)
        assert np.flatnonzero(decision.state.resident[::2]).tolist() == [1, 8, 9]


@pytest.mark.parametrize(("own", "plain"), [("layer-lru", "lru"), ("layer-lfu", "lfu-keep")])
def test_partitioned(own, plain):
    """The same as one cache per layer; a capacity below one batch in each share is refused."""
    trace = random_trace(5, 40, requests=2, prompt=4)
    misses = [
        run(trace, policy="lru-high", policy__eviction={"name": name}, cache__scope=scope).decode["misses"]
        for name, scope in ((own, "global"), (plain, "layer"))
    ]
    assert misses[0] == misses[1]
    with pytest.raises(UserError, match="in 2 equal shares"):
        run(trace, policy="lru-high", policy__eviction={"name": own}, cache__capacity_gb=3 * EXPERT_BYTES / 1e9)


@pytest.mark.parametrize("keys", [{}, {"policy__warmup": {"name": "empty"}}, {"cache__reset": "request"}])
def test_all_resident(keys):
    """No miss and no byte from flash, however small the cache and the DRAM."""
    small = {"cache__capacity_gb": 1e-9, "device__dram__capacity_gb": 1e-6}
    result = run(random_trace(1, 20, requests=2, prompt=5), policy="all-in-dram", **keys, **small)
    for part in (result.prefill, result.decode):
        assert part["misses"] == {"msb": 0, "lsb": 0}
        assert part["bytes"]["flash_read"] == 0
    assert any("ignores cache.capacity_gb and the size of DRAM" in warning for warning in result.summary["warnings"])


class Forgetful(Eviction):
    """A user's own: gate scores, each look-up counts for less than the one before."""

    def key(self, entry: Any, now: int) -> float:
        return float(entry.memory)

    def remember(self, entry: Any, fetched: bool, now: int, gate: float) -> None:
        entry.memory = entry.memory / 2 + gate


def test_memory_of_a_users_strategy():
    """The memory takes in all look-ups of a slice, prompts included (as one look-up with their sum)."""
    trace = random_trace(2, 20, requests=2, prompt=4)
    request = simulation(trace, policy="lru-high", policy__warmup={"name": "none"}).request()
    policy = request.policy.__class__(**{**vars(request.policy), "eviction": Forgetful()})
    decision = Decision(request.__class__(**{**vars(request), "policy": policy}))
    expected = np.zeros(32)
    for demand in decision:
        if isinstance(demand, DecodeDemand):
            rows = zip(demand.expert.reshape(-1, 2, 2), demand.gate.reshape(-1, 2, 2), strict=True)
            looked_up = [
                (layer, expert, gate)
                for ids, gates in rows
                for layer in (0, 1)
                for expert, gate in zip(ids[layer], gates[layer], strict=True)
            ]
        else:
            looked_up = list(zip(demand.layer, demand.expert, demand.gate_mass, strict=True))
        for layer, expert, gate in looked_up:
            expected[2 * (8 * layer + expert)] = expected[2 * (8 * layer + expert)] / 2 + gate
    np.testing.assert_array_equal(decision.state.memory, expected)


class NotCompiled(Forgetful):
    def remember(self, entry: Any, fetched: bool, now: int, gate: float) -> None:
        entry.memory = float({"a": gate}["a"]) + 0 * len(str(self))


def test_a_memory_that_numba_does_not_take_is_one_line():
    request = simulation(random_trace(2, 4), policy="lru-high").request()
    policy = request.policy.__class__(**{**vars(request.policy), "eviction": NotCompiled()})
    with pytest.raises(UserError, match="NotCompiled: numba does not take"):
        list(Decision(request.__class__(**{**vars(request), "policy": policy})))


@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 100),
    experts=st.integers(4, 12),
    scope=st.sampled_from(("global", "layer")),
    prompt=st.integers(0, 5),
    warmup=st.sampled_from(("none", "pcw", "empty")),
)
@settings(max_examples=150, deadline=None)
def test_laws(name, seed, experts, scope, prompt, warmup):
    """Bytes fit, look-ups = hits + misses (of stock routing: all requests), no LSB without its MSB."""
    trace = random_trace(seed, 24, requests=2, prompt=prompt)
    simulated = simulation(
        trace,
        policy="dbsc",
        cache__capacity_gb=experts * EXPERT_BYTES / 1e9,
        cache__scope=scope,
        policy__eviction={"name": name},
        policy__warmup={"name": warmup},
    )
    decision = Decision(simulated.request())
    for demand in decision:
        state = decision.state
        resident = state.resident.reshape(-1, 2)
        assert (state.used_bytes <= state.caches["capacity_bytes"]).all()
        assert int(state.used_bytes.sum()) == int(state.size_bytes[state.resident].sum())
        assert not (resident[:, 1] & ~resident[:, 0]).any()
        if isinstance(demand, DecodeDemand):
            assert (((demand.outcome & 1) != 0) ^ ((demand.outcome & 2) != 0)).all()
            wanted = (demand.outcome & 4) != 0
            assert ((((demand.outcome & 8) != 0) ^ ((demand.outcome & 16) != 0)) == wanted).all()
            assert math.isclose(demand.resident_bytes[-1, -1], state.used_bytes.sum())
