"""Experts by matrix, streamed prefill, reads of a set length: what adds up to the same, and times by hand.

Model and device: see ``test_by_hand``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.account import Columns
from slicesim.decide import SliceSizes, decide
from slicesim.errors import UserError
from slicesim.scenario.schema import Schedule
from slicesim.schedule import Lowering, Shapes, Workload
from slicesim.schedule.pieces import Pieces
from slicesim.schedule.workload import DEMAND, EXPERT, NO_OP, PREFETCH
from tests.kit import EXPERT_BYTES, make_trace, random_trace, run, simulation, tiny_model
from tests.schedule.test_by_hand import ATTENTION, DEVICE, HEAD, MODEL, TRACE

CUTS: list[dict[str, Any]] = [
    {"pipeline": "matrix"},
    {"read_kib": 0.5},
    {"pipeline": "matrix", "read_kib": 0.25},
    {"prefill": "stream"},
    {"prefill": "stream", "pipeline": "matrix", "read_kib": 1.0},
]


def workloads(trace: Any, cut: dict[str, Any], **keys: Any) -> list[Workload]:
    simulated = simulation(trace, "tiny-deep", schedule__overlap="prefetch", **keys)
    shapes = Shapes(simulated.model, simulated.sizes, trace.header.layers)
    lower = Lowering(shapes, Schedule(overlap="prefetch", **cut))
    return [lower(demand) for demand in decide(simulated.request())]


def sums(work: Workload) -> Columns:
    """What a workload asks for in all, and of each layer's experts."""
    columns = work.kinds.columns
    names = ("read_bytes", "write_bytes", "macs_int8", "macs_msb", "macs_full", "weights", "inserts", "inserted_bytes")
    layer = work.layer_of_op()
    is_expert = np.asarray(columns.cause)[work.op_kind] == EXPERT
    size = work.read_sizes.reshape(-1)[work.read_kind]
    own = {name: np.asarray(getattr(columns, name))[work.op_kind] for name in names}
    return {
        **{name: np.bincount(layer + 1, column) for name, column in own.items()},
        **{f"expert_{name}": np.bincount(layer + 1, column * is_expert) for name, column in own.items()},
        "slice_bytes": np.bincount(np.stack(work.slice_of_read()).T @ (2, 1), size, minlength=40),
    }


@pytest.mark.parametrize("cut", CUTS, ids=str)
@given(seed=st.integers(0, 50), experts=st.integers(3, 20), policy=st.sampled_from(("dbsc", "lru-high")))
@settings(max_examples=10, deadline=None)
def test_bytes_and_work_stay_the_same(cut, seed, experts, policy):
    trace = random_trace(seed, 16, requests=2, prompt=8, model=tiny_model("tiny-deep"))
    keys = {"policy": policy, "cache__capacity_gb": experts * EXPERT_BYTES / 1e9}
    if policy == "dbsc":
        keys["policy__prefetch"] = {"name": "previous-token", "budget_mb": 0.02}
    for plain, own in zip(workloads(trace, {}, **keys), workloads(trace, cut, **keys), strict=True):
        for name, expected in sums(plain).items():
            np.testing.assert_array_equal(sums(own)[name], expected, err_msg=name)
        if "read_kib" in cut:
            assert own.read_sizes.max() <= cut["read_kib"] * 1024
        waits = own.read_op[own.read_op != NO_OP]
        assert (np.asarray(own.kinds.columns.cause)[own.op_kind[waits]] == EXPERT).all()
        assert (own.read_priority[own.read_op != NO_OP] == DEMAND).all()


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_energy_of_the_parts_stays_the_same(cut):
    """All but background power, which is zero here, and row activations, which each operation rounds up."""
    trace = random_trace(5, 20, requests=2, prompt=8)
    keys = {f"schedule__{key}": value for key, value in cut.items()}
    plain, own = (run(trace, schedule__overlap="prefetch", **extra).tokens for extra in ({}, keys))
    for name in ("flash", "dram", "sram", "npu", "expert", "non_expert", "total"):
        np.testing.assert_allclose(own[f"{name}_energy_pj"], plain[f"{name}_energy_pj"], rtol=1e-12)


def tokens(overlap: str, **more: Any) -> Any:
    return run(TRACE, MODEL, **{**DEVICE, "schedule.overlap": overlap, **more}).tokens


def test_matrix_by_matrix_by_hand():
    """Experts 0 (both slices) and 1 (MSB) miss, in ``layer``; an expert's reads go matrix by matrix, MSB before LSB.

    Reads end at 12,868,000 + 3,432,000 (MSB of gate), + 3,048,000 (LSB), and so on: gate 19,348,000, up 25,828,000,
    down 32,308,000. Each LSB's write takes 1,024,000, then its matrix streams 2,240,000: gate from 20,372,000 to
    22,612,000 (the MSB of up is read by 22,780,000), up from 26,852,000 to 29,092,000, down from 33,332,000 to
    35,572,000.
    Expert 1's three reads end at 35,740,000, 39,172,000, 42,604,000; writes and streams take 1,216,000 each: gate
    from 36,956,000, up from 40,388,000, down from 43,820,000 to 45,036,000. Then the head.
    A whole expert at a time ended at 55,788,000.
    """
    first = tokens("layer", **{"schedule.pipeline": "matrix"}).iloc[0]
    assert first.latency_ps == 45_036_000 + HEAD == 53_356_000


