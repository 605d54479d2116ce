"""How a MoE layer stores its experts' matrices, and what one expert computes from them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Matrices(NamedTuple):
    """One expert's matrices as [out, in]: gate and up projection [inner, hidden], down projection [hidden, inner]."""

    gate_proj: Tensor
    up_proj: Tensor
    down_proj: Tensor


class ExpertWeights(NamedTuple):
    """One expert as its layer stores it: gate and up projection fused, and biases where the family has them."""

    gate_up: Tensor
    down: Tensor
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None


class ExpertLayout(Protocol):
    """One way of storing experts."""

    def weights(self, experts: nn.Module, expert: int) -> ExpertWeights:
        """Return views of one expert's part of the layer's tensors."""

    def matrices(self, weights: ExpertWeights) -> Matrices:
        """Return the three matrices as views [out, in]."""

    def fused(self, matrices: Matrices, like: ExpertWeights) -> ExpertWeights:
        """Lay matrices out as the layer does, in the type of ``like``, with its biases."""

    def forward(self, experts: nn.Module, weights: ExpertWeights, hidden: Tensor) -> Tensor:
        """Return the expert's output [tokens, hidden], by the very operations of transformers' eager experts."""


def stored(module: nn.Module, name: str) -> Tensor:
    """Return a module's tensor; one that accelerate has off-loaded is read from disk, whole, at each call."""
    tensor: Tensor = getattr(module, name)
    return module._hf_hook.weights_map[name] if tensor.is_meta else tensor


class Concatenated:
    """Gate above up in one [2 x inner, hidden] matrix, an activation by name: all families but gpt-oss."""

    def weights(self, experts: nn.Module, expert: int) -> ExpertWeights:
        """Return views of one expert's part of the layer's tensors."""
        return ExpertWeights(stored(experts, "gate_up_proj")[expert], stored(experts, "down_proj")[expert])

    def matrices(self, weights: ExpertWeights) -> Matrices:
        """Return the three matrices as views [out, in]."""
        gate, up = weights.gate_up.chunk(2, dim=0)
        return Matrices(gate, up, weights.down)

    def fused(self, matrices: Matrices, like: ExpertWeights) -> ExpertWeights:
        """Lay matrices out as the layer does, in the type of ``like``."""
        gate_up = torch.cat((matrices.gate_proj, matrices.up_proj), dim=0)
        return ExpertWeights(gate_up.to(like.gate_up), matrices.down_proj.to(like.down))

    def forward(self, experts: nn.Module, weights: ExpertWeights, hidden: Tensor) -> Tensor:
        """Return act(x gate^T) * (x up^T), times down^T."""
        # One product with the fused matrix: two with its halves may differ in the last bit.
        gate, up = nn.functional.linear(hidden, weights.gate_up).chunk(2, dim=-1)
        return nn.functional.linear(experts.act_fn(gate) * up, weights.down)


class Interleaved:
    """gpt-oss: [hidden, 2 x inner] with gate and up in turn, [inner, hidden] down, biases, clamped SwiGLU."""

    def weights(self, experts: nn.Module, expert: int) -> ExpertWeights:
        """Return views of one expert's part of the layer's tensors."""
        names = ("gate_up_proj", "down_proj", "gate_up_proj_bias", "down_proj_bias")
        return ExpertWeights(*(stored(experts, name)[expert] for name in names))

    def matrices(self, weights: ExpertWeights) -> Matrices:
        """Return the three matrices as views [out, in]."""
        return Matrices(weights.gate_up[:, ::2].T, weights.gate_up[:, 1::2].T, weights.down.T)

    def fused(self, matrices: Matrices, like: ExpertWeights) -> ExpertWeights:
        """Lay matrices out as the layer does, in the type of ``like``, with its biases."""
        gate_up = torch.stack((matrices.gate_proj.T, matrices.up_proj.T), dim=-1).flatten(-2)
        down = matrices.down_proj.T.contiguous()
        return ExpertWeights(gate_up.to(like.gate_up), down.to(like.down), like.gate_up_bias, like.down_bias)

    def forward(self, experts: nn.Module, weights: ExpertWeights, hidden: Tensor) -> Tensor:
        """Return the clamped SwiGLU of x gate_up + bias, times down, + bias."""
        gated = experts._apply_gate(hidden @ weights.gate_up + weights.gate_up_bias)
        return gated @ weights.down + weights.down_bias
