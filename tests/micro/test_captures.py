"""The shipped captures: of micro models, and called so."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from slicesim.models import load_model
from slicesim.report.label import leading_kind
from slicesim.trace import DECODE, load_trace
from tests.kit import ROOT
from tests.micro.files import FOLDER, each_model


@pytest.fixture
def trace(name):
    return load_trace(ROOT / "traces" / f"{name}-micro.parquet")


@each_model
def test_the_header_says_micro_model_and_where_it_comes_from(name, trace):
    header = trace.header
    assert (header.micro_model, header.synthetic) == (True, False)
    assert "micro model" in leading_kind(header.model_dump()).lower()
    assert header.model == name
    assert hashlib.sha256((FOLDER / "prompts.jsonl").read_bytes()).hexdigest() in header.source
    assert header.score_kind == "softmax"
    assert header.has_logits


@each_model
def test_the_geometry_is_the_real_models(name, trace):
    real = load_model(name)
    header = trace.header
    assert (header.layers, header.experts, header.top_k) == (list(real.moe_layers), real.experts, real.top_k)


@each_model
def test_no_expert_of_any_layer_is_dead(name, trace):
    ids = np.concatenate([block.ids for block in trace.blocks()])
    for layer in range(ids.shape[1]):
        assert set(ids[:, layer].ravel().tolist()) == set(range(trace.header.experts))


@each_model
def test_ids_and_scores_follow_from_the_logits(name, trace):
    """score = softmax over all experts of the float32 logits, best first: worked here in float64 on its own."""
    for block in trace.blocks():
        logits = block.logits.astype(np.float64)
        softmax = np.exp(logits - logits.max(-1, keepdims=True))
        softmax /= softmax.sum(-1, keepdims=True)
        np.testing.assert_allclose(np.take_along_axis(softmax, block.ids, -1), block.scores, rtol=1e-4, atol=1e-6)
        assert (np.diff(block.scores, axis=-1) <= 0).all()
        kth = np.sort(logits, axis=-1)[..., -trace.header.top_k]
        assert (np.take_along_axis(logits, block.ids, -1).min(-1) == kth).all()


@each_model
def test_decode_does_not_run_in_a_circle(name, trace):
    """A small model's greedy text may repeat itself: then one token's routing would be another's, over and over."""
    for block in trace.blocks():
        for request in np.unique(block.request):
            sets = np.sort(block.ids[(block.request == request) & (block.phase == DECODE)], axis=-1)
            if len(sets):
                assert len(np.unique(sets.reshape(len(sets), -1), axis=0)) > 0.9 * len(sets)


@each_model
def test_a_file_is_small(name):
    assert (ROOT / "traces" / f"{name}-micro.parquet").stat().st_size < 3_500_000
