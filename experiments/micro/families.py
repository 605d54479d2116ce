"""The two micro models: routing geometry of the real ones, widths of a toy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

#: One AMAT group along each expert matrix's input.
HIDDEN = INNER = 32
CONTEXT = 256
HEADS = 4


@dataclass(frozen=True)
class Family:
    """How one micro model is configured and built."""

    model: str
    config: Callable[[dict[str, Any]], Any]
    build: Callable[[Any], Any]


def _deepseek_v2_lite(common: dict[str, Any]) -> DeepseekV2Config:
    return DeepseekV2Config(
        num_hidden_layers=27,
        first_k_dense_replace=1,
        n_routed_experts=64,
        num_experts_per_tok=6,
        n_shared_experts=2,
        norm_topk_prob=False,
        routed_scaling_factor=1.0,
        topk_method="greedy",
        scoring_func="softmax",
        q_lora_rank=None,
        kv_lora_rank=32,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=16,
        intermediate_size=8 * INNER,
        **common,
    )


def _qwen15_moe(common: dict[str, Any]) -> Qwen2MoeConfig:
    return Qwen2MoeConfig(
        num_hidden_layers=24,
        num_experts=60,
        num_experts_per_tok=4,
        shared_expert_intermediate_size=4 * INNER,
        norm_topk_prob=False,
        decoder_sparse_step=1,
        intermediate_size=4 * INNER,
        head_dim=16,
        **common,
    )


FAMILIES = {
    "deepseek-v2-lite": Family("deepseek-v2-lite", _deepseek_v2_lite, DeepseekV2ForCausalLM),
    "qwen1.5-moe-a2.7b": Family("qwen1.5-moe-a2.7b", _qwen15_moe, Qwen2MoeForCausalLM),
}


def build(family: Family, vocabulary: int, beginning: int, seed: int) -> Any:
    """Build the model in float32 with fresh weights. ``beginning``: the token that opens every text."""
    config = family.config(
        {
            "vocab_size": vocabulary,
            "hidden_size": HIDDEN,
            "moe_intermediate_size": INNER,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": CONTEXT,
            "bos_token_id": beginning,
            "eos_token_id": beginning,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "slicesim_micro_model": True,
            "slicesim_model": family.model,
            "license": "Apache-2.0",
        }
    )
    model = family.build(config)
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


@torch.no_grad()
def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all matrices anew: variance 1 / inputs, and what adds to the residual stream the less the deeper it is.

    Router weights of deviation 1.2 / sqrt(hidden) give logits of deviation 1.2: about as sharp as the real models' are.
    Scores are not renormalised, so K outputs weigh together about 0.17: routed experts start 3 times as large.
    """
    residual = 1 / math.sqrt(2 * model.config.num_hidden_layers)  # type: ignore[union-attr]
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            continue
        scale = 1 / math.sqrt(weight.shape[-1])
        if "embed_tokens" in name:
            scale = 0.5
        elif "lm_head" in name:
            scale *= 0.2
        elif name.endswith("experts.down_proj"):
            scale *= 3 * residual
        elif name.endswith("mlp.gate.weight"):
            scale *= 1.2
        elif "down_proj" in name or "o_proj" in name:
            scale *= residual
        weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
