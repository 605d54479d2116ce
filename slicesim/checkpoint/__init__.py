"""Weights in safetensors files: read one tensor at a time, written as a stream."""

from slicesim.checkpoint.experts import Expert, Matrix, find_experts
from slicesim.checkpoint.files import Checkpoint, Tensor, open_checkpoint
from slicesim.checkpoint.writer import Plan, Writer, writing

__all__ = [
    "Checkpoint", "Expert", "Matrix", "Plan", "Tensor", "Writer", "find_experts", "open_checkpoint", "writing",
]  # fmt: skip
