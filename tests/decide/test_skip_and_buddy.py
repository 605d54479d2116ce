"""Routing that needs no logits: experts that are skipped, and buddies in place of missing ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import DecodeDemand
from slicesim.decide.decode import SLOT
from slicesim.decide.demand import DROPPED, MSB_FETCHED, MSB_HIT, SUBSTITUTED
from slicesim.policies.routing import Buddy, Routing, Skip
from slicesim.policies.slices import SliceState
from tests.kit import EXPERT_BYTES, MSB_BYTES, make_trace, random_trace, run, simulation

EXPERTS = 8


def amended(
    strategy: Routing, experts: list[int], gates: list[float], resident: list[int], together: dict | None = None
) -> list[int]:
    """Call the strategy as the batch loop does, interpreted; return who serves in each slot."""
    state = SliceState.empty(np.ones((1, EXPERTS, 2), dtype=np.int64), 1)
    state.resident[[2 * expert for expert in resident]] = True
    slots = np.zeros(len(experts), dtype=SLOT).view(np.recarray)
    slots.expert, slots.gate = experts, gates
    memory = np.zeros((EXPERTS, EXPERTS), dtype=np.int32)
    for (one, other), count in (together or {}).items():
        memory[one, other] = count
    strategy.amend(slots, state.slices.view(np.recarray), 0, memory)
    return slots.expert.tolist()


GATES = [0.4, 0.2, 0.1, 0.04]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"beta": 0.0}, [5, 3, 7, 1]),
        ({"beta": 0.25}, [5, 3, 7, -1]),  # 0.1 is not below 0.25 x 0.4
        ({"beta": 0.26}, [5, 3, -1, -1]),
        ({"beta": 1.0}, [5, -1, -1, -1]),
        ({"beta": 0.0, "mass": 0.9}, [5, 3, 7, -1]),  # before them: 0, 0.4, 0.6, 0.7 of 0.74
        ({"beta": 0.0, "mass": 0.6}, [5, 3, -1, -1]),
        ({"beta": 0.0, "mass": 0.01}, [5, -1, -1, -1]),
        ({"beta": 1.0, "only_missing": True}, [5, 3, -1, -1]),  # 3 is resident
    ],
)
def test_skip_by_hand(parameters, expected):
    assert amended(Skip(**parameters), [5, 3, 7, 1], GATES, resident=[3]) == expected


TOGETHER = {(1, 0): 5, (1, 2): 4, (1, 4): 4, (1, 6): 1, (7, 2): 9, (7, 6): 3}
FLAT = [0.2, 0.19, 0.18, 0.17]
FREE = {"flatness": 0.0, "buddies": 8, "most": 4, "top_j": 1}


@pytest.mark.parametrize(
    ("resident", "parameters", "expected"),
    [
        ([5, 3, 7, 1], {}, [5, 3, 7, 1]),  # nothing is missing
        ([5, 3, 7, 2, 4, 6], {}, [5, 3, 7, 2]),  # 1 is missing: 0 is not there, 2 before 4 at equal counts
        ([5, 3, 7, 4, 6], {}, [5, 3, 7, 4]),
        ([5, 3, 7, 6], {}, [5, 3, 7, 6]),
        ([5, 3, 7, 6], {"buddies": 3}, [5, 3, 7, 1]),  # 6 is the fourth of its list
        ([5, 3, 7, 2], {"buddies": 2}, [5, 3, 7, 2]),
        ([5, 3, 2, 6], {}, [5, 3, 6, 2]),  # 1 goes first and takes 2; 7 has 6 left
        ([5, 3, 2, 6], {"most": 1}, [5, 3, 7, 2]),
        ([5, 3, 2, 6], {"most": 0}, [5, 3, 7, 1]),
        ([5, 3, 2, 6], {"top_j": 3}, [5, 3, 7, 2]),
        ([5, 3, 2, 6], {"top_j": 9}, [5, 3, 7, 1]),
        ([2, 6], {"top_j": 0}, [5, 3, 6, 2]),  # 5 and 3 have no buddies yet
    ],
)
def test_buddy_by_hand(resident, parameters, expected):
    assert amended(Buddy(**FREE | parameters), [5, 3, 7, 1], FLAT, resident, TOGETHER) == expected


@pytest.mark.parametrize(
    ("gates", "parameters", "replaces"),
    [
        ([0.5, 0.5], {"flatness": 1.0 - 1e-9}, True),  # entropy ln 2
        ([0.4, 0.1], {"flatness": 0.72}, True),  # 0.8 and 0.2: 0.7219 of ln 2
        ([0.4, 0.1], {"flatness": 0.73}, False),
        ([0.4, 0.1], {"margin": 0.61}, True),  # 0.8 - 0.2
        ([0.4, 0.1], {"margin": 0.59}, False),
    ],
)
def test_only_undecided_tokens_take_buddies(gates, parameters, replaces):
    served = amended(Buddy(**FREE | parameters), [5, 1], gates, [2], TOGETHER)
    assert served == [5, 2 if replaces else 1]


def test_skipped_experts_have_no_buddies_and_are_not_counted():
    """Slot 1 stands at -1; of 5 and 1 it is counted that they were chosen together."""
    strategy = Buddy(**FREE)
    assert amended(strategy, [5, -1, 1], [0.3, 0.2, 0.1], [2], TOGETHER) == [5, -1, 2]


def test_buddies_are_learnt_from_prompt_and_decode():
    """Room for two experts a layer. The prompt chooses 0 with 1 and 1 with 2, and streams 1, 0, 2: 0 and 2 stay.

    Token 1 wants 3 and 1: 1 is missing, its buddies are 0 and 2, once each: 0 serves, with 1's gate. 3 is read, and 2
    leaves. Token 2 wants 4 and 1, which was chosen with 0, 2 and 3, once each: 0 again. 4 is read, 3 leaves. Token 3
    wants 5 and 3: of 3 only 1 is known, which is not there: it is read."""
    ids = [[[0, 1]] * 2, [[1, 2]] * 2, [[3, 1]] * 2, [[4, 1]] * 2, [[5, 3]] * 2]
    trace = make_trace(ids, [[[0.3, 0.25]] * 2] * 5, prompt=2)
    keys = {
        "policy__precision": {"name": "uniform-low"},
        "policy__eviction": {"name": "lru"},
        "cache__scope": "layer",
        "cache__capacity_gb": 4 * MSB_BYTES / 1e9,
    }
    simulated = simulation(trace, policy__routing={"name": "buddy", "flatness": 0.5}, **keys)
    _, decode = (demand for demand, _, _ in simulated.tables())
    assert isinstance(decode, DecodeDemand)
    assert decode.expert.tolist() == [[[3, 0]] * 2, [[4, 0]] * 2, [[5, 3]] * 2]
    assert decode.outcome[:, 1].tolist() == [
        [MSB_FETCHED, SUBSTITUTED | MSB_HIT],
        [MSB_FETCHED, SUBSTITUTED | MSB_HIT],
        [MSB_FETCHED, MSB_FETCHED],
    ]
    assert (decode.gate == decode.served_gate).all()
    assert decode.gate[0, 0].tolist() == [0.3, 0.25]


def test_a_skipped_expert_may_serve_for_a_missing_one():
    """beta 0.5, budget 0 from step 1. Token 0 reads 1, 2, 3.

    Token 1 wants 0 (0.4; missing, but first), 4 (0.3; missing: denied) and 1 (0.1 < 0.5 x 0.4: skipped). The
    best-scored resident expert is 1: it takes the place of 4."""
    p = np.array([[0.1, 0.3, 0.2, 0.16, 0.08, 0.06, 0.05, 0.05], [0.4, 0.1, 0.06, 0.05, 0.3, 0.04, 0.03, 0.02]])
    ids = [[[1, 2, 3]] * 2, [[0, 4, 1]] * 2]
    scores = [[[0.3, 0.2, 0.16]] * 2, [[0.4, 0.3, 0.1]] * 2]
    simulated = simulation(
        make_trace(ids, scores, logits=np.log(p)[:, None].repeat(2, axis=1)),
        trace__top_k=3,
        policy__precision={"name": "uniform-low"},
        policy__routing={"name": "skip", "beta": 0.5},
        policy__constraint={"name": "budget", "target": 0.0, "start_step": 1},
        cache__capacity_gb=16 * MSB_BYTES / 1e9,
    )
    (decode,) = (demand for demand, _, _ in simulated.tables())
    assert decode.expert[1].tolist() == [[0, 1, 1]] * 2
    assert decode.outcome[1].tolist() == [[MSB_FETCHED, SUBSTITUTED | MSB_HIT, DROPPED]] * 2


PLAIN = ("requests", "hits", "misses", "denied", "bytes", "latency_ps", "energy_pj", "quality")
seeds = st.integers(0, 10_000)
few = settings(max_examples=15, deadline=None)


@given(seed=seeds, policy=st.sampled_from(("dbsc", "lru-high")))
@few
def test_beta_0_is_stock_routing(seed, policy):
    trace = random_trace(seed, 30, prompt=5)
    stock, skipping = (
        run(trace, policy=policy, policy__routing={"name": name, **more}).decode
        for name, more in (("stock", {}), ("skip", {"beta": 0.0, "mass": 1.0}))
    )
    assert {key: stock[key] for key in PLAIN} == {key: skipping[key] for key in PLAIN}


@given(seed=seeds, most=st.integers(0, 3))
@few
def test_buddies_with_everything_resident_or_none_allowed_are_stock_routing(seed, most):
    """The prompt's four tokens stream all 8 experts of both layers, and the cache holds all 16."""
    drawn = random_trace(seed, 30, prompt=4)
    drawn.block.ids[:4] = np.arange(8).reshape(4, 1, 2)
    for capacity, allowed in ((16, most), (5, 0)):
        keys = {"cache__capacity_gb": capacity * EXPERT_BYTES / 1e9, "policy": "dbsc"}
        buddies = {"name": "buddy", "flatness": 0.0, "most": allowed, "top_j": 0}
        stock, own = run(drawn, **keys).decode, run(drawn, policy__routing=buddies, **keys).decode
        assert {key: stock[key] for key in PLAIN} == {key: own[key] for key in PLAIN}


