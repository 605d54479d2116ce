"""How experts and slices are cut: an expert into operations, a slice into flash reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """What a run reads and computes at once.

    matrix_bytes: of each slice in each weight matrix, [MoE layers, MSB and LSB, matrices]; by_matrix: an expert is one
    operation (part) for each weight matrix, else one part in all. sizes: bytes of each flash read of a slice, [MoE
    layers, MSB and LSB, most reads of a slice], 0 beyond a slice's last; starts: [MoE layers x 2, parts + 1], a part
    waits for its slice's reads from starts[part] up to starts[part + 1].
    """

    matrix_bytes: IntArray
    by_matrix: bool
    sizes: IntArray
    starts: IntArray

    @classmethod
    def of(cls, matrix_bytes: IntArray, *, by_matrix: bool = False, longest_bytes: int | None = None) -> Pieces:
        """Cut the reads; longest_bytes: of one read, None for one read per weight matrix."""
        layers, _, matrices = matrix_bytes.shape
        longest = longest_bytes or max(int(matrix_bytes.max()), 1)
        reads = [[_cut(size, longest) for size in row] for row in matrix_bytes.reshape(-1, matrices).tolist()]
        ends = np.array([np.cumsum([0, *(len(part) for part in row)]) for row in reads], dtype=np.int64)
        sizes = np.zeros((len(reads), int(ends[:, -1].max())), dtype=np.int64)
        for row, parts in enumerate(reads):
            sizes[row, : ends[row, -1]] = [size for part in parts for size in part]
        starts = ends if by_matrix else ends[:, [0, -1]]
        return cls(matrix_bytes, by_matrix, sizes.reshape(layers, 2, -1), np.ascontiguousarray(starts))

    @property
    def parts(self) -> int:
        """Operations of an expert."""
        return int(self.starts.shape[1]) - 1

    @property
    def most(self) -> int:
        """Kinds of reads that are set aside for each slice."""
        return int(self.sizes.shape[2])

    def part_bytes(self, index: int) -> IntArray:
        """Bytes of each part of an expert's slices, [MSB and LSB, parts]; index: of the MoE layer."""
        own = self.matrix_bytes[index]
        return np.asarray(own if self.by_matrix else own.sum(axis=1, keepdims=True))


def _cut(size: int, longest: int) -> list[int]:
    """Cut bytes into reads of the longest size; the last one takes what is left."""
    whole, rest = divmod(size, longest)
    return [longest] * whole + ([rest] if rest or not whole else [])
