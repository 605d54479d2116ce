from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from slicesim.errors import UserError
from slicesim.trace import DECODE, PREFILL, MemoryTrace, TraceBlock
from slicesim.trace.order import OrderCheck
from slicesim.trace.table import ABSENT, count_in_order, faults, group_requests, require_faultless
from tests.trace.samples import header, random_trace


def test_a_sound_trace_has_no_faults():
    trace = random_trace(has_logits=True)
    require_faultless(trace.header, trace.block, "t")
    assert list(OrderCheck().faults(trace.block)) == []


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("ids", 8, "expert id outside 0 to 7"),
        ("ids", -2, "expert id outside 0 to 7"),
        ("scores", np.nan, "score is not a finite number"),
        ("scores", np.inf, "score is not a finite number"),
        ("scores", -0.1, "negative score"),
        ("logits", np.nan, "logit is not a finite number"),
    ],
)
def test_each_faulty_value_is_found_at_its_place(column, value, message):
    trace = random_trace(has_logits=True)
    getattr(trace.block, column)[3, 1, 0] = value
    assert list(faults(trace.header, trace.block)) == [(3, 1, message)]


def test_the_same_expert_twice_is_found():
    trace = random_trace()
    trace.block.ids[2, 0] = [4, 4]
    with pytest.raises(UserError, match="t: request 0, token 2, layer 1: the same expert twice in one token"):
        require_faultless(trace.header, trace.block, "t")


def test_a_missing_row_is_a_fault_unless_the_header_allows_it_in_prefill():
    trace = random_trace(lengths=(4,))
    trace.block.ids[0, 1] = trace.block.ids[3, 1] = ABSENT
    assert [(t, s) for t, s, _ in faults(trace.header, trace.block)] == [(0, 1), (3, 1)]
    partial = header(partial_prefill_layers=[2])
    assert list(faults(partial, trace.block)) == [(3, 1, "no row for this layer")]


def test_negative_scores_are_sound_where_scores_are_logits():
    trace = random_trace()
    trace.block.scores[0, 0, 0] = -3.0
    assert list(faults(header(score_kind="logits"), trace.block)) == []


def test_requests_are_grouped_by_first_appearance_with_the_prompt_first():
    request = np.array([7, 2, 7, 2], np.int64)
    block = TraceBlock(
        request=request,
        token=np.arange(4, dtype=np.int64),
        phase=np.array([DECODE, PREFILL, PREFILL, DECODE], np.int8),
        ids=np.zeros((4, 1, 1), np.int32),
        scores=np.zeros((4, 1, 1)),
    )
    grouped = group_requests(block)
    assert grouped.request.tolist() == [7, 7, 2, 2]
    assert grouped.token.tolist() == [2, 0, 1, 3]
    assert count_in_order(request) == {7: 2, 2: 2}


@pytest.mark.parametrize(
    ("request_", "token", "phase", "index", "message"),
    [
        ([0, 0, 0], [0, 2, 3], [0, 0, 0], 1, "rise by one"),
        ([0, 0, 0], [0, 1, 1], [0, 0, 0], 2, "rise by one"),
        ([0, 1, 0], [0, 0, 1], [0, 0, 0], 2, "appears again"),
        ([0, 0, 0], [0, 1, 2], [0, 1, 0], 2, "prefill after decode"),
    ],
)
@pytest.mark.parametrize("cut", [None, 1, 2])
def test_order_is_checked_within_and_across_blocks(request_, token, phase, index, message, cut):
    ids = np.zeros((3, 1, 1), np.int32)
    block = TraceBlock(np.array(request_), np.array(token), np.array(phase, np.int8), ids, np.zeros((3, 1, 1)))
    check = OrderCheck()
    parts = [block] if cut is None else [block.part(0, cut), block.part(cut, 3)]
    first = 0
    found = []
    for part in parts:
        found += [(first + i, text) for i, text in check.faults(part)]
        first += len(part)
    assert [i for i, _ in found] == [index]
    assert message in found[0][1]


@pytest.mark.parametrize(
    "changes",
    [
        {"top_k": 9},
        {"layers": [2, 1]},
        {"schema_version": 99},
        {"expert_bytes": [1]},
        {"surprise": 1},
    ],
)
def test_a_header_that_contradicts_itself_is_refused(changes):
    with pytest.raises(ValidationError):
        header(**changes)


def test_the_digest_tells_traces_apart():
    one, same, other = random_trace(0), random_trace(0), random_trace(1)
    assert one.digest == same.digest != other.digest
    assert MemoryTrace(header(notes="x"), one.block).digest != one.digest