@given(seed=seeds, only_missing=st.booleans(), beta=st.floats(0.3, 1))
@few
def test_what_is_skipped_is_counted_once(seed, only_missing, beta):
    """Requests = look-ups + denied; the first is never dropped; masses add up; dropped experts run nowhere."""
    trace = random_trace(seed, 30, prompt=5)
    simulated = simulation(trace, policy__routing={"name": "skip", "beta": beta, "only_missing": only_missing})
    dropped = 0
    for demand, plan, _ in simulated.tables():
        if isinstance(demand, DecodeDemand):
            gone = (demand.outcome & DROPPED) != 0
            assert not gone[:, :, 0].any()
            assert (demand.outcome[gone] == DROPPED).all()
            small = demand.gate < beta * demand.gate[:, :, :1]
            assert (gone <= small).all() if only_missing else (gone == small).all()
            dropped += int(gone.sum())
            assert (plan.workload.op_expert >= 0).sum() == gone.size - gone.sum()
    decode = simulated.run().decode
    assert decode["denied"] == {"degraded": 0, "substituted": 0, "dropped": dropped}
    assert decode["requests"]["msb"] == 25 * 2 * 2 == decode["hits"]["msb"] + decode["misses"]["msb"] + dropped
    quality = decode["quality"]
    assert sum(quality[f"{part}_mass"] for part in ("high", "low", "substituted", "dropped")) == pytest.approx(1)


def test_buddies_lower_the_miss_rate():
    trace = random_trace(1, 200)
    keys = {"policy": "dbsc", "cache__capacity_gb": 5 * EXPERT_BYTES / 1e9}
    stock = run(trace, **keys).decode
    served = run(trace, policy__routing={"name": "buddy", "flatness": 0.0}, **keys).decode
    assert served["miss_rate"]["msb"] < 0.9 * stock["miss_rate"]["msb"]
    assert served["quality"]["substituted_mass"] > 0
    assert served["requests"]["msb"] == 200 * 2 * 2 + served["denied"]["substituted"]
