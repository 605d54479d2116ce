"""Precision rules by hand, and tables of widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicesim.errors import UserError
from slicesim.policies.precision import Asked, Budgeted, FirstRanked, HobbitWidths, Precision, StaticWidths, TraceFacts
from slicesim.policies.widths import read_widths
from tests.kit import EXPERT_BYTES, make_trace, random_trace, run, simulation

#: One token, one layer, slots in any order: gates fall as experts 5, 3, 7, 1.
IDS = np.array([[[3, 5, 1, 7]]], dtype=np.int32)
GATES = np.array([[[0.2, 0.4, 0.04, 0.16]]])
ALL = np.array([[[0.05, 0.04, 0.05, 0.2, 0.02, 0.4, 0.03, 0.16]]])


def judged(rule: Precision, what: str = "critical") -> tuple[list[bool], list[bool]]:
    """Ask about the token's own experts (by slot), and about all eight."""
    own = Asked(IDS, GATES)
    return tuple(getattr(rule, what)(asked)[0, 0].tolist() for asked in (own, Asked.all_experts(ALL, own)))


def of(*experts: int) -> list[bool]:
    return [expert in experts for expert in range(8)]


def test_ranks_and_mass_before_by_hand():
    """By falling gate 5, 3, 7, 1; 0.8 in all, so before them 0, 0.5, 0.75, 0.95. Others follow: 0, 2 (tie), 6, 4."""
    own = Asked(IDS, GATES)
    assert own.rank[0, 0].tolist() == [1, 0, 3, 2]
    assert own.mass_before[0, 0] == pytest.approx([0.5, 0, 0.95, 0.75])
    beyond = Asked.all_experts(ALL, own)
    assert beyond.rank[0, 0].tolist() == [4, 3, 5, 1, 7, 0, 6, 2]
    assert beyond.mass_before[0, 0] == pytest.approx([1, 0.95, 1.0625, 0.5, 1.1625, 0, 1.125, 0.75])


def test_absent_experts_rank_last_and_weigh_nothing():
    asked = Asked(np.array([[[4, -1, 2]]], dtype=np.int32), np.array([[[0.1, 0.9, 0.3]]]))
    assert asked.rank[0, 0].tolist() == [1, 2, 0]
    assert asked.mass_before[0, 0] == pytest.approx([0.75, 1, 0])
    assert HobbitWidths(t1=1, t2=1).critical(asked)[0, 0].tolist() == [True, False, True]


def test_equal_gates_rank_by_slot():
    asked = Asked(np.array([[[6, 2, 4]]], dtype=np.int32), np.full((1, 1, 3), 0.2))
    assert asked.rank[0, 0].tolist() == [0, 1, 2]


def test_top_1_by_hand():
    assert judged(FirstRanked()) == ([False, True, False, False], of(5))
    assert judged(FirstRanked(threshold=0.18)) == ([True, True, False, False], of(5, 3))
    assert judged(FirstRanked(threshold=0.9)) == ([False, True, False, False], of(5))


def test_budgeted_by_hand():
    assert judged(Budgeted(most=2, threshold=0.1)) == ([True, True, False, False], of(5, 3))
    assert judged(Budgeted(most=3, threshold=0.16)) == ([True, True, False, True], of(5, 3, 7))
    assert judged(Budgeted(most=3, threshold=0.3)) == ([False, True, False, False], of(5))
    assert judged(Budgeted(most=0, threshold=0.0)) == ([False] * 4, of())
    assert judged(Budgeted(most=5, threshold=0.05))[1] == of(5, 3, 7, 0)


def test_hobbit_by_hand():
    """Mass before: 5: 0, 3: 0.5, 7: 0.75, 1: 0.95; what the token did not choose is never high."""
    rule = HobbitWidths(t1=0.6, t2=0.9)
    assert judged(rule) == ([True, True, False, False], of(5, 3))
    assert judged(rule, "skipped")[0] == [False, False, True, False]
    assert judged(HobbitWidths(t1=0, t2=0), "critical")[0] == [False, True, False, False]
    assert judged(HobbitWidths(t1=0, t2=0), "skipped")[0] == [True, False, True, True]
    assert judged(HobbitWidths(t1=1, t2=1)) == ([True] * 4, of(0, 1, 3, 5, 7))


