"""A recorded load on the clock, by hand (the device and the model of test_by_hand), and on both engines.

The trace: one layer, top-2, reads of 1,000 B, three to an expert of 3,000 B. The token reads 2,500 B, as 1,000 + 1,000
+ 500, and hits 6,000 - 2,500 = 3,500 B, as one expert and a sixth of another.

- Attention 12,868,000 ps, head 8,320,000 ps (test_by_hand).
- The hits stream 3,000,000 and 500,000 ps; the latter is one tile, so its 6,144 x 500 / 3,000 = 1,024 MACs in 16 cycles
  come on top: 516,000. The missed expert streams 2,500,000 ps.
- Reads take 1,000,000 + 2,000,000 ps, the last one 1,000,000 + 1,000,000: 8,000,000 in all; its write 500,000 more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.demand_simulation import DemandSimulation
from slicesim.scenario import Scenario
from slicesim.schedule import DemandLowering
from slicesim.schedule.demand import spread
from slicesim.trace.demand import DemandHeader, DemandTrace
from tests.kit import DATA, MOBILE, tiny_model
from tests.schedule.test_by_hand import DEVICE

ATTENTION, HEAD, FLASH = 12_868_000, 8_320_000, 8_000_000
HEADER: dict[str, Any] = {
    "model": "one-layer",
    "layers": 1,
    "top_k": 2,
    "read_bytes": 1000,
    "source": "made for the tests",
    "licence": "none",
}
SOFTWARE = {
    "insert_latency_us": {"value": 5, "source": "test"},
    "insert_bandwidth_gbs": {"value": 1, "source": "test"},
}


def prepare(trace: DemandTrace, model: str = "one-layer", **keys: Any) -> DemandSimulation:
    device = {key: value for key, value in DEVICE.items() if key.startswith("device")}
    assignments = {**device, "schedule.overlap": "serial", **{k.replace("__", "."): v for k, v in keys.items()}}
    scenario = Scenario.load(MOBILE, model=str(DATA / f"{model}.yaml"), assignments=assignments)
    # No key of a decision is set here, so nothing has to be refused.
    return DemandSimulation.prepare(scenario, trace)


def run(read: list[int], header: dict[str, Any] = HEADER, compute: Any = None, **keys: Any) -> Any:
    compute_ps = None if compute is None else np.array(compute)
    return prepare(DemandTrace.of(DemandHeader(**header), read, compute_ps=compute_ps), **keys).run()


def test_serial_by_hand():
    tokens = run([2500]).tokens
    assert tokens["latency_ps"].tolist() == [ATTENTION + FLASH + 500_000 + 3_000_000 + 516_000 + 2_500_000 + HEAD]
    assert tokens["flash_reads"].tolist() == [3]
    assert tokens["flash_read_bytes"].tolist() == [2500]
    assert tokens["expert_dram_read_bytes"].tolist() == [6000]
    assert tokens["flash_stall_ps"].tolist() == [FLASH + 500_000]


def test_layer_by_hand():
    """The hits run while the reads are under way. The first read's fill, asked for when the second hit is, goes first
    and holds it up for 1,000,000: it does not matter, the missed expert waits for the last fill anyway."""
    tokens = run([2500], schedule__overlap="layer").tokens
    assert tokens["latency_ps"].tolist() == [ATTENTION + FLASH + 500_000 + 2_500_000 + HEAD]


def test_the_engine_puts_what_was_read_into_its_cache():
    """5 us for the layer and 2,500 B at 1 GB/s, hidden behind nothing."""
    plain, with_costs = (run([2500], **keys).tokens["latency_ps"][0] for keys in ({}, {"software": SOFTWARE}))
    assert with_costs - plain == 5_000_000 + 2_500_000
    dropped = run([2500], {**HEADER, "kept": False}, software=SOFTWARE).tokens["latency_ps"][0]
    assert dropped == plain


def test_nothing_read_costs_nothing_to_insert():
    assert run([0], software=SOFTWARE).tokens["latency_ps"][0] == ATTENTION + 2 * 3_000_000 + HEAD


def test_recorded_computing_takes_the_place_of_macs():
    tokens = run([2500, 0], compute=[10**9, 7], software=SOFTWARE).tokens
    assert tokens["npu_ps"][0] == 10**9
    assert tokens["expert_mac_eighths"].tolist() == [0, 0]


def test_non_expert_weights_may_weigh_something_else():
    """12,740 + 8,320 B in INT8 (attention, router, head), half of it here; the 64 B of KV stay."""
    tokens = run([0], {**HEADER, "non_expert_bytes": (12_740 + 8_320) // 2}).tokens
    assert tokens["non_expert_dram_read_bytes"].tolist() == [6_370 + 64 + 4_160]


def test_no_misses_are_counted():
    decode = run([2500, 0]).decode
    assert decode["requests"] == {"msb": 0, "lsb": 0}
    assert decode["miss_rate"] == {"slices": None, "msb": None, "lsb": None, "bytes": 2500 / 12000}


@given(st.integers(0, 10**6), st.integers(1, 100))
def test_spread_adds_up(amount, places):
    parts = spread(amount, places)
    assert sum(parts) == amount
    assert max(parts) - min(parts) <= 1


@settings(max_examples=60, deadline=None)
@given(
    read=st.lists(st.integers(0, 40_000), min_size=1, max_size=6),
    size=st.integers(100, 3000),
    per_expert=st.integers(1, 4),
    lanes=st.integers(1, 5),
    overlap=st.sampled_from(("serial", "layer", "prefetch")),
    recorded=st.booleans(),
)
def test_both_engines_give_the_same_picosecond(read, size, per_expert, lanes, overlap, recorded):
    model = tiny_model()
    header = DemandHeader(
        **{**HEADER, "model": model.name, "layers": len(model.moe_layers), "read_bytes": size},
        reads_per_expert=per_expert,
    )
    compute = np.full(len(read), 10**8) if recorded else None
    trace = DemandTrace.of(header, read, compute_ps=compute)
    keys = {"device__flash__lanes": lanes, "schedule__overlap": overlap, "software": SOFTWARE}
    fast, reference = (
        [timeline for *_, timeline in prepare(trace, "tiny-moe", schedule__engine=name, **keys).tables()]
        for name in ("fast", "reference")
    )
    for left, right in zip(fast, reference, strict=True):
        for name, column in vars(left).items():
            np.testing.assert_array_equal(column, vars(right)[name], err_msg=name)


@given(read=st.lists(st.integers(0, 10**5), min_size=1, max_size=4), size=st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_every_byte_is_read_once(read, size):
    model = tiny_model()
    header = DemandHeader(**{**HEADER, "layers": len(model.moe_layers), "read_bytes": max(size, 50)})
    for places, work in DemandLowering(DemandTrace.of(header, read), model).workloads():
        sizes, starts = work.read_sizes.reshape(-1)[work.read_kind], work.step_read().tolist()
        per_step = [int(sizes[a:b].sum()) for a, b in pairwise(starts)]
        assert per_step == [read[place] for place in places]
        layers = np.bincount(np.repeat(np.arange(len(work.batch_layer)), np.diff(work.batch_read)))
        assert len(layers) == 0 or layers.max() >= 1


def test_wrong_model_is_refused():
    from slicesim.errors import UserError

    trace = DemandTrace.of(DemandHeader(**{**HEADER, "layers": 3}), [1])
    with pytest.raises(UserError, match=r"has 3 layers with experts, .* choose the model that was recorded"):
        prepare(trace)
