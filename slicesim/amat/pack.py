"""A checkpoint's routed experts as slices in one file, and back (docs/formats.md, "Packed experts")."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import ValidationError

from slicesim.amat.quantise import dequantise, quantise
from slicesim.amat.slices import from_slices, slice_sizes, to_slices
from slicesim.checkpoint import Expert, Matrix, Tensor, find_experts, open_checkpoint, writing
from slicesim.checkpoint.dtypes import BITS, encode, is_float
from slicesim.checkpoint.files import Checkpoint
from slicesim.checkpoint.writer import Plan
from slicesim.errors import UserError
from slicesim.scenario.schema import Amat
from slicesim.scenario.section import Section
from slicesim.version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slicesim.checkpoint.writer import Writer
    from slicesim.simulation import Progress

METADATA_KEY = "slicesim.amat"

Precision = Literal["high", "low"]


class PackedTensor(Section):
    """A tensor of the checkpoint that was packed."""

    dtype: str
    shape: list[int]


class PackedMatrix(Section):
    """A matrix of an expert: its tensor, its entry where the tensor is fused, whether the file held it transposed."""

    tensor: str
    index: int | None = None
    is_transposed: bool = False


class PackedExpert(Section):
    """An expert; its slices hold its matrices in this order."""

    layer: int
    expert: int
    matrices: list[PackedMatrix]


class PackedHeader(Section):
    """What the metadata of a packed file says (JSON under METADATA_KEY)."""

    schema_version: Literal[1] = 1
    amat: Amat
    tensors: dict[str, PackedTensor]
    experts: list[PackedExpert]
    source: str
    tool_version: str = __version__


class Amounts(NamedTuple):
    """How much a packed file holds."""

    experts: int
    weights: int
    msb_bytes: int
    lsb_bytes: int


def pack(source: Path, out: Path, amat: Amat, progress: Progress = lambda done: None) -> Amounts:
    """Write the slices of all routed experts; other weights are left out.

    One matrix is in memory at a time. Raises UserError for a checkpoint that cannot be packed.
    """
    _check_out(out, source)
    checkpoint = open_checkpoint(source)
    experts = find_experts(checkpoint)
    sizes = [[slice_sizes(matrix.size, amat) for matrix in expert.matrices] for expert in experts]
    totals = [(sum(msb for msb, _ in own), sum(lsb for _, lsb in own)) for own in sizes]
    plans = [
        Plan(name, "U8", (size,))
        for expert, both in zip(experts, totals, strict=True)
        for name, size in zip(object_names(expert.layer, expert.number), both, strict=True)
    ]
    header = _header(checkpoint, experts, amat)
    with writing(out, plans, {METADATA_KEY: header.model_dump_json()}) as writer:
        for done, expert in enumerate(experts, 1):
            _pack_expert(writer, expert, amat)
            progress(done)
    msb_bytes, lsb_bytes = (sum(column) for column in zip(*totals, strict=True))
    return Amounts(len(experts), sum(expert.size for expert in experts), msb_bytes, lsb_bytes)


def unpack(packed: Path, out: Path, precision: Precision, progress: Progress = lambda done: None) -> Amounts:
    """Write the experts' weights that a packed file stands for, under their first names, in their first dtype.

    Raises UserError for a file that is not whole, or was not written by ``pack``.
    """
    _check_out(out, packed)
    checkpoint = open_checkpoint(packed)
    header = read_header(checkpoint)
    plans = [Plan(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in header.tensors.items()]
    msb_bytes = lsb_bytes = weights = 0
    with writing(out, plans, {}) as writer:
        for done, expert in enumerate(header.experts, 1):
            msb, lsb = (_object(checkpoint, name) for name in object_names(expert.layer, expert.expert))
            weights += _unpack_expert(writer, header, expert, msb, lsb if precision == "high" else None)
            msb_bytes, lsb_bytes = msb_bytes + msb.bytes, lsb_bytes + lsb.bytes
            progress(done)
    return Amounts(len(header.experts), weights, msb_bytes, lsb_bytes)


def object_names(layer: int, expert: int) -> tuple[str, str]:
    """Names of an expert's MSB and LSB slice in a packed file."""
    return f"layers.{layer}.experts.{expert}.msb", f"layers.{layer}.experts.{expert}.lsb"


