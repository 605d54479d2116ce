"""Logs of uses, ranks by layer, scan and Python choose the same victims for the same strategy."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.decide import decide
from slicesim.decide.decide import Decision
from slicesim.decide.order import Layers, Outside, Queues, Scan
from slicesim.policies import MSB, Eviction
from slicesim.policies.eviction import Dbsc
from tests.kit import EXPERT_BYTES, random_trace, simulation


class ByKind(Dbsc):
    """As shipped."""


class ByKey(Dbsc):
    """The same key; not said that it depends on the kind alone."""

    by_kind: ClassVar[bool] = False


class Volatile(Dbsc):
    """The same key, said to change by itself."""

    by_kind: ClassVar[bool] = False
    volatile: ClassVar[bool] = True


class NotCompiled(Dbsc):
    """The same key, in Python that numba does not take."""

    by_kind: ClassVar[bool] = False

    def key(self, entry: Any, now: int) -> float:
        return float({"msb": 1, "lsb": 0}["msb" if entry.kind == MSB else "lsb"]) + 0 * len(str(self))


class WithScore(Eviction):
    """The same order by numpy."""

    def score(self, state: Any, entries: Any) -> Any:
        return (state.kind[entries] == MSB,)


KINDS = [(ByKind, Queues), (ByKey, Layers), (Volatile, Scan), (NotCompiled, Outside), (WithScore, Outside)]


def outcome(strategy: type[Eviction], trace: Any, **keys: Any) -> tuple[np.ndarray, ...]:
    simulated = simulation(trace, policy="dbsc", **keys)
    request = simulated.request()
    policy = request.policy.__class__(**{**vars(request.policy), "eviction": strategy()})
    demands = list(decide(request.__class__(**{**vars(request), "policy": policy})))
    return tuple(np.concatenate([getattr(d, name).reshape(-1) for d in demands]) for name in ("outcome",))


@pytest.mark.parametrize(("strategy", "order"), KINDS)
def test_structure(strategy, order):
    request = simulation(random_trace(1, 4), policy="dbsc").request()
    policy = request.policy.__class__(**{**vars(request.policy), "eviction": strategy()})
    assert isinstance(Decision(request.__class__(**{**vars(request), "policy": policy})).order, order)


@given(
    seed=st.integers(0, 50),
    experts=st.integers(4, 12),
    scope=st.sampled_from(("global", "layer")),
    prompt=st.integers(0, 5),
    reset=st.sampled_from(("never", "request")),
    prefetch=st.sampled_from((None, {"name": "oracle", "depth": 2, "budget_mb": 0.02})),
)
@settings(max_examples=40, deadline=None)
def test_the_same_victims(seed, experts, scope, prompt, reset, prefetch):
    trace = random_trace(seed, 30, requests=2, prompt=prompt)
    keys = {"cache__capacity_gb": experts * EXPERT_BYTES / 1e9, "cache__scope": scope, "cache__reset": reset}
    if prefetch:
        keys |= {"policy__prefetch": prefetch, "schedule__overlap": "prefetch"}
    expected = outcome(ByKind, trace, **keys)
    for strategy, _ in KINDS[1:]:
        for left, right in zip(expected, outcome(strategy, trace, **keys), strict=True):
            np.testing.assert_array_equal(left, right)
