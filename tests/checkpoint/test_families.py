"""Checkpoints as transformers saves them: the routed experts of all six families are found, whole and nothing else."""

from __future__ import annotations

import pytest

from slicesim.checkpoint import find_experts, open_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LAYERS, EXPERTS, HIDDEN, INNER = 2, 4, 16, 24
COMMON = {
    "vocab_size": 32, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "num_key_value_heads": 2, "num_experts_per_tok": 2,
}  # fmt: skip
FAMILIES = {
    "DeepseekV2": {
        "n_routed_experts": EXPERTS, "moe_intermediate_size": INNER, "intermediate_size": 20,
        "first_k_dense_replace": 1, "n_shared_experts": 1, "kv_lora_rank": 8, "q_lora_rank": None,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
        "v_head_dim": 8, "n_group": 1, "topk_group": 1,
    },
    "Qwen2Moe": {"num_experts": EXPERTS, "moe_intermediate_size": INNER, "shared_expert_intermediate_size": 20},
    "Qwen3Moe": {"num_experts": EXPERTS, "moe_intermediate_size": INNER, "head_dim": 8},
    "Olmoe": {"num_experts": EXPERTS, "intermediate_size": INNER},
    "Mixtral": {"num_local_experts": EXPERTS, "intermediate_size": INNER},
    "GptOss": {"num_local_experts": EXPERTS, "intermediate_size": INNER, "head_dim": 8},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_as_saved(tmp_path, family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**COMMON, **FAMILIES[family])
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    layers = range(1 if family == "DeepseekV2" else 0, LAYERS)
    experts = find_experts(open_checkpoint(tmp_path))
    assert [(e.layer, e.number) for e in experts] == [(layer, n) for layer in layers for n in range(EXPERTS)]
    assert all(e.size == 3 * HIDDEN * INNER for e in experts)
    for expert in experts:
        down = expert.matrices[-1].floats()
        assert down.shape == (HIDDEN, INNER)
        held = model.get_parameter(f"model.layers.{expert.layer}.mlp.experts.down_proj")[expert.number].float()
        assert torch.equal(torch.from_numpy(down), held.T if family == "GptOss" else held)
