"""Where the weights of the experts in the loop come from: as they are, or rebuilt from AMAT codes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from slicesim.amat import dequantise, quantise, truncate
from slicesim.errors import UserError
from slicesim.live.blocks import ChooseWeights, MoeBlock
from slicesim.live.layouts import ExpertWeights, Matrices
from slicesim.scenario.schema import Amat

#: (block, expert) -> the expert's full-precision weights: views of the loaded model's, or read from its files.
Source = Callable[[MoeBlock, int], ExpertWeights]


def loaded(block: MoeBlock, expert: int) -> ExpertWeights:
    """The source of a model that lies in memory: its own tensors."""
    return block.expert_weights(expert)


class ExpertBank(Protocol):
    """Hands out an expert's weights. has_precisions: they depend on the precision that was decided."""

    has_precisions: bool

    def weights(self, block: MoeBlock, expert: int, high: bool) -> ExpertWeights:
        """Return one expert's weights at high or at low precision."""


class OriginalBank:
    """Full precision whatever was decided: shows what routing alone does."""

    has_precisions = False

    def __init__(self, source: Source = loaded) -> None:
        self.source = source

    def weights(self, block: MoeBlock, expert: int, high: bool) -> ExpertWeights:
        """Return the original weights."""
        return self.source(block, expert)


class AmatBank:
    """Weights rebuilt from AMAT's code: all bits, or the MSB slice alone. Biases stay as they are.

    keep_bytes: of rebuilt weights that are kept for the next token, the last used ones; None keeps all.
    """

    has_precisions = True

    def __init__(self, amat: Amat, source: Source = loaded, keep_bytes: int | None = None) -> None:
        self.amat = amat
        self.source = source
        self.keep_bytes = keep_bytes
        self._kept: OrderedDict[tuple[int, int, bool], ExpertWeights] = OrderedDict()
        self._kept_bytes = 0

    def weights(self, block: MoeBlock, expert: int, high: bool) -> ExpertWeights:
        """Return one expert's weights at high or at low precision."""
        key = (block.layer, expert, high)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        original = self.source(block, expert)
        try:
            rebuilt = Matrices(*(self._rebuilt(matrix, high) for matrix in block.layout.matrices(original)))
        except ValueError as error:
            raise UserError(f"layer {block.layer}, expert {expert}: cannot be quantised ({error})") from None
        self._kept[key] = weights = block.layout.fused(rebuilt, like=original)
        self._kept_bytes += _bytes(weights)
        while self.keep_bytes is not None and self._kept_bytes > self.keep_bytes and len(self._kept) > 1:
            self._kept_bytes -= _bytes(self._kept.popitem(last=False)[1])
        return weights

    def _rebuilt(self, matrix: Tensor, high: bool) -> Tensor:
        """Quantise along the rows, and read the code back."""
        amat = self.amat
        code = quantise(matrix.detach().float().cpu().numpy(), amat.high_bits, amat.group)
        if not high:
            code = truncate(code, amat.high_bits - amat.low_bits)
        return torch.from_numpy(dequantise(code, tuple(matrix.shape))).to(matrix.dtype)


def chooser(bank: ExpertBank, ids: Tensor, high: Tensor) -> ChooseWeights:
    """Return what gives each expert its weights, and splits its rows by precision where they differ.

    ids, high (bool): [tokens, slots].
    """

    def choose(block: MoeBlock, expert: int, token: Tensor) -> list[tuple[Any, ExpertWeights]]:
        is_high = (high & (ids == expert)).any(dim=1)[token]
        if not bank.has_precisions or bool(is_high.all()) or not bool(is_high.any()):
            return [(slice(None), bank.weights(block, expert, bool(is_high[0])))]
        return [(torch.where(is_high == wanted)[0], bank.weights(block, expert, wanted)) for wanted in (False, True)]

    return choose


def _bytes(weights: ExpertWeights) -> int:
    return int(weights.gate_up.nbytes + weights.down.nbytes)
