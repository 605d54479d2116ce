"""Grids of replays, and the study of several policies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from slicesim.curves import miss_rate_curves, replayed_curve
from slicesim.curves.bound import bound_curves
from slicesim.curves.curve import all_bytes, least_bytes
from slicesim.decide import decide
from slicesim.errors import UserError
from slicesim.policies import Eviction, SliceState
from slicesim.policies.base import Keys
from slicesim.policies.slices import IntArray
from tests.curves.samples import EXPERTS, LAYERS, make_trace, policy, request_of, sizes_of

WHOLE, SLICES = sizes_of(35, 0, LAYERS), sizes_of(19, 16, LAYERS)


def random_request(name, sizes, *, prompt=0, requests=2, tokens=30, **keys):
    rng = np.random.default_rng(3)
    ids = np.argsort(rng.random((requests * tokens, LAYERS, EXPERTS)) ** np.arange(1, EXPERTS + 1), axis=2)[:, :, :2]
    scores = np.sort(rng.random(ids.shape), axis=2)[:, :, ::-1] / 2
    number = np.repeat(np.arange(requests), tokens)
    phase = (np.arange(requests * tokens) % tokens >= prompt).astype(int)
    return request_of(make_trace(ids, scores, number, phase), policy(name), sizes, **keys)


@pytest.mark.parametrize("name", ["dbsc", "belady", "lfu-keep", "random", "slicemoe"])
def test_jobs_change_nothing(name):
    request = random_request(name, WHOLE if name not in ("dbsc", "slicemoe") else SLICES, prompt=5)
    sizes = np.linspace(least_bytes(request), all_bytes(request), 12).astype(np.int64)
    one, two = replayed_curve(request, sizes, jobs=1), replayed_curve(request, sizes, jobs=2)
    for phase in one.counts:
        for a, b in zip(one.counts[phase], two.counts[phase], strict=True):
            np.testing.assert_array_equal(a, b)


def test_belady_is_never_above_lru_where_sizes_are_equal():
    belady, lru = random_request("belady", WHOLE), random_request("lru-high", WHOLE)
    sizes = np.arange(least_bytes(lru), all_bytes(lru) + 1, 35)
    best, plain = (replayed_curve(request, sizes).counts["decode"].misses[:, 0] for request in (belady, lru))
    assert (best <= plain).all()
    assert (np.diff(best) <= 0).all()
    assert best[-1] == plain[-1]


def test_a_top_up_is_read_from_flash():
    keys = ("policy.warmup", (("name", "pcw-topup"),))
    request = random_request("dbsc", SLICES, prompt=10, requests=3)
    topped = request_of(request.trace, policy("dbsc", keys), SLICES)
    part = replayed_curve(topped, [190]).counts["prefill"]
    assert part.flash_bytes[0] - (part.misses[0] * [19, 16]).sum() == 4 * 19


def test_what_is_read_ahead_counts_in_flash_bytes():
    """An oracle of all bytes reads every miss of layers after the first before it happens: bytes stay, misses fall."""
    overlap = ("schedule.overlap", "prefetch")
    keys = (("policy.prefetch", (("name", "oracle"), ("budget_mb", 1.0))), overlap)
    plain = random_request("dbsc", SLICES)
    ahead = request_of(plain.trace, policy("dbsc", *keys), SLICES)
    part = replayed_curve(ahead, [190]).counts["decode"]
    read = sum(
        int(np.where(entries % 2, 16, 19)[entries >= 0].sum())
        for entries in (d.prefetched for d in decide(replace(ahead, capacity_bytes=190)))
    )
    assert read > 0
    assert part.flash_bytes[0] == (part.misses[0] * [19, 16]).sum() + read


def test_a_strategy_with_state_begins_anew_at_each_size():
    class Stateful(Eviction):
        _calls: list[int] = []  # noqa: RUF012  (pydantic copies a private default for each instance)

        def score(self, state: SliceState, entries: IntArray) -> Keys:
            self._calls.append(1)
            return (np.where(len(self._calls) % 2, 1, -1) * state.last_use[entries],)

    import dataclasses

    request = random_request("lru-high", WHOLE)
    own = dataclasses.replace(request, policy=dataclasses.replace(request.policy, eviction=Stateful()))
    alone, after = replayed_curve(own, [140]).at([140]), replayed_curve(own, [105, 140]).at([140])
    for phase in alone:
        for a, b in zip(alone[phase], after[phase], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_size_that_was_not_replayed_is_refused():
    with pytest.raises(UserError, match="a cache of 141 bytes was not replayed"):
        replayed_curve(random_request("dbsc", SLICES), [140, 142]).at([141])


# ---------------------------------------------------------------------- several policies


def three(**keys):
    return [
        random_request("lru-high", WHOLE, **keys),
        random_request("dbsc", SLICES, **keys),
        random_request("belady", WHOLE, **keys),
    ]


HEAD = {
    "scenario": {"amat": {"high_bits": 8, "low_bits": 4}, "cache": {"scope": "global"}, "policy": {}},
    "model": {"name": "tiny"},
    "trace": {"path": "memory", "source": "the tests", "synthetic": True},
}


def test_rows_and_files(tmp_path):
    done = []
    study = miss_rate_curves(three(), 6, progress=done.append)
    assert done[-1] == 18
    assert len(done) == 1 + 9 + 6  # dbsc is replayed at three sizes more, around its cliff
    assert done == sorted(done)
    frame = study.frame()
    assert frame.groupby("policy")["method"].first().to_dict() == {
        "lru-high": "one pass", "dbsc": "replay", "belady": "replay",
    }  # fmt: skip
    assert (frame["phase"] == "decode").all()
    assert len(frame) == 18
    lookups = frame[["msb_hits", "lsb_hits", "msb_misses", "lsb_misses"]].sum(axis=1)
    misses = frame["msb_misses"] + frame["lsb_misses"]
    np.testing.assert_allclose(frame["miss_rate_slices"], misses / lookups)
    whole = frame[frame["policy"] == "lru-high"]
    np.testing.assert_allclose(whole["flash_bytes_per_token"], whole["msb_misses"] * 35 / 60)
    assert whole["miss_rate_lsb"].isna().all()
    folder = study.save(tmp_path / "out", study.describe(HEAD))
    assert {file.name for file in folder.iterdir()} == {"summary.json", "mrc.parquet", "mrc.png", "mrc.svg"}
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "mrc.parquet"), frame, check_dtype=False)


def test_the_cliff_lies_between_two_drawn_sizes():
    study = miss_rate_curves(three(), 6)
    drawn = study.drawn()
    own = drawn[drawn["policy"] == "lru-high"]
    cliff = study.lines[0].cliff_bytes
    assert cliff == ((LAYERS - 1) * 2 + 1) * 35
    assert (own[own["capacity_bytes"] < cliff]["miss_rate_slices"] == 1).all()
    assert {cliff - 1, cliff} <= set(own["capacity_bytes"])


def test_prompts_on_a_filled_cache_are_said_to_be_replayed():
    study = miss_rate_curves([*three(prompt=4), random_request("lru-slices", SLICES, prompt=4)], 3)
    assert [line.curve.method for line in study.lines] == ["one pass", "replay", "replay", "replay"]
    assert "prompts meet a filled cache" in study.lines[3].note
    assert study.lines[2].note.startswith("optimal for objects of equal size only; no proven bound here: prompts")
    assert set(study.frame()["phase"]) == {"prefill", "decode"}


def test_what_a_reader_must_know():
    names = ("belady", "static", "slicemoe", "fifo")
    study = miss_rate_curves([random_request(name, SLICES) for name in names], 2)
    notes = {curve["policy"]: curve for curve in study.describe(HEAD)["curves"]}
    assert notes["belady"]["note"] == "optimal for objects of equal size only; no bound here: sizes differ"
    assert [notes[name]["optimal_for_equal_sizes"] for name in names] == [True, False, False, False]
    assert [notes[name]["offline"] for name in names] == [True, True, False, False]
    assert notes["slicemoe"]["note"] == "denied requests are no look-ups"
    assert notes["fifo"]["note"] == ""


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"from_gb": 1e-9}, "--from: 1e-09 GB hold less than one batch of experts; give at least 7e-08"),
        ({"from_gb": 2e-7, "to_gb": 1e-7}, "--to: 1e-07 GB is below the smallest size of 2e-07 GB"),
    ],
)
def test_sizes_that_cannot_be(keys, message):
    with pytest.raises(UserError, match=message):
        miss_rate_curves(three(), 3, **keys)


def test_the_same_policy_twice():
    with pytest.raises(UserError, match="two of the policies are called 'dbsc'"):
        miss_rate_curves([random_request("dbsc", SLICES)] * 2, 3)


def test_the_bound_lies_below_every_policy_with_the_same_look_ups():
    """Also at sizes where the policies' bytes are equal to it: all fits, each slice is read once."""
    names = ("lru-slices", "dbsc", "belady-slices", "slicemoe")
    study = miss_rate_curves([random_request(name, SLICES, prompt=4) for name in names], 5, headroom=True)
    bound = study.lines[-1]
    assert len(study.lines) == 5
    assert (bound.curve.label, bound.curve.method) == ("lower bound, slices", "bound")
    assert bound.note == "no cache reads less for the look-ups of lru-slices, dbsc, belady-slices"
    frame = study.frame()
    decode = frame[frame["phase"] == "decode"].set_index(["policy", "capacity_bytes"])["flash_bytes_per_token"]
    for name in names[:3]:
        assert (decode[bound.curve.label] <= decode[name] + 1e-9).all()
    assert decode[bound.curve.label].is_monotonic_decreasing
    assert "lower bound, slices" not in set(frame[frame["phase"] == "prefill"]["policy"])


def test_one_bound_for_each_kind_of_look_ups():
    whole, msb = (random_request(name, WHOLE) for name in ("lru-high", "lru-low"))
    thresholds = [
        request_of(whole.trace, policy("lru-slices", ("policy.precision.threshold", value)), SLICES)
        for value in (0.1, 0.3)
    ]
    labels = [curve.label for curve in bound_curves([whole, *thresholds, msb], np.array([100, 200]))]
    assert labels == [
        "lower bound, whole experts", "lower bound, slices", "lower bound, slices of lru-slices",
        "lower bound, MSB slices",
    ]  # fmt: skip
