"""Where the weights of the experts in the loop come from: as they are, or rebuilt from AMAT codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from slicesim.amat import dequantise, quantise, truncate
from slicesim.errors import UserError
from slicesim.live.blocks import ChooseWeights, MoeBlock
from slicesim.live.layouts import ExpertWeights, Matrices
from slicesim.quality.files import PackedExperts, fused
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


class RebuiltBank(ABC):
    """Weights rebuilt from codes: all bits, or the MSB slice alone. Biases stay as they are.

    keep_bytes: of rebuilt weights that are kept for the next token, the last used ones; None keeps all.
    """

    has_precisions = True

    def __init__(self, keep_bytes: int | None = None) -> None:
        self.keep_bytes = keep_bytes
        self._kept: OrderedDict[tuple[int, int, bool], ExpertWeights] = OrderedDict()
        self._kept_bytes = 0

    @abstractmethod
    def rebuild(self, block: MoeBlock, expert: int, high: bool) -> ExpertWeights:
        """Return one expert's weights; raises ValueError where there is no code for them."""

    def weights(self, block: MoeBlock, expert: int, high: bool) -> ExpertWeights:
        """Return one expert's weights at high or at low precision."""
        key = (block.layer, expert, high)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        try:
            self._kept[key] = weights = self.rebuild(block, expert, high)
        except ValueError as error:
            raise UserError(f"layer {block.layer}, expert {expert}: no AMAT code ({error})") from None
        self._kept_bytes += _bytes(weights)
        while self.keep_bytes is not None and self._kept_bytes > self.keep_bytes and len(self._kept) > 1:
            self._kept_bytes -= _bytes(self._kept.popitem(last=False)[1])
        return weights


class AmatBank(RebuiltBank):
    """Quantises an expert when it is first asked for."""

    def __init__(self, amat: Amat, source: Source = loaded, keep_bytes: int | None = None) -> None:
        super().__init__(keep_bytes)
        self.amat = amat
        self.source = source

    def rebuild(self, block: MoeBlock, expert: int, high: bool) -> ExpertWeights:
        """Quantise along the rows, and read the codes back."""
        original = self.source(block, expert)
        matrices = (self._rebuilt(matrix, high) for matrix in block.layout.matrices(original))
        return block.layout.fused(Matrices(*matrices), like=original)

    def _rebuilt(self, matrix: Tensor, high: bool) -> Tensor:
        amat = self.amat
        code = quantise(matrix.detach().float().cpu().numpy(), amat.high_bits, amat.group)
        if not high:
            code = truncate(code, amat.high_bits - amat.low_bits)
        return torch.from_numpy(dequantise(code, tuple(matrix.shape))).to(matrix.dtype)


class PackedBank(RebuiltBank):
    """Reads slices from a file of ``slicesim amat pack``: the MSB slice, and the LSB slice for high precision.

    dtype: of the weights that are handed out. Raises UserError where the file was packed with other bits or lacks an
    expert.
    """

    def __init__(self, packed: Path, amat: Amat, dtype: torch.dtype, keep_bytes: int | None = None) -> None:
        super().__init__(keep_bytes)
        self.file = PackedExperts(packed)
        self.dtype = dtype
        own = self.file.header.amat
        if own != amat:
            raise UserError(
                f"{packed}: packed as {own.high_bits}/{own.low_bits}, group {own.group}; the scenario has "
                f"{amat.high_bits}/{amat.low_bits}, group {amat.group}"
            )

    def rebuild(self, block: MoeBlock, expert: int, high: bool) -> ExpertWeights:
        """Read the slices, and the codes from them."""
        return fused(self.file.matrices(block.layer, expert, high), self.dtype)


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
