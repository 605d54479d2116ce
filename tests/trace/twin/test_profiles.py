"""The shipped profiles: what they claim, and how near their twins come to the real routing that they were fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from slicesim.trace import load_trace
from slicesim.trace.info import trace_info
from slicesim.trace.store import ParquetTrace
from slicesim.trace.synth import LOGIT_STEP, synthesise
from slicesim.trace.twin.profile import read_profile
from tests.conftest import REPOSITORY
from tests.trace.samples import joined

TRACES = REPOSITORY / "traces"
REUSE = "reuse_probability_by_lag_tokens"
DISTINCT = "distinct_experts_per_layer_by_window_tokens"
LRU = "lru_hit_rate_one_cache_per_layer_by_cached_share"

#: Of a whole real trace of another text than the twin's; halves of one trace differ by less (docs/twins.md).
REUSE_GAP, HIT_GAP, DISTINCT_GAP = 0.03, 0.02, 0.05


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "qwen1.5-moe-a2.7b", "gpt-oss-20b"])
def test_profiles_say_where_they_come_from(name):
    path = TRACES / f"{name}-twin.yaml"
    profile, _ = read_profile(path)
    assert path.stat().st_size < 400_000
    assert all(origin.sha256 and origin.source and origin.licence for origin in profile.fitted_to)
    assert profile.is_filled == (name == "qwen1.5-moe-a2.7b")
    assert str(REPOSITORY) not in path.read_text()


def _mean(infos, table, key):
    return np.mean([info[table][key] for info in infos])


def test_deepseek_twin_routes_as_law_and_summary(shared_data):
    """Requests as long as the real ones on average (365 tokens); both real traces weigh alike."""
    twin = trace_info(synthesise(TRACES / "deepseek-v2-lite-twin.yaml", tokens=365, seed=5, requests=24))
    real = [trace_info(load_trace(shared_data / f"traces/deepseek-v2-lite/{name}.npz")) for name in ("law", "summary")]
    for lag in ("1", "2", "8", "32"):
        assert twin[REUSE][lag] == pytest.approx(_mean(real, REUSE, lag), abs=REUSE_GAP), lag
    for window in ("8", "32", "128"):
        assert twin[DISTINCT][window] == pytest.approx(_mean(real, DISTINCT, window), rel=DISTINCT_GAP), window
    for share in ("0.25", "0.5", "0.75"):
        assert twin[LRU][share] == pytest.approx(_mean(real, LRU, share), abs=HIT_GAP), share
    critical = np.mean([info["critical_experts_per_token_and_layer"] for info in real])
    assert twin["critical_experts_per_token_and_layer"] == pytest.approx(critical, rel=0.08)
    assert twin["top_k_mass_mean"] == pytest.approx(np.mean([info["top_k_mass_mean"] for info in real]), abs=0.03)
    assert twin["srp_16"] == pytest.approx(0.379, abs=0.03)  # published for all layers


def test_qwen_twin_has_the_published_reuse_over_all_layers():
    """Published: adjacent overlap 17.0 %, SRP(16) 30.7 %."""
    twin = trace_info(synthesise(TRACES / "qwen1.5-moe-a2.7b-twin.yaml", tokens=200, seed=5, requests=20))
    assert twin[REUSE]["1"] == pytest.approx(0.17, abs=0.02)
    assert twin["srp_16"] == pytest.approx(0.307, abs=0.03)
    assert "never recorded" in twin["notes"]


def test_the_default_trace_is_the_twins():
    path = TRACES / "deepseek-v2-lite-twin.parquet"
    stored = ParquetTrace(path)
    assert stored.header.synthetic
    assert stored.header.has_logits
    again = synthesise(TRACES / "deepseek-v2-lite-twin.yaml", tokens=320, seed=7, requests=2, prompt_fraction=0.6)
    assert again.header.model_copy(update={"tool_version": ""}) == stored.header.model_copy(update={"tool_version": ""})
    block = joined(stored.blocks())
    # another machine's linear algebra may round a logit to the next step
    assert np.abs(block.logits - again.block.logits).max() <= LOGIT_STEP
    assert (block.logits == again.block.logits).mean() > 0.999
    np.testing.assert_array_equal(np.argsort(-block.logits, axis=2, kind="stable")[:, :, :6], block.ids)