@given(st.integers(0, 10_000))
def test_hobbit_with_both_at_1_runs_all_high(seed):
    rng = np.random.default_rng(seed)
    gates = np.round(rng.dirichlet(np.full(6, 0.5), (5, 3)), int(rng.integers(1, 17)))
    asked = Asked(np.broadcast_to(np.arange(6, dtype=np.int32), gates.shape), gates)
    rule = HobbitWidths(t1=1, t2=1)
    assert rule.critical(asked).all()
    assert not rule.skipped(asked).any()


def test_static_widths_from_the_trace_by_hand():
    """Gate mass of layer 1: expert 0 has 0.9, 1 has 0.6, 2 has 0.5; of layer 2: 3 and 1 tie at 0.7, 4 has 0.6."""
    ids = [[[0, 1], [3, 1]], [[2, 0], [4, 1]]]
    scores = [[[0.6, 0.6], [0.7, 0.2]], [[0.5, 0.3], [0.6, 0.5]]]
    rule = {"name": "static-widths", "high_share": 0.25}  # two of eight
    trace = make_trace(ids, scores)
    settled = simulation(trace, policy__precision=rule).policy.precision
    asked = Asked(np.array([[[0, 1, 2], [3, 1, 4]]], dtype=np.int32), np.zeros((1, 2, 3)))
    assert settled.critical(asked)[0].tolist() == [[True, True, False], [True, True, False]]
    one = simulation(trace, policy__precision=rule | {"high_share": 0.125}).policy.precision
    assert one.critical(asked)[0].tolist() == [[True, False, False], [False, True, False]]  # ties by id
    second = Asked(asked.ids[:, 1:], asked.gates[:, 1:], first_layer=1)
    assert one.critical(second)[0].tolist() == [[False, True, False]]
    decode = run(trace, policy__precision=rule, cache__capacity_gb=16 * EXPERT_BYTES / 1e9).decode
    assert decode["requests"] == {"msb": 8, "lsb": 6}
    assert decode["quality"]["high_mass"] == pytest.approx(2.9 / 4)


def test_only_the_tokens_that_are_replayed_count():
    trace = make_trace([[[0, 1], [0, 1]], [[2, 3], [2, 3]]], [[[0.3, 0.2]] * 2, [[0.5, 0.4]] * 2])
    rule = {"name": "static-widths", "high_share": 0.125}
    asked = Asked(np.array([[[0, 2]] * 2], dtype=np.int32), np.zeros((1, 2, 2)))
    for most, expected in ((1, [True, False]), (2, [False, True])):
        settled = simulation(trace, policy__precision=rule, trace__max_tokens=most).policy.precision
        assert settled.critical(asked)[0, 0].tolist() == expected


def table(folder: Path, *rows: str, head: str = "layer,expert,bits") -> Path:
    path = folder / "w.csv"
    path.write_text("\n".join((head, *rows)) + "\n")
    return path


def test_a_table_of_widths(tmp_path):
    """Rows in any order; the trace may cover a part of the model's layers."""
    path = table(tmp_path, "2,1,8", "1,0,4", "# a note", "7,5,8", "7,9,4", "2,0,4", "1,1,8")
    with pytest.raises(UserError, match=r"w.csv: line 6: expert is 9, but a layer has experts 0 to 7"):
        read_widths(path, [1, 2], 8, (8, 4))
    path = table(tmp_path, "2,1,8", "1,0,4", "7,1,8", "2,0,4", "1,1,8")
    assert read_widths(path, [1, 2], 2, (8, 4)).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,0,8"], "w.csv: layer 1, expert 1 is missing; every expert needs a row"),
        (["1,0,8", "1,1,6"], "w.csv: line 3: bits is 6, but an expert has 8 or 4"),
        (["1,0,8", "1,1,4", "1,0,8"], "w.csv: line 4: layer 1, expert 0 stands twice"),
        (["1,0,8", "1,x,4"], "w.csv: line 3: expert must be a whole number, is 'x'"),
        (["1,0,8", "1,1"], "w.csv: line 3: 2 fields, not 3"),
        ([], "w.csv: holds no widths below the header row"),
    ],
)
def test_faulty_tables(tmp_path, rows, message):
    with pytest.raises(UserError) as error:
        read_widths(table(tmp_path, *rows), [1], 2, (8, 4))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_without_the_columns_or_the_file(tmp_path):
    with pytest.raises(UserError, match="column 'bits' is missing; needed: layer,expert,bits"):
        read_widths(table(tmp_path, "1,0,8", head="layer,expert,width"), [1], 1, (8, 4))
    with pytest.raises(UserError, match=r"nothing\.csv: no such file"):
        read_widths(tmp_path / "nothing.csv", [1], 1, (8, 4))


