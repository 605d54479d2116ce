"""One pass against full replays: every count, at every size."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.curves import cliff_bytes, lru_curve, replayed_curve, why_not_one_pass
from slicesim.curves.curve import all_bytes, least_bytes
from slicesim.curves.one_pass import WARM_PROMPT
from slicesim.decide import Request
from slicesim.errors import UserError
from slicesim.trace import MemoryTrace, load_trace
from tests.curves.samples import LAYERS, make_trace, policy, request_of, sizes_of, traces

POLICIES = {
    "lru-high": policy("lru-high"),
    "lru-low": policy("lru-low"),
    "lru-slices": policy("lru-slices"),
    "low threshold": policy("lru-slices", ("policy.precision.threshold", 0.0)),
    "high threshold": policy("lru-slices", ("policy.precision.threshold", 0.5)),
    "no warm-up": policy("lru-slices", ("policy.warmup", (("name", "none"),))),
    "prompt by threshold": policy("lru-slices", ("policy.prefill_precision", "threshold")),
}
WHOLE = ("lru-high", "lru-low")
DBSC = {
    name: policy("dbsc", ("policy.warmup", (("name", name),)), ("policy.precision.threshold", 0.2))
    for name in ("last-layer", "none", "empty")
}


def twenty_sizes(request: Request) -> np.ndarray:
    return np.unique(np.linspace(least_bytes(request), all_bytes(request), 20).astype(np.int64))


def assert_same(request: Request, capacities: np.ndarray) -> None:
    one, many = lru_curve(request).at(capacities), replayed_curve(request, capacities).at(capacities)
    for phase in ("prefill", "decode"):
        assert one[phase].tokens == many[phase].tokens
        for field in ("hits", "misses", "flash_bytes"):
            np.testing.assert_array_equal(getattr(one[phase], field), getattr(many[phase], field), f"{phase} {field}")


@st.composite
def requests(draw: st.DrawFn) -> Request:
    name = draw(st.sampled_from(sorted(POLICIES)))
    each = st.integers(1, 40) if draw(st.booleans()) else st.just(19)
    msb = draw(st.lists(each, min_size=LAYERS, max_size=LAYERS))
    return request_of(
        draw(traces()),
        POLICIES[name],
        sizes_of(msb, 0 if name in WHOLE else draw(st.integers(1, 40)), LAYERS),
        split=draw(st.sampled_from(("recorded", "all-decode", 0.3, 0.9))),
        max_tokens=draw(st.none() | st.integers(1, 30)),
        reset_each_request=draw(st.booleans()),
    )


@given(request=requests())
@settings(max_examples=300, deadline=None)
def test_equals_replays_and_more_capacity_never_misses_more(request):
    if why_not_one_pass(request):
        assert len(set(request.sizes.msb_bytes.tolist())) > 1 or request.sizes.lsb_bytes.any()
        assert why_not_one_pass(request) == WARM_PROMPT
        with pytest.raises(UserError, match="prompts meet a filled cache"):
            lru_curve(request)
        return
    assert_same(request, twenty_sizes(request))
    every = np.arange(least_bytes(request), all_bytes(request) + 1)
    for counts in lru_curve(request).at(every).values():
        assert (np.diff(counts.hits, axis=0) >= 0).all()
        assert (np.diff(counts.flash_bytes) <= 0).all()
        assert (counts.hits + counts.misses == (counts.hits + counts.misses)[0]).all()


@given(request=requests(), other=st.none() | st.sampled_from(sorted(DBSC)))
@settings(max_examples=100, deadline=None)
def test_below_the_cliff_nothing_hits_in_decode(request, other):
    if other:
        request = dataclasses.replace(request, policy=DBSC[other], sizes=sizes_of(19, 16, LAYERS))
    cliff, least = cliff_bytes(request), least_bytes(request)
    assert cliff is not None
    if least < cliff:
        below = replayed_curve(request, [least, cliff - 1]).at([least, cliff - 1])["decode"]
        assert not below.hits.any()


def test_by_hand():
    """Two layers, top-1, MSB 3 bytes and LSB 2; threshold 0.1. A slice's depth: bytes stamped since, itself included.

    token  layer  expert  score   requested  depth          stack afterwards, top first
    0      0      a       0.9     M, L       cold, cold     Ma La
    0      1      x       0.05    M          cold           Mx Ma La
    1      0      a       0.05    M          Mx Ma: 6       Ma Mx La
    1      1      x       0.9     M, L       Ma Mx: 6, cold Mx Lx Ma La
    2      0      a       0.9     M, L       8, 10          Ma La Mx Lx
    2      1      y       0.05    M          cold           My Ma La Mx Lx
    3      0      b       0.05    M          cold           Mb My Ma La Mx Lx
    3      1      x       0.05    M          14             Mx Mb My Ma La Lx

    The reuse of La is 10 deep: Mx 3, Lx 2, Ma 3, La 2. MSB depths: 6, 6, 8, 14; the cold ones are four (a, x, y, b).
    The cliff, 1 x 1 + 1 MSB slices, is at 6.
    """
    a = x = 0
    ids = [[[a], [x]], [[a], [x]], [[a], [1]], [[1], [x]]]
    scores = [[[0.9], [0.05]], [[0.05], [0.9]], [[0.9], [0.05]], [[0.05], [0.05]]]
    trace = make_trace(ids, scores, [0] * 4, [1] * 4, experts=2)
    request = request_of(trace, policy("lru-slices"), sizes_of(3, 2, 2))
    assert cliff_bytes(request) == 6
    capacities = [5, 6, 7, 8, 9, 10, 13, 14, 20]
    curve = lru_curve(request)
    counts = curve.at(capacities)["decode"]
    assert counts.hits[:, 0].tolist() == [0, 2, 2, 3, 3, 3, 3, 4, 4]
    assert counts.hits[:, 1].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert counts.misses[:, 0].tolist() == [8, 6, 6, 5, 5, 5, 5, 4, 4]
    assert counts.misses[:, 1].tolist() == [3, 3, 3, 3, 3, 2, 2, 2, 2]
    assert counts.flash_bytes.tolist() == [30, 24, 24, 21, 21, 19, 19, 16, 16]
    assert counts.miss_rates()["slices"][-1] == 6 / 11
    assert counts.flash_bytes_per_token()[-1] == 4.0
    assert curve.at([5])["prefill"].tokens == 0
    assert_same(request, np.array(capacities))


def test_a_larger_cache_can_lose_hits_where_a_prompt_meets_a_filled_one():
    """Why such traces are replayed. MSB 3, LSB 2; layer 0 has x, y, layer 1 has a, b; prompts by threshold.

    Request 0 decodes (x, b) and (x, a), MSB slices alone: the stack is Ma Mx Mb, top first.
    Request 1's prompt asks y with its LSB in layer 0, and Ma in layer 1. While layer 0 streams, layer 1 stays.
    8 bytes: Ma, Mx stay before it; then Ma, My, Ly (8). Layer 1 asks Ma: Ma, My, Ly stay.
    9 bytes: Ma, Mx, Mb stay before it; then Ma, Mb, My (9): Ly has no room.
    Decode asks y with its LSB, and a: three hits with 8 bytes, two with 9.
    """
    x, y, a, b = 0, 1, 0, 1
    ids = [[[x], [b]], [[x], [a]], [[y], [a]], [[y], [a]]]
    scores = [[[0.05], [0.05]], [[0.05], [0.05]], [[0.9], [0.05]], [[0.9], [0.05]]]
    trace = make_trace(ids, scores, [0, 0, 1, 1], [1, 1, 0, 1], experts=2)
    request = request_of(trace, POLICIES["prompt by threshold"], sizes_of(3, 2, 2))
    assert why_not_one_pass(request) == WARM_PROMPT
    decode = replayed_curve(request, [8, 9]).at([8, 9])["decode"]
    assert decode.hits.tolist() == [[3, 1], [3, 0]]


@pytest.mark.parametrize(
    ("name", "keys", "reason"),
    [
        ("dbsc", (), "eviction is dbsc"),
        ("lru-high", (("policy.warmup", (("name", "pcw"),)),), "warmup is pcw"),
        ("lru-high", (("policy.fetch", (("name", "msb-only"),)),), "fetch is msb-only"),
        ("lru-high", (("policy.constraint", (("name", "budget"),)),), "constraint is budget"),
    ],
)
def test_other_policies_are_not_one_pass(name, keys, reason):
    trace = make_trace([[[0]]], [[[1.0]]], [0], [1])
    assert why_not_one_pass(request_of(trace, policy(name, *keys), sizes_of(3, 2, 1))) == reason


def test_one_cache_per_layer_is_not_one_pass():
    trace = make_trace([[[0]]], [[[1.0]]], [0], [1])
    request = request_of(trace, policy("lru-high"), sizes_of(3, 0, 1), scope_layers=True)
    assert why_not_one_pass(request) == "there is one cache per layer"
    assert cliff_bytes(request) is None


@pytest.mark.parametrize("part", [{"warmup": "pcw"}, {"constraint": "budget"}, {"eviction": "lfu-keep"}])
def test_no_cliff_where_recency_alone_does_not_decide(part):
    (kind, name), *_ = part.items()
    trace = make_trace([[[0]]], [[[1.0]]], [0], [1])
    other = policy("dbsc", (f"policy.{kind}", (("name", name),)))
    assert cliff_bytes(request_of(trace, other, sizes_of(3, 2, 1))) is None


def test_a_cache_below_one_batch_is_refused():
    trace = make_trace([[[0, 1]]], [[[0.5, 0.5]]], [0], [1])
    request = request_of(trace, policy("lru-slices"), sizes_of(3, 2, 1))
    for curve in (lru_curve(request).at, lambda sizes: replayed_curve(request, sizes)):
        with pytest.raises(UserError, match="less than one batch"):
            curve([9])


@pytest.mark.parametrize(
    ("name", "split", "reset"),
    [
        ("lru-high", "all-decode", False),
        ("lru-high", 0.4, True),
        ("lru-high", 0.4, False),
        ("lru-slices", "all-decode", False),
        ("lru-slices", "all-decode", True),
        ("lru-slices", 0.4, True),
    ],
)
def test_real_routing(name, split, reset, shared_data):
    """The first 800 tokens of law.npz at the sizes of 8/4 bits."""
    path = shared_data / "traces" / "deepseek-v2-lite" / "law.npz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    whole = load_trace(path)
    trace = MemoryTrace(whole.header, whole.block.part(0, 800))
    msb, lsb = (5_136_384, 4_325_376) if name == "lru-slices" else (9_461_760, 0)
    request = request_of(
        trace, POLICIES[name], sizes_of(msb, lsb, 26), split=split, reset_each_request=reset
    )  # fmt: skip
    assert_same(request, twenty_sizes(request))


@pytest.mark.parametrize(
    ("pair", "capacity", "expert"), [("8/4", 2_400_000_000, 9_461_760), ("6/3", 3_600_000_000, 7_231_488)]
)
def test_golden(pair, capacity, expert, shared_data):
    """All of law.npz under lru-high, as an independent replay counted it (reference/golden_decisions.csv)."""
    path = shared_data / "traces" / "deepseek-v2-lite" / "law.npz"
    with (shared_data / "reference" / "golden_decisions.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    key = (pair, str(capacity), "lru-high")
    row = next(r for r in rows if (r["pair"], r["capacity_bytes"], r["policy"]) == key)
    request = request_of(
        load_trace(path), POLICIES["lru-high"], sizes_of(expert, 0, 26), split="all-decode"
    )  # fmt: skip
    counts = lru_curve(request).at([capacity])["decode"]
    assert counts.misses[0, 0] == int(row["msb_misses"])
    assert counts.flash_bytes[0] == int(row["flash_bytes"])
