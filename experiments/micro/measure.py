"""Figures of a micro model: held-out loss, load of its experts, sharpness of its router."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


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
        total += F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    return total / (len(windows) * (windows.shape[1] - 1))


@torch.no_grad()
def routing(model: Any, windows: Tensor) -> dict[str, float]:
    """Return figures of the routing on windows [N, L], means over layers unless the name says otherwise."""
    model.eval()
    with Routers(model) as found:
        model(windows, use_cache=False)
    rows = []
    for logits, chosen in found:
        experts = logits.shape[1]
        scores = logits.float().softmax(1)
        load = torch.bincount(chosen.flatten(), minlength=experts).double()
        picked = torch.zeros_like(scores).scatter_(1, chosen, 1.0).view(*windows.shape, experts)
        rows.append(
            {
                "load_max_over_mean": (load.max() / load.mean()).item(),
                "load_min_over_mean": (load.min() / load.mean()).item(),
                "dead_experts": (load == 0).sum().item(),
                "reuse_lag_1": ((picked[:, 1:] * picked[:, :-1]).sum(2).mean() / chosen.shape[1]).item(),
                "top_1_score": scores.amax(1).mean().item(),
                "top_k_mass": scores.gather(1, chosen).sum(1).mean().item(),
                "critical_experts": (scores.gather(1, chosen) >= 0.1).sum(1).double().mean().item(),
            }
        )
    return {
        key: (sum if key == "dead_experts" else max if "max" in key else min if "min" in key else _mean)(
            [row[key] for row in rows]
        )
        for key in rows[0]
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
