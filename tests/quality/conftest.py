"""A tiny live model, texts for it, and the geometry that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

GEOMETRY = """
name: tiny live
source: made for the tests
layers: 3
dense_layers: {dense}
dense_inner: {inner}
hidden: 32
experts: {experts}
top_k: {top_k}
expert_inner: 24
attention: {{kind: gqa, heads: 4, kv_heads: 2, head_dim: 8, source: made for the tests}}
vocabulary: 97
gate: softmax
"""

#: Bytes of an expert of the tiny models at 8/4 bits: 3 x 32 x 24 weights, 24 bits for a group of 32.
EXPERT_BYTES = 2304 + 72 * 3


def make_subject(family: str, folder: Path, **config: Any) -> Any:
    """Save and load a tiny model; ``config`` adds entries to its config.json."""
    import torch

    from slicesim.live.load import load_live
    from slicesim.quality.study import Subject
    from tests.live import tiny

    torch.set_num_threads(1)
    path = str(tiny.save(family, folder / family, **config))
    return Subject(path, load_live(path))


def geometry(subject: Any, folder: Path) -> str:
    """Write the model file that fits a tiny model."""
    block = subject.live.blocks[0]
    path = folder / "geometry.yaml"
    dense = block.layer
    path.write_text(GEOMETRY.format(dense=dense, inner=48 if dense else 0, experts=block.experts, top_k=block.top_k))
    return str(path)


def make_texts(*shapes: tuple[int, int]) -> list[Any]:
    """Texts of random words, as (tokens, of them prompt)."""
    from slicesim.quality.loop import Text

    rng = np.random.default_rng(0)
    return [
        Text(f"text {number}", rng.integers(3, 97, tokens), prompt) for number, (tokens, prompt) in enumerate(shapes)
    ]


@pytest.fixture(scope="session")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two MoE layers, 8 experts, top-3."""
    return make_subject("deepseek-v2", tmp_path_factory.mktemp("live"))
