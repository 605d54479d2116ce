"""Checkpoints made by hand: the safetensors format written down once more, without slicesim's own writer."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

#: (shape, bytes, dtype) of a tensor.
Stored = tuple[str, list[int], bytes]


def bf16(values: Any) -> bytes:
    """The upper halves of float32, for values that bfloat16 holds or, cut off, for any others."""
    return (np.asarray(values, dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()


def stored(values: Any, dtype: str = "F32") -> Stored:
    array = np.asarray(values)
    data = bf16(array) if dtype == "BF16" else array.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()
    return dtype, list(array.shape), data


def file_bytes(tensors: dict[str, Stored], metadata: dict[str, str] | None = None) -> bytes:
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + body


def write_file(path: Path, tensors: dict[str, Stored], metadata: dict[str, str] | None = None) -> Path:
    path.write_bytes(file_bytes(tensors, metadata))
    return path


def expert_weights(
    seed: int = 0, layers: tuple[int, ...] = (1, 2), experts: int = 3, hidden: int = 64, inner: int = 32
) -> dict[str, np.ndarray[Any, Any]]:
    """DeepSeek's names: gate, up and down of every expert, and weights that are no routed expert's."""
    rng = np.random.default_rng(seed)
    shapes = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    weights = {
        f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight": rng.standard_normal(shape).astype(np.float32)
        for layer in layers
        for expert in range(experts)
        for part, shape in shapes.items()
    }
    weights["model.layers.1.mlp.shared_experts.gate_proj.weight"] = np.ones((inner, hidden), np.float32)
    weights["model.layers.1.mlp.gate.weight"] = np.ones((experts, hidden), np.float32)
    weights["model.norm.weight"] = np.ones(hidden, np.float32)
    return weights


def checkpoint(path: Path, dtype: str = "F32", **options: Any) -> Path:
    return write_file(path, {name: stored(values, dtype) for name, values in expert_weights(**options).items()})
