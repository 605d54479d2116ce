from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from slicesim.errors import UserError
from slicesim.trace import PREFILL, MemoryTrace, TraceBlock, load_trace, write_trace
from slicesim.trace.info import trace_info
from slicesim.trace.table import ABSENT
from tests.trace.samples import header, random_trace

REUSE = "reuse_probability_by_lag_tokens"
DISTINCT = "distinct_experts_per_layer_by_window_tokens"
LRU = "lru_hit_rate_one_cache_per_layer_by_cached_share"


@pytest.mark.parametrize(("name", "row"), [("law", "deepseek-v2-lite law"), ("summary", "deepseek-v2-lite summary")])
def test_reference_statistics_are_reproduced(shared_data, name, row):
    text = (shared_data / "reference/routing_statistics.csv").read_text().splitlines()
    rows = csv.DictReader(line for line in text if not line.startswith("#"))
    wanted = next(r for r in rows if r["trace"] == row)
    info = trace_info(load_trace(shared_data / f"traces/deepseek-v2-lite/{name}.npz"))
    for lag in ("1", "2", "8", "32"):
        assert info[REUSE][lag] == pytest.approx(float(wanted[f"reuse_{lag}"]), abs=5.1e-4)
    for window in ("8", "32", "128"):
        assert info[DISTINCT][window] == pytest.approx(float(wanted[f"distinct_{window}"]), abs=5.1e-3)
    for percent, share in (("10", "0.1"), ("25", "0.25"), ("50", "0.5"), ("75", "0.75")):
        assert info[LRU][share] == pytest.approx(float(wanted[f"lru_{percent}"]), abs=0.01)
    assert info["srp_16"] == pytest.approx(float(wanted["srp16"]), abs=1e-3)
    assert info["popularity_gini"] == pytest.approx(float(wanted["gini"]), abs=1e-3)
    assert info["popularity_max_over_mean"] == pytest.approx(float(wanted["max_over_mean"]), abs=5.1e-3)


def test_law_scores_and_layers(shared_data):
    info = trace_info(load_trace(shared_data / "traces/deepseek-v2-lite/law.npz"))
    assert np.round(info["score_mean_by_rank"], 3).tolist() == [0.132, 0.080, 0.059, 0.046, 0.039, 0.034]
    assert info["critical_experts_per_token_and_layer"] == pytest.approx(183438 / 8327 / 26)
    assert info["reuse_probability_lag_1_by_layer"][0] == pytest.approx(0.157, abs=5e-4)
    assert (info["tokens"], info["requests"], info["tokens_by_phase"]) == (8327, 33, {"prefill": 8327, "decode": 0})


def plain(trace):
    """The same statistics, token by token and set by set."""
    block = trace.block
    experts, layers = trace.header.experts, len(trace.header.layers)
    sets = [[set(block.ids[t, s].tolist()) - {ABSENT} for s in range(layers)] for t in range(len(block))]
    position = [int((block.request[:t] == block.request[t]).sum()) for t in range(len(block))]

    def mean(values):
        known = [np.mean(v) for v in values if v]
        return np.mean(known) if known else None

    result = {}
    for lag in (1, 2, 8, 32):
        shares = [
            [
                len(sets[t][s] & sets[t - lag][s]) / trace.header.top_k
                for t in range(len(block))
                if position[t] >= lag and sets[t][s] and sets[t - lag][s]
            ]
            for s in range(layers)
        ]
        result[REUSE, f"{lag}"] = mean(shares)
    for window in (8, 32, 128):
        counts = [
            [
                len(set().union(*(sets[u][s] for u in range(t - window + 1, t + 1))))
                for t in range(len(block))
                if (position[t] + 1) % window == 0 and all(sets[u][s] for u in range(t - window + 1, t + 1))
            ]
            for s in range(layers)
        ]
        result[DISTINCT, f"{window}"] = mean(counts)
    for share in (0.1, 0.25, 0.5, 0.75):
        size = max(trace.header.top_k, int(share * experts))
        rates = []
        for s in range(layers):
            cache: list[int] = []
            hits = []
            for t in range(len(block)):
                here = [e for e in block.ids[t, s].tolist() if e != ABSENT]
                hits += [e in cache for e in here]
                cache = ([e for e in cache if e not in here] + here)[-size:]
            rates.append(hits)
        result[LRU, f"{share:g}"] = mean(rates)
    return result


@pytest.mark.parametrize("lengths", [(150, 3, 40), (1, 1, 2), (700,)])
@pytest.mark.parametrize("has_gaps", [False, True])
def test_every_statistic_equals_a_plain_count(tmp_path, lengths, has_gaps):
    trace = random_trace(3, lengths, experts=12, top_k=3)
    if has_gaps:
        prompt = trace.block.phase == PREFILL
        prompt[20:] = False
        trace.block.ids[prompt, 1] = ABSENT
        trace = MemoryTrace(trace.header.model_copy(update={"partial_prefill_layers": [2]}), trace.block)
    info = trace_info(trace)
    for (table, key), wanted in plain(trace).items():
        assert info[table][key] == (None if wanted is None else pytest.approx(wanted)), (table, key)

    # The same from a file that is read in small blocks.
    parts = [trace.block.part(i, i + 37) for i in range(0, len(trace.block), 37)]
    write_trace(tmp_path / "t.parquet", trace.header, parts)
    streamed = trace_info(load_trace(tmp_path / "t.parquet"))
    for table in (REUSE, DISTINCT, LRU):
        assert streamed[table] == pytest.approx(info[table]), table


def test_what_a_trace_cannot_tell_is_none_and_all_is_json():
    trace = random_trace(lengths=(1,))
    info = trace_info(MemoryTrace(header(score_kind="renormalised"), trace.block))
    assert info[REUSE] == {"1": None, "2": None, "8": None, "32": None}
    assert info["critical_experts_per_token_and_layer"] is None
    json.dumps(info, allow_nan=False)


def test_an_empty_trace_is_json_too():
    trace = random_trace(lengths=())
    json.dumps(trace_info(trace), allow_nan=False)


def test_popularity_of_one_expert_for_all():
    tokens = 10
    block = TraceBlock(
        np.zeros(tokens, np.int64),
        np.arange(tokens),
        np.zeros(tokens, np.int8),
        np.full((tokens, 1, 1), 3, np.int32),
        np.full((tokens, 1, 1), 0.5),
    )
    info = trace_info(MemoryTrace(header(layers=[0], experts=4, top_k=1), block))
    assert info["popularity_max_over_mean"] == 4
    assert info["popularity_gini"] == pytest.approx(0.75)
    assert info["top_k_mass_mean"] == 0.5
    assert info["critical_experts_per_token_and_layer"] == 1


def test_a_faulty_trace_is_refused():
    trace = random_trace()
    trace.block.ids[2, 0, 0] = 99
    with pytest.raises(UserError, match="token 2, layer 1: expert id outside 0 to 7"):
        trace_info(trace)
