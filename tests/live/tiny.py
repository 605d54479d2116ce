"""Tiny models of the six families, with random weights, and a word-level tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

VOCABULARY = 97
CONTEXT = 128
WORDS = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(VOCABULARY - 3))]

_COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 3, "max_position_embeddings": CONTEXT, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0, "initializer_range": 0.3, "tie_word_embeddings": False,
}  # fmt: skip


def _deepseek(**more: Any) -> Any:
    latent = {"kv_lora_rank": 16, "q_lora_rank": None, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {"n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2, "moe_intermediate_size": 24}
    rest = {"first_k_dense_replace": 1, "intermediate_size": 48, "routed_scaling_factor": 1.5}
    settings = {**_COMMON, "num_key_value_heads": 4, **latent, **experts, **rest, "topk_method": "greedy", **more}
    return DeepseekV2ForCausalLM(DeepseekV2Config(**settings))


def _deepseek_groups() -> Any:
    return _deepseek(topk_method="group_limited_greedy", n_group=4, topk_group=2)


def _qwen2() -> Any:
    sizes = {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 40, "intermediate_size": 48}
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False}
    return Qwen2MoeForCausalLM(Qwen2MoeConfig(**_COMMON, **sizes, **experts, decoder_sparse_step=1))


def _qwen3() -> Any:
    experts = {"num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True, "moe_intermediate_size": 24}
    dense = {"mlp_only_layers": [1], "intermediate_size": 48}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**_COMMON, **experts, **dense, head_dim=8))


def _olmoe() -> Any:
    experts = {"num_experts": 8, "num_experts_per_tok": 4, "intermediate_size": 24, "norm_topk_prob": False}
    return OlmoeForCausalLM(OlmoeConfig(**_COMMON, **experts))


def _mixtral() -> Any:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 24, "sliding_window": None}
    return MixtralForCausalLM(MixtralConfig(**_COMMON, **experts))


def _gpt_oss(**more: Any) -> Any:
    experts = {"num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 24, "sliding_window": 8}
    # transformers looks for the factor in original_max_position_embeddings, which a tiny context must keep to.
    rope = {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 2.0,
        "original_max_position_embeddings": CONTEXT // 2,
    }
    return GptOssForCausalLM(GptOssConfig(**{**_COMMON, **experts, "head_dim": 8, "rope_parameters": rope, **more}))


FAMILIES = {
    "deepseek-v2": _deepseek, "deepseek-v2-groups": _deepseek_groups, "qwen2-moe": _qwen2, "olmoe": _olmoe,
    "mixtral": _mixtral, "qwen3-moe": _qwen3, "gpt-oss": _gpt_oss,
}  # fmt: skip


def build(family: str, **more: Any) -> Any:
    """Return a model with seeded weights: nothing is zero, so every operation shows in the output."""
    torch.manual_seed(7)
    model = FAMILIES[family](**more)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def save(family: str, folder: Path, **config: Any) -> Path:
    """Write model (safetensors) and tokenizer; ``config`` adds entries to config.json."""
    build(family).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    add_config(folder, **config)
    return folder


def add_config(folder: Path, **config: Any) -> None:
    """Add entries to a model's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer for words w0, w1, ... that stand apart."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
