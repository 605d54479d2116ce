"""The strength of Cache-Prior found offline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicesim.policies.constraint import Bisect
from tests.kit import EXPERT_BYTES, random_trace, run, simulation

TRACE = random_trace(11, 300, logits=True)
KEYS = {"cache.capacity_gb": 5 * EXPERT_BYTES / 1e9, "policy": "lru-high"}
PRIOR = {"name": "cache-prior", "top_j": 0}


def at(strength: float, start_step: int = 10) -> float:
    """The miss rate that a constant strength gives from ``start_step`` on, counted from the rows."""
    rows = run(TRACE, policy__routing={**PRIOR, "strength": strength}, **KEYS).tokens
    rows = rows[rows["decode_step"] >= start_step]
    misses, hits = (rows[[f"msb_{what}", f"lsb_{what}"]].to_numpy().sum() for what in ("misses", "hits"))
    return misses / (misses + hits)


def bisected(**parameters):
    return run(TRACE, policy__routing=PRIOR, policy__constraint={"name": "bisect", **parameters}, **KEYS)


def test_the_target_is_met_and_not_by_a_lower_strength():
    result = bisected(target=0.05, tolerance=0.02)
    report = result.decode["constraint"]
    strength = report["strength_last"]
    assert 0 < strength < 1
    assert strength * 64 == round(strength * 64)  # six halvings: 1/64 is the first within 0.02
    assert (result.tokens["strength"] == strength).all()
    assert report["strength_mean"] == pytest.approx(strength)
    assert report["rate"] == at(strength) <= 0.05
    assert report["met"] is True
    assert at(strength - 1 / 64) > 0.05
    constant = run(TRACE, policy__routing={**PRIOR, "strength": strength}, **KEYS).decode
    for key in ("hits", "misses", "latency_ps", "energy_pj", "quality", "rerouted"):
        assert result.decode[key] == constant[key]


def test_a_target_that_stock_routing_meets_leaves_it_alone():
    result = bisected(target=0.9)
    assert result.decode["constraint"]["strength_last"] == 0
    assert result.decode["rerouted"] == 0


def test_out_of_reach_is_said():
    result = bisected(target=0.0, start_step=5)
    report = result.decode["constraint"]
    assert report["strength_last"] == 1
    assert report["met"] is False
    assert report["rate"] == at(1, start_step=5) > 0
    assert any("not met" in warning and "lambda is at 1" in warning for warning in result.summary["warnings"])


@given(edge=st.floats(0.001, 0.999), tolerance=st.floats(0.001, 0.5), most=st.integers(2, 20))
def test_the_search(edge, tolerance, most):
    """A rate that falls from 1 to 0 at ``edge``: found from above, within the tolerance or after so many replays."""
    asked = []

    def rate(strength: float) -> float:
        asked.append(strength)
        return 1.0 if strength < edge else 0.0

    found = Bisect(target=0.5, tolerance=tolerance, most_replays=most).strength(rate)
    width = min(lower for lower in (found - s for s in asked) if lower > 0)
    assert found >= edge > found - width
    assert width <= tolerance or len(asked) == most
    assert len(asked) <= most


def test_its_replays_are_its_own():
    """A second run of one simulation finds the same."""
    simulated = simulation(TRACE, policy__routing=PRIOR, policy__constraint={"name": "bisect", "target": 0.05}, **KEYS)
    first, second = simulated.run().decode, simulated.run().decode
    assert first == second
