"""The families of MoE models that slicesim runs, each by its public class in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from slicesim.errors import UserError
from slicesim.live.blocks import MoeBlock
from slicesim.live.layouts import ExpertLayout, Interleaved


class DeepseekV2(MoeBlock):
    """Softmax scores as they are, times a factor; shared experts. The choice is greedy or limited to groups."""

    def combining_weights(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return score x routed_scaling_factor."""
        return self.gate_scores(logits, ids) * self.router.routed_scaling_factor

    def shared_output(self, hidden: Tensor) -> Tensor:
        """Return the output of the shared experts, which are one wide expert."""
        return self.module.shared_experts(hidden)


class Mixtral(MoeBlock):
    """Softmax scores, scaled to sum to 1 over the top-k."""

    def combining_weights(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return score / sum of scores."""
        scores = self.gate_scores(logits, ids)
        return scores / scores.sum(dim=-1, keepdim=True)


class Olmoe(MoeBlock):
    """Softmax scores, scaled to sum to 1 over the top-k if the config says so; OLMoE and Qwen3-MoE."""

    def combining_weights(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return score, or score / sum of scores, in the model's type."""
        scores = self.gate_scores(logits, ids)
        if self.router.norm_topk_prob:
            scores = scores / scores.sum(dim=-1, keepdim=True)
        return scores.to(self.router.weight.dtype)


class Qwen2Moe(Olmoe):
    """As OLMoE, with a shared expert behind a gate of its own (Qwen1.5-MoE, Qwen2-MoE)."""

    def shared_output(self, hidden: Tensor) -> Tensor:
        """Return sigmoid(gate) x shared expert."""
        shared = self.module.shared_expert(hidden)
        return nn.functional.sigmoid(self.module.shared_expert_gate(hidden)) * shared


class GptOss(MoeBlock):
    """Softmax over the chosen logits alone."""

    score_kind: ClassVar[Literal["softmax", "renormalised"]] = "renormalised"
    layout: ClassVar[ExpertLayout] = Interleaved()

    @property
    def router(self) -> nn.Module:
        """The module that returns (logits, weights, ids)."""
        return self.module.router

    def gate_scores(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return the softmax (float32) over the chosen experts' logits."""
        return logits.gather(-1, ids).softmax(dim=-1, dtype=torch.float32)

    def combining_weights(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return the softmax over the chosen experts' logits, in the model's type."""
        return self.gate_scores(logits, ids).to(self.router.weight.dtype)

    def _returned(self, output: Tensor) -> Any:
        return output, None  # the decoder layer throws the router's scores away


FAMILIES: Mapping[type[nn.Module], type[MoeBlock]] = {
    DeepseekV2Moe: DeepseekV2,
    GptOssMLP: GptOss,
    MixtralSparseMoeBlock: Mixtral,
    OlmoeSparseMoeBlock: Olmoe,
    Qwen2MoeSparseMoeBlock: Qwen2Moe,
    Qwen3MoeSparseMoeBlock: Olmoe,
}


def moe_blocks(model: PreTrainedModel) -> list[MoeBlock]:
    """Return the MoE blocks, layers rising. Raises UserError where the model has none of a known family."""
    found = [
        FAMILIES[type(module)](module, layer)
        for layer, decoder_layer in enumerate(model.get_decoder().layers)
        for module in decoder_layer.children()
        if type(module) in FAMILIES
    ]
    if not found:
        known = ", ".join(sorted(kind.__name__ for kind in FAMILIES))
        raise UserError(f"{type(model).__name__} has no MoE block that slicesim knows (known: {known})")
    return found
