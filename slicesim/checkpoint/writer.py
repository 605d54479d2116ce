"""A safetensors file written as a stream: all sizes are known before the first weight is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedWriter
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.checkpoint.dtypes import BITS
from slicesim.checkpoint.files import LENGTH_BYTES, METADATA, MOST_HEADER_BYTES
from slicesim.errors import UserError
from slicesim.whole_file import whole_file

#: Data begins at a multiple of this: the unit in which flash is read.
PAGE = 4096


class Plan(NamedTuple):
    """A tensor that will be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return prod(self.shape) * BITS[self.dtype] // 8


class Writer:
    """Puts bytes into the planned tensors, in any order."""

    def __init__(self, file: BufferedWriter, starts: Mapping[str, int]) -> None:
        self._file = file
        self._starts = starts

    def write(self, name: str, data: NDArray[np.uint8], first: int = 0) -> None:
        """Write a tensor's bytes from its byte ``first`` on."""
        place = self._starts[name] + first
        if self._file.tell() != place:
            self._file.seek(place)
        self._file.write(data.data)


@contextmanager
def writing(path: Path, plans: Sequence[Plan], metadata: Mapping[str, str]) -> Iterator[Writer]:
    """Write a safetensors file with the planned tensors one after another; it takes its name when it is whole.

    Raises UserError where it cannot be written.
    """
    header, starts = _layout(path, plans, metadata)
    with whole_file(path) as partial, partial.open("wb") as file:
        file.write(len(header).to_bytes(LENGTH_BYTES, "little") + header)
        file.truncate(LENGTH_BYTES + len(header) + sum(plan.bytes for plan in plans))
        yield Writer(file, starts)


def _layout(path: Path, plans: Sequence[Plan], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Return the header, filled up with blanks to a whole page, and each tensor's first byte in the file."""
    entries: dict[str, object] = {METADATA: dict(metadata)}
    offsets: dict[str, int] = {}
    place = 0
    for plan in plans:
        end = place + plan.bytes
        entries[plan.name] = {"dtype": plan.dtype, "shape": list(plan.shape), "data_offsets": [place, end]}
        offsets[plan.name] = place
        place = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-(LENGTH_BYTES + len(header)) % PAGE)
    if len(header) > MOST_HEADER_BYTES:
        raise UserError(f"{path}: {len(plans):,} tensors need a longer header than safetensors allows")
    data = LENGTH_BYTES + len(header)
    return header, {name: data + offset for name, offset in offsets.items()}
