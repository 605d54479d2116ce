"""Cycles of a matrix product on a systolic array, in closed form (SCALE-Sim, Samajdar et al., ISPASS 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SystolicArray:
    """An array of multiply-accumulate cells and what stays in them: weights or outputs.

    A product of M x K activations with K x N weights is cut into folds that fit the array, one after another:

    - weight-stationary: K on rows, N on columns. A fold loads its weights row by row (``rows`` cycles), streams the
      M rows of activations through, and drains (rows + columns - 2: the wave's way through the array):
      cycles = ceil(K / rows) ceil(N / columns) (rows + M + rows + columns - 2).
    - output-stationary: M on rows, N on columns. A fold streams K, the wave takes rows + columns - 2 to cross, and the
      results are shifted out (``rows``): cycles = ceil(M / rows) ceil(N / columns) (K + rows + columns - 2 + rows).
    """

    rows: int
    columns: int
    dataflow: Literal["weight-stationary", "output-stationary"]

    def folds(self, m: int, n: int, k: int) -> int:
        """Pieces that the product is cut into."""
        along = k if self.dataflow == "weight-stationary" else m
        return -(-along // self.rows) * -(-n // self.columns)

    def cycles(self, m: int, n: int, k: int) -> int:
        """Cycles of the whole product, memory never in the way. M = 1: a token's GEMV; M = tokens: prefill."""
        streamed = m if self.dataflow == "weight-stationary" else k
        return self.folds(m, n, k) * (2 * self.rows + self.columns - 2 + streamed)

    def utilisation(self, m: int, n: int, k: int) -> float:
        """Share of the array's multiply-accumulates that do work."""
        return m * n * k / (self.cycles(m, n, k) * self.rows * self.columns)
