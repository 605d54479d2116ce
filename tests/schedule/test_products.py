"""The matrix products of every operation hold exactly the MACs that the operation counts."""

from __future__ import annotations

import numpy as np
import pytest

from slicesim.decide import SliceSizes
from slicesim.models import load_model
from slicesim.models.geometry import shipped_models
from slicesim.schedule import Shapes
from slicesim.schedule.products import products


def macs(kind, model):
    return sum(product.macs for product in products(model, kind.role, kind.pairs, kind.tokens))


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_products_hold_the_macs_of_the_operation(name):
    model = load_model(name)
    layers = list(model.moe_layers)
    sizes = np.full(len(layers), 1000, dtype=np.int64)
    shapes = Shapes(model, SliceSizes(sizes, sizes, 4, 4), layers)
    for layer in shapes.layers():
        for context in (1, 7, 900):
            kind = shapes.attention(layer, context, 1)
            assert macs(kind, model) == kind.macs_int8
        feed_forward = shapes.feed_forward(layer, 3)
        assert feed_forward is None or macs(feed_forward, model) == feed_forward.macs_int8
    expert = shapes.expert(0, 5, 2, has_lsb=True)
    assert macs(expert, model) == expert.macs_msb + expert.macs_full
    assert macs(shapes.head(), model) == shapes.head().macs_int8


def test_a_prompt_attends_to_its_mean_reach():
    """Five tokens have 1 + 2 + 3 + 4 + 5 = 15 pairs: 3 each."""
    model = load_model("qwen1.5-moe-a2.7b")
    kind = Shapes(model, SliceSizes(np.ones(24, np.int64), np.ones(24, np.int64), 4, 4), list(range(24))).attention(
        0, 5, 5
    )
    assert kind.pairs == 15
    assert macs(kind, model) == kind.macs_int8


def test_attention_of_both_kinds():
    """MLA: 16 heads read one vector of 512 + 64; GQA: 32 heads in 4 groups."""
    mla, gqa = load_model("deepseek-v2-lite").attention, load_model("qwen3-30b-a3b").attention
    assert mla.score_products(10) == ((1, 16, 10, 576), (1, 16, 512, 10))
    assert gqa.score_products(10) == ((4, 8, 10, 128), (4, 8, 128, 10))
