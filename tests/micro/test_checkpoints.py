"""The shipped checkpoints: small enough for git, with the real models' routing geometry, and called what they are."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest

from slicesim.models import load_model
from tests.micro.files import FOLDER, config, each_model, figures, tensors

#: Per checkpoint, weights and tokenizer together.
MOST_BYTES = 12_000_000


@each_model
def test_a_checkpoint_is_at_most_12_mb(name):
    files = [FOLDER / name / file for file in ("model.safetensors", "tokenizer.json", "config.json")]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


@each_model
def test_no_pickle_lies_there(name):
    assert {file.suffix for file in (FOLDER / name).iterdir()} <= {".json", ".safetensors", ".csv"}


@each_model
def test_the_config_says_micro_model(name):
    own = config(name)
    assert own["slicesim_micro_model"] is True
    assert own["slicesim_model"] == name


@each_model
def test_the_routing_geometry_is_the_real_models(name):
    own, real = config(name), load_model(name)
    assert own.get("n_routed_experts", own.get("num_experts")) == real.experts
    assert own["num_experts_per_tok"] == real.top_k
    assert own["num_hidden_layers"] == real.layers
    assert own.get("first_k_dense_replace", 0) == real.dense_layers
    assert own["norm_topk_prob"] is False
    # Shared experts are as wide, beside a routed one, as in the real model.
    shared = own.get("shared_expert_intermediate_size") or own["n_shared_experts"] * own["moe_intermediate_size"]
    assert shared / own["moe_intermediate_size"] == real.shared_inner / real.expert_inner


def test_deepseek_takes_the_best_without_groups_or_scaling():
    own = config("deepseek-v2-lite")
    assert (own["topk_method"], own["routed_scaling_factor"], own["n_shared_experts"]) == ("greedy", 1.0, 2)
    assert own["q_lora_rank"] is None


@each_model
def test_every_expert_has_three_matrices_of_whole_groups(name):
    """Widths are multiples of 32, AMAT's group along the input: 32 x 32 = 1024 weights = 32 groups a matrix."""
    real = load_model(name)
    found = {key: value for key, value in tensors(name).items() if ".mlp.experts." in key}
    layers = {int(re.search(r"layers\.(\d+)\.", key)[1]) for key in found}
    assert layers == set(real.moe_layers)
    assert len(found) == len(layers) * real.experts * 3
    assert {tuple(tensor["shape"]) for tensor in found.values()} == {(32, 32)}
    assert {tensor["dtype"] for tensor in found.values()} == {"F16"}


@each_model
def test_all_weights_are_finite(name):
    first = 8 + int.from_bytes((FOLDER / name / "model.safetensors").read_bytes()[:8], "little")
    weights = np.fromfile(FOLDER / name / "model.safetensors", dtype="<f2", offset=first)
    assert weights.size == sum(np.prod(tensor["shape"]) for tensor in tensors(name).values())
    assert np.isfinite(weights).all()


@each_model
def test_no_expert_is_dead_on_held_out_text(name):
    routing = figures(name)["routing"]
    assert figures(name)["held_out_tokens"] >= 5000
    assert routing["dead experts"] == 0
    assert 0 < routing["least load / mean"] < 1 < routing["greatest load / mean"]


@each_model
def test_routed_experts_and_their_bits_count(name):
    """8 bits are as good as full precision, 2 are not; without routed experts the model is lost."""
    perplexity = figures(name)["perplexity"]
    full = perplexity["full precision"]
    assert perplexity["experts at 8 bits"] == pytest.approx(full, rel=0.001)
    by_bits = [perplexity[f"experts at {bits} bits"] for bits in (4, 3, 2)]
    assert by_bits == sorted(by_bits)
    assert by_bits[-1] > 1.05 * full
    assert perplexity["routed experts off"] > 10 * full


@each_model
def test_the_loss_curve_goes_down_and_ends_at_the_last_step(name):
    with (FOLDER / name / "loss.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    held_out = [float(row["held_out_loss"]) for row in rows if row["held_out_loss"]]
    assert held_out[-1] == min(held_out) < 0.85 * held_out[0]
    assert rows[-1]["held_out_loss"]
    assert [int(row["tokens"]) for row in rows] == [int(row["step"]) * 4 * 256 for row in rows]


@each_model
def test_the_readme_states_the_measured_figures(name):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    found = figures(name)
    for value in (found["held_out_loss"], *found["perplexity"].values()):
        assert f"{value:.4g}" in text