def test_the_table_is_part_of_what_the_figures_follow_from(tmp_path):
    """By its content: an edited table is another run; nothing is asked of the trace."""
    rows = [f"{layer},{expert},{{}}" for layer in (1, 2) for expert in range(8)]
    keys = []
    for bits in (8, 4):
        path = table(tmp_path, *(row.format(bits) for row in rows))
        rule = {"name": "static-widths", "table": str(path)}
        simulated = simulation(random_trace(1, 8), policy__precision=rule)
        keys.append(simulated.decision_key())
        assert simulated.run().decode["quality"]["high_mass"] == (bits == 8)
        assert not simulated.policy.precision.needs_future
    assert keys[0] != keys[1]


def test_it_must_be_settled_before_it_is_asked():
    with pytest.raises(ValueError, match="settled first"):
        StaticWidths().critical(Asked(IDS, GATES))
    facts: Any = TraceFacts([1], 8, 8, 4, lambda: np.arange(8.0)[None])
    assert StaticWidths(high_share=0.5).settled(facts).critical(Asked(IDS, GATES))[0, 0].tolist() == [
        False,
        True,
        False,
        True,
    ]


def test_renormalised_scores_concern_thresholds_alone():
    assert not FirstRanked().raw_scores_only
    assert FirstRanked(threshold=0.1).raw_scores_only
    assert Budgeted().raw_scores_only
    assert not Budgeted(on_renormalised=True).raw_scores_only
    assert not HobbitWidths().raw_scores_only


def test_hobbit_in_a_prompt():
    """T2 = 0.5: the second expert of the first token (mass before 0.6) is skipped; the other's (0.5) is not, and low.

    With both slices for all, nothing is skipped."""
    trace = make_trace([[[0, 1]] * 2, [[2, 3]] * 2], [[[0.6, 0.4]] * 2, [[0.3, 0.3]] * 2], prompt=2)
    rule = {"name": "hobbit", "t1": 0.2, "t2": 0.5}
    prompt = run(trace, policy__precision=rule, policy__prefill_precision="threshold").prefill
    assert prompt["requests"] == {"msb": 6, "lsb": 4}
    quality = prompt["quality"]
    assert [quality[f"{part}_mass"] for part in ("high", "low", "dropped")] == pytest.approx(
        [0.9 / 1.6, 0.3 / 1.6, 0.4 / 1.6]
    )
    plain = run(trace, policy__precision=rule).prefill
    assert plain["requests"] == {"msb": 8, "lsb": 8}
    assert plain["quality"]["dropped_mass"] == 0


def test_hobbit_in_decode_by_hand():
    trace = make_trace([[[0, 1]] * 2, [[2, 3]] * 2], [[[0.6, 0.4]] * 2, [[0.3, 0.3]] * 2])
    decode = run(trace, policy__precision={"name": "hobbit", "t1": 0.2, "t2": 0.5}).decode
    assert decode["requests"] == {"msb": 8, "lsb": 4}
    assert decode["denied"] == {"degraded": 0, "substituted": 0, "dropped": 2}
    assert decode["misses"] == {"msb": 6, "lsb": 4}
    assert decode["quality"]["dropped_mass"] == pytest.approx(0.4 / 1.6)


def test_a_curve_needs_replays_where_experts_are_skipped():
    from slicesim.curves.one_pass import why_not_one_pass

    rule = {"name": "hobbit"}
    request = simulation(random_trace(1, 8), policy="lru-slices", policy__precision=rule).request()
    assert why_not_one_pass(request) == "precision hobbit skips experts"
