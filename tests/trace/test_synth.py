from __future__ import annotations

import numpy as np
import pytest

from slicesim.errors import UserError
from slicesim.trace import DECODE, TraceBlock, load_trace
from slicesim.trace.info import trace_info
from slicesim.trace.profile import read_profile
from slicesim.trace.synth import LOGIT_STEP, synthesise
from slicesim.trace.table import require_faultless
from slicesim.trace.validate import validate_trace
from tests.conftest import REPOSITORY
from tests.trace.samples import assert_same, joined

PROFILE = REPOSITORY / "traces" / "deepseek-v2-lite-published.yaml"
SHIPPED = REPOSITORY / "traces" / "deepseek-v2-lite-synthetic.parquet"


@pytest.fixture(scope="module")
def shipped():
    return load_trace(SHIPPED)


def test_it_is_labelled_synthetic(shipped):
    assert shipped.header.synthetic
    assert shipped.header.source.startswith("synthetic, made from published statistics")
    assert shipped.header.has_logits
    assert validate_trace(SHIPPED) == []
    assert SHIPPED.stat().st_size < 2_500_000


def test_the_shipped_file_can_be_made_anew(shipped):
    again = synthesise(PROFILE, tokens=320, seed=7, requests=2, prompt_fraction=0.6)
    assert again.header.model_copy(update={"tool_version": ""}) == shipped.header.model_copy(
        update={"tool_version": ""}
    )
    made, stored = again.block, joined(shipped.blocks())
    # Scores may differ in the last bit where another machine's exp() does; logits are rounded.
    np.testing.assert_allclose(made.scores, stored.scores, rtol=1e-12)
    assert_same(TraceBlock(*made[:4], stored.scores, made.logits), stored)


def test_routes_are_the_stock_top_k_of_the_rounded_logits(shipped):
    block = joined(shipped.blocks())
    logits = block.logits.astype(np.float64)
    np.testing.assert_array_equal(logits / LOGIT_STEP, np.round(logits / LOGIT_STEP))
    np.testing.assert_array_equal(np.argsort(-logits, axis=2, kind="stable")[..., :6], block.ids)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(np.take_along_axis(softmax, block.ids, 2), block.scores, rtol=1e-12)
    assert (np.diff(block.scores, axis=2) <= 0).all()


def test_it_comes_near_the_published_statistics(shipped):
    published, info = read_profile(PROFILE).published, trace_info(shipped)
    reuse = published.reuse_by_lag_tokens
    for lag, wanted in zip(reuse.at, reuse.values, strict=True):
        assert info["reuse_probability_by_lag_tokens"][f"{lag:g}"] == pytest.approx(wanted, abs=0.01)
    by_layer = published.reuse_lag_1_by_layer.values
    np.testing.assert_allclose(info["reuse_probability_lag_1_by_layer"], by_layer, atol=0.04)
    lru = published.lru_hit_rate_by_cached_share
    for share, wanted in zip(lru.at, lru.values, strict=True):
        rates = info["lru_hit_rate_one_cache_per_layer_by_cached_share"]
        assert rates[f"{share:g}"] == pytest.approx(wanted, abs=0.03)
    np.testing.assert_allclose(info["score_mean_by_rank"], published.score_mean_by_rank.values, atol=0.006)
    critical = published.critical_experts_per_token_and_layer.value
    assert info["critical_experts_per_token_and_layer"] == pytest.approx(critical, abs=0.1)


def test_seed_requests_and_prompt(tmp_path):
    one, same = (synthesise(PROFILE, 12, seed, requests=3, prompt_fraction=0.25) for seed in (1, 1))
    assert_same(one.block, same.block)
    assert one.digest == same.digest != synthesise(PROFILE, 12, 2, requests=3).digest
    assert one.request_lengths() == {0: 12, 1: 12, 2: 12}
    assert (one.block.phase == DECODE).reshape(3, 12).sum(axis=1).tolist() == [9, 9, 9]
    require_faultless(one.header, one.block, "t")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "--tokens"),
        ({"requests": 0}, "--requests"),
        ({"seed": -1}, "--seed"),
        ({"prompt_fraction": 1.5}, "--prompt-fraction"),
        ({"prompt_fraction": float("nan")}, "--prompt-fraction"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(UserError, match=message):
        synthesise(PROFILE, **({"tokens": 4, "seed": 0} | arguments))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("top_k: 6", "top_k: 5", "score_mean_by_rank needs 5 values, has 6"),
        ("top_k: 6", "top_k: 99", "must be below the number of experts"),
        ("experts: 64\n", "experts: many\n", "model.experts"),
        ("at: [8, 32, 128]", "at: [8, 32]", "2 points but 3 values"),
        ("slow_correlation: .93", "slow_correlation: .41", "no shares of variance"),
        ("popularity_share: .018", "surprise: 1", "unknown key"),
    ],
)
def test_a_profile_that_cannot_be_followed(tmp_path, old, new, message):
    text = PROFILE.read_text()
    assert old in text
    (tmp_path / "p.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        synthesise(tmp_path / "p.yaml", 4, 0)
    assert str(tmp_path / "p.yaml") in str(error.value)
