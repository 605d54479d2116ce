"""Experts that stay in their files, and are read one at a time when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from slicesim.amat import dequantise
from slicesim.amat.packed import object_names, packed_header
from slicesim.amat.slices import from_slices, slice_sizes
from slicesim.checkpoint import open_checkpoint
from slicesim.checkpoint.dtypes import Floats
from slicesim.checkpoint.experts import find_experts
from slicesim.errors import UserError
from slicesim.live.blocks import MoeBlock
from slicesim.live.layouts import ExpertWeights


class CheckpointExperts:
    """Experts of a safetensors checkpoint. dtype: of the weights that are handed out. A source (``quality.bank``)."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.folder = folder
        self.dtype = dtype
        self._experts = {(own.layer, own.number): own for own in find_experts(open_checkpoint(folder))}

    def __call__(self, block: MoeBlock, expert: int) -> ExpertWeights:
        """Read one expert's matrices."""
        found = self._experts.get((block.layer, expert))
        if found is None:
            raise UserError(f"{self.folder}: holds no expert {expert} of layer {block.layer}")
        return fused([matrix.floats() for matrix in found.matrices], self.dtype)


class PackedExperts:
    """Experts of a file of ``slicesim amat pack``, slice by slice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checkpoint = open_checkpoint(path)
        self.header = packed_header(self._checkpoint)
        self._experts = {(own.layer, own.expert): own for own in self.header.experts}

    def matrices(self, layer: int, expert: int, high: bool) -> list[Floats]:
        """Return an expert's matrices [out, in] as their codes have them; the LSB slice is read where ``high``.

        Raises UserError where there is no such expert, ValueError for slices that no packing wrote.
        """
        found = self._experts.get((layer, expert))
        if found is None:
            raise UserError(f"{self.path}: holds no expert {expert} of layer {layer}")
        msb, lsb = (self._checkpoint.tensors[name] for name in object_names(layer, expert))
        msb_place = lsb_place = 0
        matrices = []
        for part in found.matrices:
            stored = self.header.tensors[part.tensor].shape
            shape = tuple(stored if part.entry is None else stored[1:])
            size = int(np.prod(shape))
            msb_size, lsb_size = slice_sizes(size, self.header.amat)
            upper = msb.raw(msb_place, msb_size)
            lower = lsb.raw(lsb_place, lsb_size) if high else None
            code = from_slices(upper, lower, size, self.header.amat)
            matrices.append(dequantise(code, shape[::-1] if part.is_transposed else shape))
            msb_place, lsb_place = msb_place + msb_size, lsb_place + lsb_size
        return matrices


def fused(matrices: Sequence[Floats], dtype: torch.dtype) -> ExpertWeights:
    """Lay gate, up and down projection (or gate and up in one, down) out as the model does; all but gpt-oss."""
    *gate_up, down = (torch.from_numpy(matrix) for matrix in matrices)
    return ExpertWeights(torch.cat(gate_up).to(dtype), down.to(dtype))
