"""All experts of a layer at once: transformers' loop over experts takes too long with small ones.

Tokens are sorted by expert into one padded batch [experts, capacity, hidden] and multiplied batch-wise. The gradient
is written out, as every gather of it is then a plain row selection (no scatter).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PaddedExperts(torch.autograd.Function):
    """Gated experts: sum over the K chosen of w * down(silu(gate(h)) * up(h))."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """hidden [T, d], gate_up [E, 2i, d], down [E, d, i], weights and chosen [T, K]; returns [T, d]."""
        tokens, top_k = chosen.shape
        experts, width = down.shape[:2]
        place, source, capacity = _places(chosen, experts)
        slot_weights = torch.zeros(experts * capacity)
        slot_weights[place] = weights.reshape(-1)
        x = _take_rows(hidden, source).view(experts, capacity, width)
        gate, up = (both := torch.bmm(x, gate_up.transpose(1, 2))).chunk(2, dim=2)
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        inner = silu * up
        out = torch.bmm(inner, down.transpose(1, 2)).view(-1, width).index_select(0, place).view(tokens, top_k, width)
        ctx.save_for_backward(x, gate_up, down, slot_weights, both, sigmoid, silu, inner, out, place, source)
        return torch.bmm(weights[:, None, :], out).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of hidden, gate_up, down and weights."""
        (grad,) = gradients
        x, gate_up, down, slot_weights, both, sigmoid, silu, inner, out, place, source = ctx.saved_tensors
        tokens, top_k, width = out.shape
        half = both.shape[2] // 2
        grad_weights = torch.bmm(out, grad[:, :, None]).squeeze(2)
        grad_out = _take_rows(grad, source).mul_(slot_weights[:, None]).view(x.shape)
        grad_inner = torch.bmm(grad_out, down)
        grad_down = torch.bmm(grad_out.transpose(1, 2), inner)
        grad_both = torch.empty_like(both)
        torch.mul(grad_inner, silu, out=grad_both[..., half:])
        # silu'(g) = s + silu(g) (1 - s)
        slope = torch.addcmul(sigmoid, silu, 1 - sigmoid)
        torch.mul(slope.mul_(both[..., half:]), grad_inner, out=grad_both[..., :half])
        grad_gate_up = torch.bmm(grad_both.transpose(1, 2), x)
        grad_x = torch.bmm(grad_both, gate_up).view(-1, width).index_select(0, place)
        return grad_x.view(tokens, top_k, width).sum(1), grad_gate_up, grad_down, grad_weights, None


def _places(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor, int]:
    """Return each choice's slot [T * K], each slot's token [E * capacity] (T: none), and the capacity."""
    tokens, top_k = chosen.shape
    flat = chosen.reshape(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=experts)
    capacity = int(counts.max())
    shift = torch.arange(experts) * capacity - (counts.cumsum(0) - counts)
    slots = torch.arange(len(flat)) + shift.index_select(0, flat.index_select(0, order))
    place = torch.empty_like(order)
    place[order] = slots
    source = torch.full((experts * capacity,), tokens)
    source[slots] = order // top_k
    return place, source, capacity


def _take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Take rows by index; the index one past the end gives zeros."""
    return torch.cat((rows, rows.new_zeros(1, rows.shape[1]))).index_select(0, index)


def compute_in_batches(model: nn.Module) -> None:
    """Give the experts of every MoE layer the forward above; parameters and checkpoint stay as they are."""
    for module in model.modules():
        if hasattr(module, "gate_up_proj") and isinstance(module.gate_up_proj, nn.Parameter):
            module.forward = _forward_of(module)  # type: ignore[method-assign]


def _forward_of(experts: Any) -> Any:
    def forward(hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        return PaddedExperts.apply(hidden, experts.gate_up_proj, experts.down_proj, weights, chosen)  # type: ignore[no-any-return,no-untyped-call]

    return forward
