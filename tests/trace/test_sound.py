"""The quick look at a block agrees with the slow search for faults."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.trace.sound import is_sound
from slicesim.trace.table import first_fault
from tests.kit import random_trace

SPOILS = [None, ("ids", -1), ("ids", 8), ("ids", "twice"), ("scores", np.nan), ("scores", np.inf), ("scores", -0.1)]


@given(seed=st.integers(0, 99), spoil=st.sampled_from(SPOILS), kind=st.sampled_from(("softmax", "logits")))
@settings(max_examples=60, deadline=None)
def test_agrees(seed, spoil, kind):
    trace = random_trace(seed, 6)
    header, block = trace.header.model_copy(update={"score_kind": kind}), trace.block
    rng = np.random.default_rng(seed)
    if spoil is not None:
        column, value = spoil
        token, layer = int(rng.integers(6)), int(rng.integers(2))
        if value == "twice":
            block.ids[token, layer, 1] = block.ids[token, layer, 0]
        else:
            getattr(block, column)[token, layer, int(rng.integers(header.top_k))] = value
    sound = is_sound(block.ids, block.scores, header.experts, kind == "logits")
    assert sound == (first_fault(header, block) is None)
