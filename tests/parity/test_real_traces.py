"""Real routing: the independent replay on parts of law.npz, and hit rates that a phone counted."""

from __future__ import annotations

import csv

import pytest

from slicesim.decide import DecodeDemand, SliceSizes, decide
from slicesim.decide.demand import LSB_FETCHED, LSB_REQUESTED, MSB_FETCHED, has
from slicesim.scenario import Scenario
from slicesim.simulation import Simulation
from slicesim.trace import MemoryTrace, load_trace
from tests.kit import MOBILE
from tests.parity.naive_replay import Replay, Setup
from tests.parity.test_decisions import assert_equal, plain_tokens


def law(shared_data, tokens):
    trace = load_trace(shared_data / "traces" / "deepseek-v2-lite" / "law.npz")
    return MemoryTrace(trace.header, trace.block.part(0, tokens))


def prepare(trace, policy, **keys):
    keys = {"trace.split": "all-decode", **keys}
    return Simulation.prepare(Scenario.load(MOBILE, policy=policy, assignments=keys), trace)


@pytest.mark.parametrize("policy", ["lru-high", "dbsc"])
def test_three_hundred_decode_tokens(policy, shared_data):
    trace = law(shared_data, 300)
    simulated = prepare(trace, policy)
    pairs = list(zip(simulated.sizes.msb_bytes.tolist(), simulated.sizes.lsb_bytes.tolist(), strict=True))
    eviction = {"lru-high": "lru", "dbsc": "dbsc"}[policy]
    setup = Setup(64, 26, pairs, 2_400_000_000, slices=policy == "dbsc", eviction=eviction, warmup="last-layer")
    lengths = trace.request_lengths()
    assert_equal(simulated, Replay(setup, plain_tokens(trace.blocks(), dict.fromkeys(lengths, 0))))


def test_three_requests_with_pcw_and_budget(shared_data):
    lengths = list(law(shared_data, 8327).request_lengths().values())[:3]
    trace = law(shared_data, sum(lengths))
    simulated = prepare(trace, "slicemoe", **{"trace.split": 0.5})
    pairs = list(zip(simulated.sizes.msb_bytes.tolist(), simulated.sizes.lsb_bytes.tolist(), strict=True))
    setup = Setup(64, 26, pairs, 2_400_000_000, eviction="dbsc", warmup="pcw", target=0.05)
    prompts = {request: round(0.5 * length) for request, length in trace.request_lengths().items()}
    assert_equal(simulated, Replay(setup, plain_tokens(trace.blocks(), prompts)))


@pytest.mark.parametrize(
    ("file", "model", "top_k", "mib", "overall", "decode"),
    [("qwen", "qwen3-30b-a3b", 6, 4000, 74.9, 80.3), ("gptoss", "gpt-oss-120b", 2, 3000, 32.3, None)],
)
def test_the_phone_counted_the_same(file, model, top_k, mib, overall, decode, shared_data):
    """A global whole-expert LRU with the recorded object sizes, to 0.1 point."""
    path = shared_data / "traces" / "bigmoe-on-edge" / f"{file}.route.csv"
    keys = {"trace.top_k": top_k, "cache.object_bytes": "trace", "cache.capacity_gb": mib * 2**20 / 1e9}
    scenario = Scenario.load(MOBILE, model=model, trace=path, policy="lru-high", assignments=keys)
    result = Simulation.prepare(scenario).run()
    hits, misses = (sum(part[kind]["msb"] for part in (result.prefill, result.decode)) for kind in ("hits", "misses"))
    assert round(100 * hits / (hits + misses), 1) == overall
    if decode is not None:
        assert round(100 * (1 - result.decode["miss_rate"]["msb"]), 1) == decode


@pytest.mark.parametrize(("file", "model", "top_k"), [("qwen", "qwen3-30b-a3b", 6), ("gptoss", "gpt-oss-120b", 2)])
def test_below_the_cliff_nothing_hits(file, model, top_k, shared_data):
    """(layers - 1) x K experts of the largest size: one less than the cliff."""
    path = shared_data / "traces" / "bigmoe-on-edge" / f"{file}.route.csv"
    trace = load_trace(path)
    sizes = trace.header.expert_bytes
    experts = (len(trace.header.layers) - 1) * top_k
    keys = {"trace.top_k": top_k, "cache.object_bytes": "trace", "cache.capacity_gb": experts * min(sizes) / 1e9}
    scenario = Scenario.load(MOBILE, model=model, policy="lru-high", assignments=keys)
    assert Simulation.prepare(scenario, trace).run().decode["hits"]["msb"] == 0


GOLDEN = [("8/4", 2_400_000_000), ("6/3", 3_600_000_000)]


@pytest.mark.parametrize("policy", ["lru-high", "dbsc"])
@pytest.mark.parametrize(("pair", "capacity"), GOLDEN)
def test_golden_decisions(pair, capacity, policy, shared_data):
    """All of law.npz as one stream of decode tokens: every count of golden_decisions.csv."""
    with (shared_data / "reference" / "golden_decisions.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    row = next(r for r in rows if (r["pair"], r["capacity_bytes"], r["policy"]) == (pair, str(capacity), policy))
    high, low = map(int, pair.split("/"))
    keys = {"amat.high_bits": high, "amat.low_bits": low, "cache.capacity_gb": capacity / 1e9}
    simulated = prepare(law(shared_data, 8327), policy, **keys)
    counts = dict.fromkeys(("msb_requests", "msb_misses", "lsb_requests", "lsb_misses"), 0)
    for demand in decide(simulated.request()):
        assert isinstance(demand, DecodeDemand)
        counts["msb_requests"] += demand.outcome.size
        counts["msb_misses"] += int(has(demand.outcome, MSB_FETCHED).sum())
        counts["lsb_requests"] += int(has(demand.outcome, LSB_REQUESTED).sum())
        counts["lsb_misses"] += int(has(demand.outcome, LSB_FETCHED).sum())
    sizes: SliceSizes = simulated.sizes
    counts["flash_bytes"] = counts["msb_misses"] * int(sizes.msb_bytes[0]) + counts["lsb_misses"] * int(
        sizes.lsb_bytes[0]
    )
    assert counts == {name: int(row[name] or 0) for name in counts}
