"""The memory plan of `slicesim quality` for a real model, from its geometry; and what one expert costs to fetch here.

    python experiments/quality_memory.py [MODEL]     (default deepseek-v2-lite; needs the extra ``capture``)

Sizes follow from the model file alone. Times are measured on one expert of the model's size with random weights, from
files that lie in the system's file cache.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from slicesim.amat.pack import Packing
from slicesim.live.layouts import ExpertWeights
from slicesim.models import ModelGeometry, load_model, slice_bytes
from slicesim.quality.files import CheckpointExperts, PackedExperts, fused
from slicesim.scenario.schema import Amat

BF16_BYTES = 2
#: What is left to Python, torch, activations and the KV cache of a short text.
SPARE_GB = 4.0
MEMORY_GB = 32.0


class Block:
    """Stands for a MoE block: sources ask for its layer alone."""

    layer = 1


def sizes(model: ModelGeometry) -> None:
    """Print what lies where."""
    experts = len(model.moe_layers) * model.experts
    resident = model.non_expert_weights * BF16_BYTES / 1e9
    expert = model.expert_weights * BF16_BYTES
    print(f"{model.name}: {experts} routed experts of {model.expert_weights:,} weights")
    print(f"  everything else, bf16, in memory            {resident:8.2f} GB")
    print(f"  experts, bf16, in the checkpoint's files    {experts * expert / 1e9:8.2f} GB")
    for high, low in ((8, 4), (6, 3), (4, 2)):
        msb, lsb = slice_bytes(model.expert_weights, high, low, 32)
        print(f"  experts, packed {high}/{low}: MSB and LSB slices     {experts * (msb + lsb) / 1e9:8.2f} GB")
    keep = MEMORY_GB - SPARE_GB - resident
    count = int(keep * 1e9 // expert)
    print(f"  left for rebuilt experts of {MEMORY_GB:g} GB (--keep)    {keep:8.2f} GB, {count} experts")


def times(model: ModelGeometry) -> None:
    """Print how long one expert takes to come from its file, as bf16."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, packed = Path(folder) / "model.safetensors", Path(folder) / "packed.safetensors"
        generator = torch.Generator().manual_seed(0)
        shapes = {"gate_proj": (0, 1), "up_proj": (0, 1), "down_proj": (1, 0)}
        dims = (model.expert_inner, model.hidden)
        tensors = {
            f"model.layers.1.mlp.experts.0.{name}.weight": torch.randn(
                dims[rows], dims[columns], generator=generator
            ).bfloat16()
            for name, (rows, columns) in shapes.items()
        }
        save_file(tensors, checkpoint)
        Packing(checkpoint, packed, Amat()).run()
        source, slices = CheckpointExperts(checkpoint, torch.bfloat16), PackedExperts(packed)

        def rebuilt(high: bool) -> ExpertWeights:
            return fused(slices.matrices(1, 0, high), torch.bfloat16)

        print(f"one expert, {torch.get_num_threads()} thread(s), median of 9:")
        for label, fetch in (
            ("read from the checkpoint", lambda: source(Block, 0)),  # type: ignore[arg-type]
            ("rebuilt from both slices", lambda: rebuilt(True)),
            ("rebuilt from the MSB slice", lambda: rebuilt(False)),
        ):
            print(f"  {label:<30} {1e3 * _median(fetch):8.1f} ms")


def _median(action: Callable[[], object]) -> float:
    action()
    spent = []
    for _ in range(9):
        start = time.perf_counter()
        action()
        spent.append(time.perf_counter() - start)
    return sorted(spent)[4]


def main() -> None:
    """Print both."""
    torch.set_num_threads(1)
    model = load_model(sys.argv[1] if len(sys.argv) > 1 else "deepseek-v2-lite")
    sizes(model)
    times(model)


if __name__ == "__main__":
    main()
