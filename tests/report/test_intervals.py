"""Bootstrap intervals: by hand, against scipy, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from slicesim.report.intervals import COLUMNS, bootstrap_ratios, intervals, sum_by_request
from tests.kit import random_trace, run


def lengths_and_sums(seed, requests):
    """Requests of many lengths, each with a mean of its own, skewed: sums of 1 to 59 tokens."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 60, requests).astype(float)
    return tokens, tokens * rng.lognormal(0.0, 0.5, requests)


@pytest.mark.parametrize("requests", [8, 40])
def test_the_interval_is_that_of_scipy(requests):
    tokens, sums = lengths_and_sums(requests, requests)
    (own,) = bootstrap_ratios(sums[:, None], tokens[:, None], draws=20_000)
    theirs = stats.bootstrap(
        (sums, tokens), lambda above, below, axis=-1: above.sum(axis=axis) / below.sum(axis=axis), paired=True,
        vectorized=True, n_resamples=20_000, method="BCa", random_state=1,
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert own == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """300 samples of 40 requests; the mean of a token is exp(0.125). BCa is known to fall a little short of 95 %."""
    truth, held = np.exp(0.125), 0
    for seed in range(300):
        tokens, sums = lengths_and_sums(seed, 40)
        (ends,) = bootstrap_ratios(sums[:, None], tokens[:, None], draws=1000)
        held += ends[0] <= truth <= ends[1]
    assert 0.89 <= held / 300 <= 0.98


def test_tokens_are_not_taken_for_independent():
    """Two requests of 1,000 equal tokens each: the interval spans both, however many tokens there are."""
    (ends,) = bootstrap_ratios(np.array([[1000.0], [3000.0]]), np.array([[1000.0], [1000.0]]))
    assert ends == (1.0, 3.0)


def test_requests_that_agree_have_no_spread():
    above = np.array([[2.0], [4.0], [6.0]])
    assert bootstrap_ratios(above, above / 2) == [(2.0, 2.0)]


def test_a_ratio_that_does_not_exist_has_no_interval():
    assert bootstrap_ratios(np.zeros((3, 1)), np.zeros((3, 1))) == [None]


def test_many_requests_are_drawn_in_parts_and_the_same_each_time():
    above = np.random.default_rng(0).random((3000, 1))
    first, second = (bootstrap_ratios(above, np.ones_like(above)) for _ in range(2))
    assert first == second
    low, high = first[0]
    assert high - low == pytest.approx(2 * 1.96 * above.std() / 3000**0.5, rel=0.06)


def test_rows_are_added_up_by_phase_and_request():
    rows = {name: [1.0, 2.0, 4.0, 8.0] for name in COLUMNS}
    frame = pd.DataFrame({"phase": ["prefill", "decode", "decode", "decode"], "request": [0, 0, 0, 5], **rows})
    sums = sum_by_request([frame[:2], frame[2:]])
    assert sums.loc[("decode", 0), "latency_ps"] == 6.0
    assert sums.loc[("decode", 0), "steps"] == 2
    assert sums.loc[("decode", 5), "steps"] == 1


def test_intervals_of_a_run_lie_around_its_figures():
    result = run(random_trace(3, 40, requests=4, prompt=7), policy="dbsc")
    found = result.intervals
    assert found.requests == {"prefill": 4, "decode": 4}
    assert len(found.of) >= 30
    for (phase, *path), (low, high) in found.of.items():
        part = result.summary[phase]
        if path == ["flash_bytes_per_token"]:
            figure = part["bytes"]["flash_read"] / part["tokens"]
        else:
            figure = part
            for key in path:
                figure = figure[key]
        assert low - 1 <= figure <= high + 1, (phase, path)
        assert low <= figure * (1 + 1e-9), (phase, path)


def test_one_request_has_no_interval():
    found = intervals(
        sum_by_request(run(random_trace(3, 40, prompt=7), policy="dbsc").rows.frames(["phase", "request", *COLUMNS]))
    )
    assert found.requests == {"prefill": 1, "decode": 1}
    assert not found.of
