"""Weights in safetensors files: read one tensor at a time, written as a stream."""

from slicesim.checkpoint.experts import Expert, Matrix, find_experts
from slicesim.checkpoint.files import Tensor, open_checkpoint
from slicesim.checkpoint.writer import writing

__all__ = ["Expert", "Matrix", "Tensor", "find_experts", "open_checkpoint", "writing"]
