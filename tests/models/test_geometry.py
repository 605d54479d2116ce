"""Sizes that follow from the geometry (semantics, section 3)."""

from __future__ import annotations

import pytest

from slicesim.errors import UserError
from slicesim.models import int8_bytes, load_model, slice_bytes
from slicesim.models.geometry import shipped_models
from tests.kit import EXPERT_BYTES, LSB_BYTES, MSB_BYTES, tiny_model

#: Published totals, in billions of weights.
TOTALS = {
    "deepseek-v2-lite": 15.7,
    "qwen1.5-moe-a2.7b": 14.3,
    "olmoe-1b-7b": 6.9,
    "mixtral-8x7b": 46.7,
    "qwen3-30b-a3b": 30.5,
    "gpt-oss-20b": 20.9,
    "gpt-oss-120b": 116.8,
}


def test_all_shipped_models_are_checked():
    assert set(shipped_models()) == set(TOTALS)


@pytest.mark.parametrize(("name", "billions"), TOTALS.items())
def test_total_weights(name, billions):
    assert load_model(name).total_weights == pytest.approx(billions * 1e9, rel=0.01)


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "qwen1.5-moe-a2.7b"])
def test_one_expert(name):
    assert load_model(name).expert_weights == 3 * 2048 * 1408 == 8_650_752


@pytest.mark.parametrize(
    ("high", "low", "msb", "lsb"),
    [(8, 4, 5_136_384, 4_325_376), (6, 3, 3_987_456, 3_244_032)],
)
def test_slices(high, low, msb, lsb):
    assert slice_bytes(8_650_752, high, low, 32) == (msb, lsb)


def test_slices_of_the_tiny_model():
    assert slice_bytes(tiny_model().expert_weights, 8, 4, 32) == (MSB_BYTES, LSB_BYTES)
    assert MSB_BYTES + LSB_BYTES == EXPERT_BYTES


def test_an_unfinished_group_has_its_metadata():
    assert slice_bytes(33, 8, 4, 32) == (17 + 6, 17)


def test_non_expert_bytes():
    assert int8_bytes(128) == 130
    assert int8_bytes(129) == 133


def test_latent_kv_cache():
    model = load_model("deepseek-v2-lite")
    assert model.attention.kv_bytes_per_token() == 512 + 64 == 576
    assert model.kv_cache_bytes(1000) == 27 * 1000 * 576


@pytest.mark.parametrize(("name", "per_token"), [("mixtral-8x7b", 2 * 8 * 128), ("qwen3-30b-a3b", 2 * 4 * 128)])
def test_grouped_kv_cache(name, per_token):
    model = load_model(name)
    assert model.attention.kv_bytes_per_token() == per_token
    assert model.kv_cache_bytes(10) == model.layers * 10 * per_token


def test_sliding_window():
    model = load_model("gpt-oss-20b")
    assert [model.attended_tokens(layer, 1000) for layer in range(4)] == [128, 1000, 128, 1000]
    assert [model.attended_tokens(layer, 100) for layer in range(2)] == [100, 100]
    assert model.kv_cache_bytes(1000) == 12 * (128 + 1000) * 2 * 8 * 64


def test_moe_layers():
    assert list(load_model("deepseek-v2-lite").moe_layers) == list(range(1, 27))
    assert len(load_model("olmoe-1b-7b").moe_layers) == 16


def test_names_in_any_case():
    assert load_model("DeepSeek-V2-Lite") == load_model("deepseek-v2-lite")


def test_every_model_has_a_source():
    for name in shipped_models():
        model = load_model(name)
        assert model.source
        assert model.attention.source


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("top_k: 9", "top_k (9) is above the number of experts (8)"),
        ("dense_layers: 3", "no MoE layer would be left"),
        ("dense_inner: 0", "dense_layers and dense_inner go together"),
        ("hidden: 0", "hidden: must be greater than or equal to 1 (given: 0)"),
        ("gate: sigmoid", "gate: must be 'softmax' or 'renormalised' (given: \"sigmoid\")"),
        ("heads: 3", "heads: unknown key"),
    ],
)
def test_inconsistent_geometry(tmp_path, line, fragment):
    from tests.kit import DATA

    key = line.partition(":")[0]
    text = (DATA / "tiny-moe.yaml").read_text(encoding="utf-8").splitlines()
    kept = [row for row in text if not row.startswith(f"{key}:")]
    path = tmp_path / "m.yaml"
    path.write_text("\n".join([*kept, line]), encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_model(str(path))
    assert str(error.value).startswith(str(path))
    assert fragment in str(error.value)


def test_unknown_model():
    with pytest.raises(UserError, match=r"--model: no model 'gpt-5'; shipped: deepseek-v2-lite"):
        load_model("gpt-5", "--model")