def read_header(checkpoint: Checkpoint) -> PackedHeader:
    """Return what a packed file says of itself; raises UserError where it is none."""
    text = checkpoint.metadata.get(METADATA_KEY)
    if text is None:
        raise UserError(f"{checkpoint.path}: holds no packed slices; write them with slicesim amat pack")
    try:
        header = PackedHeader.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise UserError(f"{checkpoint.path}: metadata {METADATA_KEY}: {place}: {fault['msg']}") from None
    for expert in header.experts:
        for matrix in expert.matrices:
            tensor = header.tensors.get(matrix.tensor)
            if tensor is None or not is_float(tensor.dtype) or (matrix.index or 0) not in range(max(1, *tensor.shape)):
                raise UserError(f"{checkpoint.path}: metadata {METADATA_KEY}: matrix of {matrix.tensor} is not sound")
    return header


def quantised_matrix(matrix: Matrix, amat: Amat) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read a matrix and cut it into slices; raises UserError, with the tensor's name, for weights without a code."""
    try:
        return to_slices(quantise(matrix.floats(), amat.high_bits, amat.group), matrix.size, amat)
    except ValueError as error:
        place = "" if matrix.index is None else f", expert {matrix.index}"
        raise UserError(f"{matrix.tensor.path}: tensor {matrix.tensor.name}{place}: {error}") from None


def _check_out(out: Path, source: Path) -> None:
    if out.suffix != ".safetensors" or out.is_dir():
        raise UserError(f"{out}: give the name of a .safetensors file with --out")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out}: lies in the folder to read from; choose another --out")
    if out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"{out}: is the file to read from; choose another --out")


def _header(checkpoint: Checkpoint, experts: list[Expert], amat: Amat) -> PackedHeader:
    tensors = {matrix.tensor.name: matrix.tensor for expert in experts for matrix in expert.matrices}
    return PackedHeader(
        amat=amat,
        tensors={
            name: PackedTensor(dtype=tensor.dtype, shape=list(tensor.shape)) for name, tensor in sorted(tensors.items())
        },
        experts=[
            PackedExpert(
                layer=expert.layer,
                expert=expert.number,
                matrices=[
                    PackedMatrix(tensor=matrix.tensor.name, index=matrix.index, is_transposed=matrix.is_transposed)
                    for matrix in expert.matrices
                ],
            )
            for expert in experts
        ],
        source=checkpoint.path.name,
    )


def _pack_expert(writer: Writer, expert: Expert, amat: Amat) -> None:
    names = object_names(expert.layer, expert.number)
    places = [0, 0]
    for matrix in expert.matrices:
        for which, part in enumerate(quantised_matrix(matrix, amat)):
            writer.write(names[which], part, places[which])
            places[which] += len(part)


def _unpack_expert(writer: Writer, header: PackedHeader, expert: PackedExpert, msb: Tensor, lsb: Tensor | None) -> int:
    msb_place = lsb_place = weights = 0
    for part in expert.matrices:
        stored = header.tensors[part.tensor]
        shape = tuple(stored.shape) if part.index is None else tuple(stored.shape[1:])
        tensor = Tensor(part.tensor, stored.dtype, shape, msb.path, 0)
        msb_size, lsb_size = slice_sizes(tensor.size, header.amat)
        try:
            upper = msb.raw(msb_place, msb_size)
            lower = None if lsb is None else lsb.raw(lsb_place, lsb_size)
            quantised = from_slices(upper, lower, tensor.size, header.amat)
        except ValueError as error:
            raise UserError(f"{msb.path}: {msb.name}, matrix of {part.tensor}: {error}") from None
        values = dequantise(quantised, shape[::-1] if part.is_transposed else shape)
        data = encode(values.T if part.is_transposed else values, stored.dtype)
        writer.write(part.tensor, data, (part.index or 0) * tensor.size * BITS[stored.dtype] // 8)
        msb_place, lsb_place, weights = msb_place + msb_size, lsb_place + lsb_size, weights + tensor.size
    return weights


def _object(checkpoint: Checkpoint, name: str) -> Tensor:
    found = checkpoint.tensors.get(name)
    if found is None or found.dtype != "U8":
        raise UserError(f"{checkpoint.path}: slice {name} is missing, though the metadata lists its expert")
    return found