def test_short_reads_by_hand():
    """Serial, 0.5 KiB: of an MSB matrix of 1,216 B reads of 512, 512 and 192 B, of an LSB's 1,024 B two of 512.

    Six MSB matrices: 18 latencies and 6 x 1,216 B; three LSB matrices: 6 and 3 x 1,024 B. One lane of 0.5 GB/s: 24 x
    1,000,000 + 10,368 x 2,000 = 44,736,000 ps; the last write, of 192 B, 192,000. Then the experts and the head.
    """
    first = tokens("serial", **{"schedule.read_kib": 0.5}).iloc[0]
    assert first.latency_ps == ATTENTION + 44_736_000 + 192_000 + 6_720_000 + 3_648_000 + HEAD
    assert first.flash_reads == 24


def test_pieces_by_hand():
    """10 and 4 bytes in matrices of 4, 3, 3 and of 2, 1, 1, in reads of at most 3."""
    shares = np.array([[[4, 3, 3], [2, 1, 1]]])
    whole, cut = Pieces.of(shares, longest_bytes=3), Pieces.of(shares, longest_bytes=3, by_matrix=True)
    assert whole.sizes.tolist() == cut.sizes.tolist() == [[[3, 1, 3, 3], [2, 1, 1, 0]]]
    assert whole.starts.tolist() == [[0, 4], [0, 3]]
    assert cut.starts.tolist() == [[0, 2, 3, 4], [0, 1, 2, 3]]
    assert Pieces.of(shares).sizes.tolist() == [[[4, 3, 3], [2, 1, 1]]]


def test_a_streamed_prompt_reads_one_layer_ahead():
    """Reads of the first MoE layer are demanded; those of layer n go out in the batch of layer n - 1, to be claimed."""
    trace = random_trace(1, 8, prompt=8, model=tiny_model("tiny-deep"))
    keys = {"cache__capacity_gb": 40 * EXPERT_BYTES / 1e9}
    (plain,), (own,) = workloads(trace, {}, **keys), workloads(trace, {"prefill": "stream"}, **keys)
    batch = np.repeat(np.arange(len(own.batch_layer)), np.diff(own.batch_read))
    layer, _ = own.slice_of_read()
    ahead = own.read_priority == PREFETCH
    assert (own.batch_layer[batch[~ahead]] == 1).all()
    assert (layer[~ahead] == 1).all()
    assert (own.batch_layer[batch[ahead]] == layer[ahead] - 1).all()
    claimed = own.claim_read - own.first_read
    assert sorted(claimed.tolist()) == np.flatnonzero(ahead).tolist()
    assert (own.layer_of_op()[own.claim_op] == layer[claimed]).all()
    assert (own.op_expert[own.claim_op] == own.read_expert[claimed]).all()
    assert len(own.read_kind) == len(plain.read_kind)


def test_streaming_a_prompt_is_faster():
    """Where flash is idle while a layer computes; it never changes what is read."""
    trace = random_trace(1, 24, prompt=20, model=tiny_model("tiny-deep"))
    keys = {"schedule__overlap": "prefetch", "device__npu__macs_per_cycle": 64}
    plain, own = (run(trace, "tiny-deep", schedule__prefill=p, **keys).prefill for p in ("layer", "stream"))
    assert own["latency_ps"]["total"] < plain["latency_ps"]["total"]
    assert own["bytes"] == plain["bytes"]


def test_streaming_needs_its_overlap():
    with pytest.raises(UserError, match=r"stream reads ahead, which needs schedule\.overlap=prefetch \(it is layer\)"):
        run(random_trace(1, 4), schedule__prefill="stream", schedule__overlap="layer")


def test_cuts_do_not_share_a_workload():
    """Hardware variants share decisions and workloads; these keys are part of what they share."""
    trace = make_trace([[[0, 1], [2, 3]]], [[[0.5, 0.2], [0.4, 0.1]]])
    keys = {simulation(trace, schedule__pipeline=p, schedule__read_kib=k).decision_key() for p, k in
            (("expert", None), ("matrix", None), ("expert", 4.0))}  # fmt: skip
    assert len(keys) == 3
    assert simulation(trace).decision_key() == simulation(trace, schedule__overlap="layer").decision_key()


def test_sizes_that_differ_by_layer():
    """Recorded sizes: each layer has its own number of reads."""
    sizes = SliceSizes(np.array([6000, 900]), np.zeros(2, dtype=np.int64), 8, 0)
    shapes = Shapes(tiny_model(), sizes, [1, 2])
    lower = Lowering(shapes, Schedule(read_kib=1.0))
    assert lower.read_sizes[:, 0].tolist() == [[1024, 976] * 3, [300, 300, 300, 0, 0, 0]]
