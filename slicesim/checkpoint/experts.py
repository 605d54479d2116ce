"""Routed experts in a checkpoint: which tensors hold them, and which way round they lie.

Two layouts are known: a tensor for each expert and matrix (DeepSeek, Qwen, OLMoE: ``experts.7.gate_proj.weight``;
Mixtral: ``experts.7.w1.weight``), and all experts of a layer fused into tensors of three axes (newer transformers,
gpt-oss: ``experts.gate_up_proj``, ``experts.down_proj``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from slicesim.checkpoint.dtypes import BITS, Floats, is_float
from slicesim.checkpoint.files import Checkpoint, Tensor
from slicesim.errors import UserError

_LAYER = r"(?:.*\.)?layers\.(?P<layer>\d+)\.(?:.*\.)?experts\."
_SINGLE = re.compile(_LAYER + r"(?P<expert>\d+)\.(?P<part>gate_proj|up_proj|down_proj|w1|w2|w3)\.weight")
_FUSED = re.compile(_LAYER + r"(?P<part>gate_up_proj|down_proj)(?:\.weight)?")
#: Tensors that hold an expert's weights in a format of their own.
_PACKED = re.compile(_LAYER + r".*(?:_blocks|weight_packed|qweight)")

#: Matrices of one expert in the order in which they are computed, and so stored.
_COMPLETE = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("gate_up_proj", "down_proj"))


class Matrix(NamedTuple):
    """One weight matrix of an expert: a whole tensor, or one ``entry`` of a fused one.

    is_transposed: the file holds [inputs, outputs], as gpt-oss does.
    """

    tensor: Tensor
    entry: int | None = None
    is_transposed: bool = False

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.tensor.size if self.entry is None else self.tensor.size // self.tensor.shape[0]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in the file."""
        return self.tensor.shape if self.entry is None else self.tensor.shape[1:]

    @property
    def first_byte(self) -> int:
        """Where the matrix begins within its tensor."""
        return (self.entry or 0) * self.size * BITS[self.tensor.dtype] // 8

    def part(self, first: int, count: int) -> Floats:
        """Read ``count`` weights as they lie in the file, from the matrix's number ``first`` on."""
        return self.tensor.floats((self.entry or 0) * self.size + first, count)

    def floats(self) -> Floats:
        """Read the matrix as float32 [outputs, inputs]: groups of weights run along the inputs."""
        stored = self.part(0, self.size).reshape(self.stored_shape)
        return np.ascontiguousarray(stored.T) if self.is_transposed else stored


class Expert(NamedTuple):
    """A routed expert and its matrices: gate, up, down, or gate and up in one, down."""

    layer: int
    number: int
    matrices: tuple[Matrix, ...]

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(matrix.size for matrix in self.matrices)


def find_experts(checkpoint: Checkpoint, *, required: bool = True) -> list[Expert]:
    """Return all routed experts by layer and number.

    Raises UserError where there are none (unless not required), where one lacks a matrix, and for formats of few bits.
    """
    parts: dict[tuple[int, int], dict[str, Matrix]] = {}
    for tensor in checkpoint.tensors.values():
        if _PACKED.fullmatch(tensor.name):
            raise UserError(
                f"{tensor.path}: {tensor.name} is quantised already (MXFP4 or the like); dequantise the checkpoint "
                "to BF16 first (transformers: Mxfp4Config(dequantize=True), then save_pretrained)"
            )
        if match := _SINGLE.fullmatch(tensor.name):
            _check(tensor, axes=2)
            key = int(match["layer"]), int(match["expert"])
            parts.setdefault(key, {})[match["part"]] = Matrix(tensor)
        elif match := _FUSED.fullmatch(tensor.name):
            _check(tensor, axes=3)
            for number in range(tensor.shape[0]):
                key = int(match["layer"]), number
                parts.setdefault(key, {})[match["part"]] = Matrix(tensor, number)
    if required and not parts:
        raise UserError(
            f"{checkpoint.path}: no routed experts found (names like model.layers.1.mlp.experts.0.gate_proj.weight, "
            "or fused ...experts.gate_up_proj)"
        )
    return [Expert(layer, number, _ordered(checkpoint, layer, number, parts[layer, number]))
            for layer, number in sorted(parts)]  # fmt: skip


def _check(tensor: Tensor, axes: int) -> None:
    if not is_float(tensor.dtype):
        raise UserError(f"{tensor.path}: {tensor.name} has dtype {tensor.dtype}; dequantise the checkpoint first")
    if len(tensor.shape) != axes or not tensor.size:
        raise UserError(f"{tensor.path}: {tensor.name} has shape {list(tensor.shape)}; {axes} axes are needed")


def _ordered(checkpoint: Checkpoint, layer: int, number: int, parts: Mapping[str, Matrix]) -> tuple[Matrix, ...]:
    for names in _COMPLETE:
        if parts.keys() == set(names):
            matrices = tuple(parts[name] for name in names)
            return tuple(matrix._replace(is_transposed=_lies_transposed(matrices)) for matrix in matrices)
    raise UserError(
        f"{checkpoint.path}: expert {number} of layer {layer} has {', '.join(sorted(parts))}; "
        f"needed: {' or '.join('+'.join(names) for names in _COMPLETE)} (is a shard missing?)"
    )


def _lies_transposed(matrices: tuple[Matrix, ...]) -> bool:
    """Tell gpt-oss's fused layout, gate_up [hidden, 2 inner] and down [inner, hidden], from the other one.

    Both cannot fit at once: hidden would have to be twice itself.
    """
    if len(matrices) != 2:
        return False
    (rows, columns), (down_rows, down_columns) = (matrix.stored_shape for matrix in matrices)
    if (rows, columns) == (2 * down_columns, down_rows):
        return False
    if (rows, columns) == (down_columns, 2 * down_rows):
        return True
    tensor = matrices[0].tensor
    raise UserError(
        f"{tensor.path}: {tensor.name} {list(tensor.shape)} and {matrices[1].tensor.name} "
        f"{list(matrices[1].tensor.shape)} do not belong together"
    )
