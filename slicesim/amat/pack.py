"""A checkpoint's routed experts as slices in one file; one matrix is in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from slicesim.amat.packed import (
    METADATA_KEY,
    PackedExpert,
    PackedHeader,
    PackedMatrix,
    PackedTensor,
    check_out,
    object_names,
)
from slicesim.amat.quantise import quantise
from slicesim.amat.slices import slice_sizes, to_slices
from slicesim.checkpoint import Expert, Matrix, Plan, find_experts, open_checkpoint, writing
from slicesim.errors import UserError
from slicesim.scenario.schema import Amat

if TYPE_CHECKING:
    from slicesim.amat.packing import Bytes
    from slicesim.checkpoint import Checkpoint, Writer
    from slicesim.simulation import Progress


class Amounts(NamedTuple):
    """How much a packed file holds."""

    experts: int
    weights: int
    msb_bytes: int
    lsb_bytes: int


class Packing:
    """A packed file that is to be written: all of its sizes are known, no weight has been read yet."""

    def __init__(self, source: Path, out: Path, amat: Amat) -> None:
        """Open a checkpoint; raises UserError where it or the target will not do."""
        check_out(out, source)
        self.out = out
        self.amat = amat
        self.checkpoint = open_checkpoint(source)
        self.experts = find_experts(self.checkpoint)

    def amounts(self) -> Amounts:
        """Add up experts, weights and bytes."""
        sizes = [self._sizes(expert) for expert in self.experts]
        weights = sum(expert.size for expert in self.experts)
        return Amounts(len(self.experts), weights, sum(msb for msb, _ in sizes), sum(lsb for _, lsb in sizes))

    def run(self, progress: Progress = lambda done: None) -> None:
        """Write the file; raises UserError, with the tensor's name, for weights that have no code."""
        plans = [
            Plan(name, "U8", (size,))
            for expert in self.experts
            for name, size in zip(object_names(expert.layer, expert.number), self._sizes(expert), strict=True)
        ]
        header = _header(self.checkpoint, self.experts, self.amat)
        with writing(self.out, plans, {METADATA_KEY: header.model_dump_json(exclude_none=True)}) as writer:
            for done, expert in enumerate(self.experts, 1):
                self._pack(writer, expert)
                progress(done)

    def _sizes(self, expert: Expert) -> tuple[int, int]:
        sizes = [slice_sizes(matrix.size, self.amat) for matrix in expert.matrices]
        return sum(msb for msb, _ in sizes), sum(lsb for _, lsb in sizes)

    def _pack(self, writer: Writer, expert: Expert) -> None:
        names = object_names(expert.layer, expert.number)
        places = [0, 0]
        for matrix in expert.matrices:
            for which, part in enumerate(_slices(matrix, self.amat)):
                writer.write(names[which], part, places[which])
                places[which] += len(part)


def _slices(matrix: Matrix, amat: Amat) -> tuple[Bytes, Bytes]:
    try:
        return to_slices(quantise(matrix.floats(), amat.high_bits, amat.group), matrix.size, amat)
    except ValueError as error:
        place = "" if matrix.entry is None else f", expert {matrix.entry}"
        raise UserError(f"{matrix.tensor.path}: tensor {matrix.tensor.name}{place}: {error}") from None


def _header(checkpoint: Checkpoint, experts: list[Expert], amat: Amat) -> PackedHeader:
    tensors = {matrix.tensor.name: matrix.tensor for expert in experts for matrix in expert.matrices}
    return PackedHeader(
        amat=amat,
        tensors={name: PackedTensor(dtype=tensor.dtype, shape=list(tensor.shape)) for name, tensor in tensors.items()},
        experts=[_described(expert) for expert in experts],
        source=checkpoint.path.resolve().name,
        note=checkpoint.metadata.get("note"),
    )


def _described(expert: Expert) -> PackedExpert:
    matrices = [
        PackedMatrix(tensor=matrix.tensor.name, entry=matrix.entry, is_transposed=matrix.is_transposed)
        for matrix in expert.matrices
    ]
    return PackedExpert(layer=expert.layer, expert=expert.number, matrices=matrices)
