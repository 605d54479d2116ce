"""The constraint ``paced``, by hand; tests/parity/test_decisions.py holds it to a plain replay."""

from __future__ import annotations

from slicesim.decide import DecodeDemand
from slicesim.decide.decide import Decision
from slicesim.decide.demand import DROPPED, LSB_DENIED, MSB_FETCHED, has
from tests.kit import make_trace, random_trace, run, simulation

PACED = {"name": "paced", "start_step": 0, "share": 0.5, "gain": 0.2}


def test_price_by_hand():
    """One layer matters; top-2, gates 0.3 and 0.05, target 0.6, so the aim is 0.3; gain 0.2.

    Token 1: both miss; the budget (2 misses of 2) denies the second, the first-ranked is exempt: 1 miss of 1 look-up,
    price 0.2 x (1 - 0.3) = 0.14. Layer 1, the same: price 0.28.
    Token 2 wants the same first expert (hit) and a new second one of gate 0.05 < 0.28: denied though 1 + 1 misses of
    2 + 2 look-ups would keep the budget. Rate 0: price 0.28 - 0.06 = 0.22; layer 1: 0.16.
    Token 3: its second expert has a gate of 0.2 >= 0.16: read, as (2 + 1) misses of (4 + 2) keep 0.6.
    """
    ids = [[[0, 1], [0, 1]], [[0, 2], [0, 2]], [[0, 3], [0, 3]]]
    gates = [[[0.3, 0.05]] * 2, [[0.3, 0.05]] * 2, [[0.3, 0.2]] * 2]
    simulated = simulation(
        make_trace(ids, gates),
        policy="dbsc",
        trace__top_k=2,
        policy__precision={"name": "threshold", "threshold": 1.0},
        policy__constraint={**PACED, "target": 0.6},
    )
    (demand,) = [d for d in Decision(simulated.request()).run() if isinstance(d, DecodeDemand)]
    assert has(demand.outcome, DROPPED)[:, 0].tolist() == [[False, True], [False, True], [False, False]]
    assert has(demand.outcome, MSB_FETCHED)[:, 0].tolist() == [[True, False], [False, False], [False, True]]


def test_no_lsb_is_read_while_it_acts():
    """Both experts are critical; LSBs are denied though the target of 1 allows every miss."""
    trace = make_trace([[[0, 1], [0, 1]]] * 3, [[[0.5, 0.4]] * 2] * 3)
    paced = {**PACED, "target": 1.0, "start_step": 1}
    simulated = simulation(trace, policy="dbsc", trace__top_k=2, policy__constraint=paced)
    (demand,) = [d for d in Decision(simulated.request()).run() if isinstance(d, DecodeDemand)]
    denied = has(demand.outcome, LSB_DENIED)
    assert not denied.any()  # step 0 has read them: they hit
    late = make_trace([[[0, 1], [0, 1]], [[2, 3], [2, 3]]], [[[0.5, 0.4]] * 2] * 2)
    result = run(late, policy="dbsc", trace__top_k=2, policy__constraint=paced)
    assert result.decode["denied"] == {"degraded": 4, "substituted": 0, "dropped": 0}


def test_it_reads_less_than_the_budget():
    """On random routing with the same target, fewer misses, and those left carry more of the gate."""
    trace = random_trace(3, tokens=200)
    keys = {"policy": "dbsc", "cache__capacity_gb": 8e-5 * 0.3}
    budget = run(trace, **keys, policy__constraint={"name": "budget", "target": 0.3, "start_step": 0})
    paced = run(trace, **keys, policy__constraint={"name": "paced", "target": 0.3, "start_step": 0, "share": 0.5})
    assert paced.decode["bytes"]["flash_read"] < budget.decode["bytes"]["flash_read"]
    assert paced.decode["constraint"]["name"] == "paced"
    assert paced.decode["miss_rate"]["slices"] <= 0.3
