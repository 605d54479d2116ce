"""Weights back from a file of packed experts, at either precision; one matrix is in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slicesim.amat.packed import PackedExpert, PackedMatrix, check_out, object_names, packed_header
from slicesim.amat.quantise import dequantise
from slicesim.amat.slices import from_slices, slice_sizes
from slicesim.checkpoint import Matrix, Plan, Tensor, open_checkpoint, writing
from slicesim.checkpoint.dtypes import encode
from slicesim.errors import UserError

if TYPE_CHECKING:
    from slicesim.amat.packing import Bytes
    from slicesim.checkpoint import Writer
    from slicesim.simulation import Progress

PRECISIONS = ("high", "low")


class Unpacking:
    """A file of experts that is to be rebuilt: all is checked but the slices' own bytes."""

    def __init__(self, packed: Path, out: Path, precision: str) -> None:
        """Open a packed file; raises UserError where it or the target will not do."""
        if precision not in PRECISIONS:
            raise UserError(f"--precision {precision}: must be {' or '.join(PRECISIONS)}")
        check_out(out, packed)
        self.out = out
        self.is_high = precision == "high"
        self.checkpoint = open_checkpoint(packed)
        self.header = packed_header(self.checkpoint)

    def run(self, progress: Progress = lambda done: None) -> int:
        """Write the weights under their first names, in their first dtype and layout; return how many there are.

        Raises UserError for slices that no packing wrote.
        """
        weights = 0
        plans = [Plan(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.header.tensors.items()]
        note = {} if self.header.note is None else {"note": self.header.note}
        with writing(self.out, plans, note) as writer:
            for done, expert in enumerate(self.header.experts, 1):
                weights += self._unpack(writer, expert)
                progress(done)
        return weights

    def _unpack(self, writer: Writer, expert: PackedExpert) -> int:
        msb, lsb = (self._object(name) for name in object_names(expert.layer, expert.expert))
        msb_place = lsb_place = weights = 0
        for part in expert.matrices:
            matrix = self._matrix(part)
            msb_size, lsb_size = slice_sizes(matrix.size, self.header.amat)
            try:
                upper = msb.raw(msb_place, msb_size)
                lower = lsb.raw(lsb_place, lsb_size) if self.is_high else None
                writer.write(part.tensor, self._rebuilt(matrix, upper, lower), matrix.first_byte)
            except ValueError as error:
                raise UserError(f"{msb.path}: {msb.name}, matrix of {part.tensor}: {error}") from None
            msb_place, lsb_place, weights = msb_place + msb_size, lsb_place + lsb_size, weights + matrix.size
        if (msb_place, lsb_place) != (msb.bytes, lsb.bytes):
            raise UserError(f"{msb.path}: {msb.name} has {msb.bytes} bytes, its matrices take {msb_place}")
        return weights

    def _rebuilt(self, matrix: Matrix, msb: Bytes, lsb: Bytes | None) -> Bytes:
        """Return a matrix's bytes as the checkpoint had them, but for what quantising took."""
        shape = matrix.stored_shape
        quantised = from_slices(msb, lsb, matrix.size, self.header.amat)
        values = dequantise(quantised, shape[::-1] if matrix.is_transposed else shape)
        return encode(values.T if matrix.is_transposed else values, matrix.tensor.dtype)

    def _matrix(self, part: PackedMatrix) -> Matrix:
        tensor = self.header.tensors[part.tensor]
        stored = Tensor(part.tensor, tensor.dtype, tuple(tensor.shape), self.out, 0)
        return Matrix(stored, part.entry, part.is_transposed)

    def _object(self, name: str) -> Tensor:
        found = self.checkpoint.tensors.get(name)
        if found is None or found.dtype != "U8":
            raise UserError(f"{self.checkpoint.path}: slice {name} is missing, though the metadata lists its expert")
        return found
