"""Figures of a micro model: held-out loss, load of its experts, sharpness of its router."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Routers:
    """Within ``with``: the router logits [T, E] and chosen experts [T, K] of every MoE layer, in order."""

    def __init__(self, model: Any) -> None:
        self._gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "experts")]
        self._hooks: list[Any] = []

    def __enter__(self) -> list[tuple[Tensor, Tensor]]:
        found: list[tuple[Tensor, Tensor]] = []
        keep = lambda module, inputs, out: found.append((out[0], out[2]))  # noqa: E731
        self._hooks = [gate.register_forward_hook(keep) for gate in self._gates]
        return found

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()


def balance_loss(logits: Tensor, chosen: Tensor) -> Tensor:
    """Return E * sum over experts of (share of choices * mean score): 1 when balanced (Switch Transformers, eq. 4)."""
    experts = logits.shape[1]
    share = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
    return experts * (share * logits.softmax(1).mean(0)).sum()


@torch.no_grad()
def loss(model: Any, windows: Tensor, batch: int = 8) -> float:
    """Return the mean cross-entropy per token, in nats, of windows [N, L]; the first token of each is given."""
    model.eval()
    total = 0.0
    for part in windows.split(batch):
        logits = model(part, use_cache=False).logits[:, :-1].float()
        total += cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    return total / (len(windows) * (windows.shape[1] - 1))


@torch.no_grad()
def routing(model: Any, windows: Tensor) -> dict[str, float]:
    """Return figures of the routing on windows [N, L]: means over layers, but for the load, of which the extremes."""
    model.eval()
    with Routers(model) as found:
        model(windows, use_cache=False)
    scores = [logits.float().softmax(1) for logits, _ in found]
    chosen = [each for _, each in found]
    loads = torch.stack(
        [torch.bincount(own.flatten(), minlength=every.shape[1]) for own, every in zip(chosen, scores, strict=True)]
    ).double()
    relative = loads / loads.mean(1, keepdim=True)
    taken = [every.gather(1, own) for every, own in zip(scores, chosen, strict=True)]
    return {
        "dead experts": int((loads == 0).sum()),
        "least load / mean": relative.min().item(),
        "greatest load / mean": relative.max().item(),
        "greatest load / mean, mean over layers": relative.amax(1).mean().item(),
        "reuse at lag 1": _mean([_reuse(own, every, windows) for own, every in zip(chosen, scores, strict=True)]),
        "score of rank 1": _mean([each.amax(1).mean().item() for each in taken]),
        "mass of the top K": _mean([each.sum(1).mean().item() for each in taken]),
        "critical experts (score >= 0.1)": _mean([(each >= 0.1).sum(1).double().mean().item() for each in taken]),
    }


def _reuse(chosen: Tensor, scores: Tensor, windows: Tensor) -> float:
    """Return the share of a token's experts that the next one takes again."""
    picked = torch.zeros_like(scores).scatter_(1, chosen, 1.0).view(*windows.shape, -1)
    return (picked[:, 1:] * picked[:, :-1]).sum(2).mean().item() / chosen.shape[1]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
