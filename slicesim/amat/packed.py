"""The file of packed experts: names, and what its metadata says (docs/formats.md, "Packed experts")."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from slicesim.checkpoint import Checkpoint
from slicesim.checkpoint.dtypes import is_float
from slicesim.errors import UserError
from slicesim.scenario.schema import Amat
from slicesim.scenario.section import Section
from slicesim.version import __version__

METADATA_KEY = "slicesim.amat"


class PackedTensor(Section):
    """A tensor of the checkpoint that was packed."""

    dtype: str
    shape: list[int]


class PackedMatrix(Section):
    """A matrix of an expert: its tensor, its entry where the tensor is fused, whether the checkpoint transposes it."""

    tensor: str
    entry: int | None = None
    is_transposed: bool = False


class PackedExpert(Section):
    """An expert; its slices hold its matrices in this order."""

    layer: int
    expert: int
    matrices: list[PackedMatrix]


class PackedHeader(Section):
    """What the metadata of a packed file says, as JSON under METADATA_KEY."""

    schema_version: Literal[1] = 1
    amat: Amat
    tensors: dict[str, PackedTensor]
    experts: list[PackedExpert]
    source: str
    note: str | None = None
    tool_version: str = __version__


def object_names(layer: int, expert: int) -> tuple[str, str]:
    """Names of an expert's MSB and LSB slice in a packed file."""
    return f"layers.{layer}.experts.{expert}.msb", f"layers.{layer}.experts.{expert}.lsb"


def packed_header(checkpoint: Checkpoint) -> PackedHeader:
    """Return what a packed file says of itself; raises UserError where it is none, or contradicts itself."""
    text = checkpoint.metadata.get(METADATA_KEY)
    if text is None:
        raise UserError(f"{checkpoint.path}: holds no packed slices; write them with slicesim amat pack")
    where = f"{checkpoint.path}: metadata {METADATA_KEY}"
    try:
        header = PackedHeader.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    for name, tensor in header.tensors.items():
        if not is_float(tensor.dtype) or not tensor.shape or min(tensor.shape) < 1:
            raise UserError(f"{where}: tensor {name} has dtype {tensor.dtype} and shape {tensor.shape}")
    for expert in header.experts:
        for matrix in expert.matrices:
            tensor_ = header.tensors.get(matrix.tensor)
            if tensor_ is None or not 0 <= (matrix.entry or 0) < tensor_.shape[0]:
                raise UserError(f"{where}: expert {expert.expert} of layer {expert.layer} has no {matrix.tensor}")
    return header


def check_out(out: Path, source: Path) -> None:
    """Raise UserError for a target that is no file of its own."""
    if out.suffix != ".safetensors" or out.is_dir():
        raise UserError(f"{out}: give the name of a .safetensors file with --out")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out}: lies in the folder to read from; choose another --out")
    if out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"{out}: is the file to read from; choose another --out")
