"""What AMAT and its alternatives cost on a checkpoint's own weights, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slicesim.amat.alternatives import METHODS
from slicesim.amat.error import sqnr_db, square_sum
from slicesim.amat.quantise import BLOCK, quantise
from slicesim.checkpoint import Checkpoint, Matrix, find_experts, open_checkpoint
from slicesim.checkpoint.dtypes import Floats, is_float
from slicesim.errors import UserError
from slicesim.report.folder import SUMMARY, write_folder
from slicesim.scenario.schema import Amat

if TYPE_CHECKING:
    import pandas as pd

    from slicesim.simulation import Progress

ERRORS = "errors.csv"
PLOT = "errors.png"


@dataclass
class Errors:
    """Sums over a tensor's weights: squares of the weights, and of each pair's and method's error [pairs, methods]."""

    tensor: str
    weights: int
    signal: float
    noise: np.ndarray[tuple[int, int], np.dtype[np.float64]]

    def relative(self, pair: int, method: int) -> float | None:
        """Relative MSE; none for a tensor of zeros."""
        return float(self.noise[pair, method]) / self.signal if self.signal else None


@dataclass(frozen=True)
class Study:
    """A report on a checkpoint: sums by tensor, and over all of them."""

    path: Path
    metadata: dict[str, str]
    pairs: Sequence[Amat]
    tensors: Sequence[Errors]
    overall: Errors = field(init=False)

    def __post_init__(self) -> None:
        noise = np.sum([errors.noise for errors in self.tensors], axis=0)
        weights, signal = sum(e.weights for e in self.tensors), sum(e.signal for e in self.tensors)
        object.__setattr__(self, "overall", Errors("overall", weights, signal, noise))

    def rows(self, errors: Errors) -> Iterator[dict[str, Any]]:
        """Yield one row per pair and method."""
        for pair, amat in enumerate(self.pairs):
            for number, method in enumerate(METHODS):
                relative = errors.relative(pair, number)
                yield {
                    "tensor": errors.tensor, "weights": errors.weights, "high_bits": amat.high_bits,
                    "low_bits": amat.low_bits, "group": amat.group, "method": method,
                    "relative_mse": relative, "sqnr_db": sqnr_db(relative),
                }  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Return the figures over all tensors as plain data."""
        return {
            "checkpoint": str(self.path),
            "metadata": self.metadata,
            "tensors": len(self.tensors),
            "overall": list(self.rows(self.overall)),
        }

    def frame(self) -> pd.DataFrame:
        """Return one row per tensor, pair and method."""
        import pandas as pd

        return pd.DataFrame(row for errors in self.tensors for row in self.rows(errors))

    def save(self, folder: Path) -> Path:
        """Write summary.json, errors.csv and the plots into a folder, whole or not at all."""
        import json

        from slicesim.report.amat import error_plot

        def plot(path: Path) -> None:
            error_plot(self, path)

        def summary(path: Path) -> None:
            path.write_text(json.dumps(self.describe(), indent=2) + "\n", encoding="utf-8")

        def table(path: Path) -> None:
            self.frame().to_csv(path, index=False)

        return write_folder(folder, {SUMMARY: summary, ERRORS: table, PLOT: plot})


class Survey:
    """The tensors of a checkpoint that a report is on: found first, read later."""

    def __init__(self, path: Path, *, everything: bool = False) -> None:
        """Open a checkpoint; everything: all float tensors of two axes or more, not only the routed experts'.

        Raises UserError where there is nothing to report on.
        """
        self.checkpoint = open_checkpoint(path)
        self.matrices = _matrices(self.checkpoint, everything)

    def run(self, pairs: Sequence[Amat], progress: Progress = lambda done: None) -> Study:
        """Read the tensors one at a time and sum up their errors; raises UserError for NaN or infinity in one."""
        tensors = []
        for done, (name, matrices) in enumerate(self.matrices.items(), 1):
            tensors.append(_errors(name, matrices, pairs))
            progress(done)
        return Study(self.checkpoint.path, dict(self.checkpoint.metadata), pairs, tensors)


def _matrices(checkpoint: Checkpoint, everything: bool) -> dict[str, list[Matrix]]:
    found: dict[str, list[Matrix]] = {}
    for expert in find_experts(checkpoint, required=not everything):
        for matrix in expert.matrices:
            found.setdefault(matrix.tensor.name, []).append(matrix)
    if everything:
        for name, tensor in checkpoint.tensors.items():
            if is_float(tensor.dtype) and len(tensor.shape) > 1 and tensor.size:
                found.setdefault(name, [Matrix(tensor)])
    if not found:
        raise UserError(f"{checkpoint.path}: holds no float tensor of two axes or more")
    return found


def _errors(name: str, matrices: Sequence[Matrix], pairs: Sequence[Amat]) -> Errors:
    errors = Errors(name, sum(matrix.size for matrix in matrices), 0.0, np.zeros((len(pairs), len(METHODS))))
    for matrix in matrices:
        for block in _blocks(matrix, pairs[0].group):
            try:
                _add(errors, block, pairs)
            except ValueError as error:
                raise UserError(f"{matrix.tensor.path}: tensor {name}: {error}") from None
    return errors


def _blocks(matrix: Matrix, group: int) -> Iterator[Floats]:
    """Yield a matrix's weights in pieces of whole groups, the last one as it comes; a piece stays in the cache."""
    step = max(1, BLOCK // group) * group
    whole = matrix.floats().reshape(-1) if matrix.is_transposed else None
    for start in range(0, matrix.size, step):
        count = min(step, matrix.size - start)
        yield matrix.part(start, count) if whole is None else whole[start : start + count]


def _add(errors: Errors, weights: Floats, pairs: Sequence[Amat]) -> None:
    group, count = pairs[0].group, len(weights)
    grouped = np.pad(weights, (0, -count % group)).reshape(-1, group)
    codes = {bits: quantise(grouped, bits, group) for bits in {amat.high_bits for amat in pairs}}
    errors.signal += square_sum(weights)
    for pair, amat in enumerate(pairs):
        for number, method in enumerate(METHODS.values()):
            approximation = method.approximate(grouped, codes[amat.high_bits], amat)
            errors.noise[pair, number] += square_sum(approximation.reshape(-1)[:count] - weights)
