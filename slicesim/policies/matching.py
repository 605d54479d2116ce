"""Prefetch by the likeness of whole sequences: activation matrices that are filed and matched."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from slicesim.compiled import register_jitable
from slicesim.policies.prediction import add_points, begin_points, count_slices
from slicesim.policies.prefetch import ReadAhead
from slicesim.policies.slices import MSB, FloatArray, IntArray


class Matrices(NamedTuple):
    """present: the matrix under way, counts [layers, experts, kind of slice]; filed: past ones, [kept, as present].

    squares: squared length of each row of MSB counts, [kept + 1, layers], the last of the present matrix; products: of
    the present rows with the filed ones, [kept, layers]; tally: how many are filed, tokens in the present one.
    """

    present: FloatArray
    filed: FloatArray
    squares: FloatArray
    products: FloatArray
    tally: IntArray


class ActivationMatching(ReadAhead):
    """The coming layer's experts in the past sequence whose routing is most like that of the present one.

    An activation matrix counts requests by layer and expert over a sequence. Likeness of a filed matrix = mean over the
    layers seen so far of the cosine between its row and the present one (MSB requests). Points = the best match's
    counts in the coming layer. A matrix is filed when its request ends, or every ``matrix_tokens`` tokens; where
    ``kept`` are filed already, it takes the place of its best match. Source: MoE-Infinity (arXiv 2401.14361), expert
    activation matrices and their collection. Simplified: decode tokens alone are counted, not the prompt; the
    priorities of layers further ahead follow from the order of reading, nearest layer first.
    Checked by: tests/decide/test_predictions.py (by hand), tests/parity/test_prefetch_decisions.py.
    """

    name: ClassVar[str] = "activation-matching"
    kept: int = Field(64, ge=1, description="matrices in the collection, at most")
    matrix_tokens: int = Field(0, ge=0, description="decode tokens of a matrix; 0: all of a request's")

    def memory(self, layers: int, experts: int, top_k: int, seed: int) -> Matrices:
        """Nothing filed."""
        return Matrices(
            present=np.zeros((layers, experts, 2)),
            filed=np.zeros((self.kept, layers, experts, 2)),
            squares=np.zeros((self.kept + 1, layers)),
            products=np.zeros((self.kept, layers)),
            tally=np.zeros(2, dtype=np.int64),
        )

    def begin_request(self, memory: Any) -> None:
        """File the matrix of the request before."""
        file_matrix(memory)

    def learn(self, memory: Any, layer: int, slots: Any, before: Any, tally: Any) -> None:
        """Enter a batch in the present matrix, and keep its products with the filed ones."""
        if layer == 0:
            if self.matrix_tokens > 0 and memory.tally[1] == self.matrix_tokens:
                file_matrix(memory)
            memory.tally[1] += 1
        for slot in slots:
            memory.squares[-1, layer] += 2.0 * memory.present[layer, slot.expert, MSB] + 1.0
            for place in range(memory.tally[0]):
                memory.products[place, layer] += memory.filed[place, layer, slot.expert, MSB]
        count_slices(memory.present[layer], slots)

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Points are the best match's counts."""
        best = best_match(memory)
        if best < 0:
            return 0
        begin_points(guesses)
        add_points(guesses, memory.filed[best, layer], 1.0)
        return len(guesses)


# What follows is compiled with the strategy.


@register_jitable  # type: ignore[untyped-decorator]
def best_match(memory: Any) -> int:
    """Return the place of the filed matrix that is most like the present one, -1 where none is like it at all."""
    best, highest = -1, 0.0
    for place in range(memory.tally[0]):
        likeness = 0.0
        for layer in range(memory.products.shape[1]):
            lengths = memory.squares[place, layer] * memory.squares[-1, layer]
            if lengths > 0.0:
                likeness += memory.products[place, layer] / np.sqrt(lengths)
        if likeness > highest:
            best, highest = place, likeness
    return best


@register_jitable  # type: ignore[untyped-decorator]
def file_matrix(memory: Any) -> None:
    """Put the present matrix into the collection, and begin a new one."""
    present, filed, squares, products, tally = memory
    if tally[1] == 0:
        return
    if tally[0] < len(filed):
        place = tally[0]
        tally[0] += 1
    else:
        place = max(best_match(memory), 0)
    for layer in range(present.shape[0]):
        squares[place, layer], squares[-1, layer] = squares[-1, layer], 0.0
        for other in range(len(products)):
            products[other, layer] = 0.0
        for expert in range(present.shape[1]):
            for kind in range(2):
                filed[place, layer, expert, kind] = present[layer, expert, kind]
                present[layer, expert, kind] = 0.0
    tally[1] = 0
