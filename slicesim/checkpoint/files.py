"""Safetensors files and folders of them: what lies where, read by ranges, without the safetensors package.

A file is 8 bytes with the header's length (little-endian), the header (JSON: name -> dtype, shape, data_offsets), and
the tensors' bytes without a gap. Nothing in it is code, so nothing in it can run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.checkpoint.dtypes import BITS, Floats, decode
from slicesim.errors import UserError

LENGTH_BYTES = 8
#: The reference implementation's own limit.
MOST_HEADER_BYTES = 100_000_000

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
#: Entry of config.json that slicesim's own tiny models carry.
MICRO_MODEL = "slicesim_micro_model"

INDEX = "*.safetensors.index.json"
METADATA = "__metadata__"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file; ``start`` is its first byte, from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return self.size * BITS[self.dtype] // 8

    def raw(self, first: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """Read ``count`` bytes from the tensor's byte ``first`` on; all that follow where no count is given."""
        wanted = self.bytes - first if count is None else count
        if first + wanted > self.bytes:  # before room is made for them
            raise UserError(f"{self.path}: {self.name} has {self.bytes:,} bytes, {first + wanted:,} are asked for")
        read = np.fromfile(self.path, dtype=np.uint8, count=wanted, offset=self.start + first)
        if len(read) < wanted:
            raise UserError(f"{self.path}: truncated while it was read, in tensor {self.name}")
        return read

    def floats(self, first: int, count: int) -> Floats:
        """Read ``count`` weights from number ``first`` on (row-major) as float32 [count]."""
        width = BITS[self.dtype] // 8
        return decode(self.raw(first * width, count * width), self.dtype)


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and the metadata of the files that they lie in."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def open_checkpoint(path: Path) -> Checkpoint:
    """Read the headers of a safetensors file, or of all shards in a folder.

    Raises UserError for pickle files, for what is no whole safetensors file, and where an index and its files differ.
    """
    files = _shards(path) if path.is_dir() else [path]
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        found, notes = read_header(file)
        for tensor in found:
            if tensor.name in tensors:
                raise UserError(f"{file}: tensor {tensor.name} is also in {tensors[tensor.name].path.name}")
            tensors[tensor.name] = tensor
        metadata |= notes
    if is_micro_model(path if path.is_dir() else path.parent):
        metadata.setdefault("note", "MICRO MODEL, a tiny one trained for slicesim")
    return Checkpoint(path, tensors, metadata)


def is_micro_model(folder: Path) -> bool:
    """Tell whether the config.json in a folder says that the model is one of slicesim's micro models."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get(MICRO_MODEL) is True


def _shards(folder: Path) -> list[Path]:
    """Return the files that the index names; without an index, every safetensors file of the folder."""
    indexes = sorted(folder.glob(INDEX))
    if len(indexes) > 1:
        raise UserError(f"{folder}: holds {len(indexes)} indexes ({indexes[0].name}, {indexes[1].name}); give one file")
    if indexes:
        return _indexed(indexes[0])
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(file for file in folder.iterdir() if file.suffix in PICKLES)
    if pickled:
        refuse_pickle(pickled[0])
    raise UserError(f"{folder}: holds no safetensors file")


def _indexed(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(weight_map.values()))
        is_sound = all(Path(name).name == name for name in names)
    except (ValueError, TypeError, KeyError, AttributeError):
        is_sound = False
    if not is_sound:
        raise UserError(f"{index}: no index of safetensors shards (a weight_map from tensor to file name)")
    files = [index.parent / name for name in names]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: is missing, but {index.name} names it; download the checkpoint again")
        refuse_pickle(file)
    return files


def refuse_pickle(path: Path) -> None:
    """Raise UserError for a file whose name says that loading it could run code."""
    if path.suffix in PICKLES:
        raise UserError(
            f"{path}: a pickle file can run code and is never loaded; convert it to safetensors "
            "(save_pretrained of transformers does)"
        )


def read_header(path: Path) -> tuple[list[Tensor], dict[str, str]]:
    """Return the tensors of one file in the order of their bytes, and its metadata.

    Raises UserError where the file is no whole safetensors file.
    """
    refuse_pickle(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint (a safetensors file, or a folder of them)")
    whole = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if whole < LENGTH_BYTES or length > min(MOST_HEADER_BYTES, whole - LENGTH_BYTES):
            raise UserError(f"{path}: no safetensors file, or cut off within its header")
        text = file.read(length)
    try:
        entries = json.loads(text)
        metadata = {str(key): str(value) for key, value in entries.pop(METADATA, {}).items()}
        tensors = [_tensor(path, LENGTH_BYTES + length, name, entry) for name, entry in entries.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: the safetensors header is not sound ({_words(error)})") from None
    tensors.sort(key=lambda tensor: (tensor.start, tensor.bytes))
    _check_ranges(path, tensors, LENGTH_BYTES + length, whole)
    return tensors, metadata


def _words(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _tensor(path: Path, data: int, name: str, entry: Any) -> Tensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in BITS:
        raise ValueError(f"tensor {name} has the unknown dtype {dtype!r}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"tensor {name} has a shape or offsets that are no counts")
    tensor = Tensor(name, dtype, shape, path, data + begin)
    if prod(shape) * BITS[dtype] != 8 * (end - begin):
        raise ValueError(f"tensor {name} has {end - begin} bytes for {dtype} {list(shape)}")
    return tensor


def _check_ranges(path: Path, tensors: Iterable[Tensor], place: int, whole: int) -> None:
    for tensor in tensors:
        if tensor.start != place:
            raise UserError(f"{path}: the bytes of tensor {tensor.name} do not follow on the tensor before it")
        place += tensor.bytes
    if place != whole:
        state = "truncated" if whole < place else "too long"
        raise UserError(f"{path}: {state}: {whole:,} bytes, its header tells of {place:,}")
