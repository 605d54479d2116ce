from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from slicesim.trace.twin.context import KEPT, LAGS, autocovariance, autoregressive, lasting_parts
from slicesim.trace.twin.factors import draw_unknown, fit_factors, normal_quantile
from slicesim.trace.twin.kinds import find_kinds, follow_chances, walk
from slicesim.trace.twin.recording import read_recording, reuse
from slicesim.trace.twin.scores import fit_scores, log_scores, score_quantiles
from tests.trace.twin.samples import EXPERTS, LAYERS, TOP_K, small_trace, small_twin


@pytest.mark.parametrize("p", [1e-9, 1e-4, 0.02, 0.03, 0.3, 0.5, 0.7, 0.98, 1 - 1e-6])
def test_quantile_against_the_standard_library(p):
    assert normal_quantile(p) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-7, abs=1e-8)


def test_unknown_scores_lie_below_the_limit_and_are_normal_there():
    """Below 0, a standard normal has the mean -sqrt(2 / pi) = -0.798."""
    x = np.zeros((4000, 2), np.float32)
    known = np.zeros(x.shape, np.bool_)
    known[:, 0] = True
    x[:, 0] = 7
    limits = np.zeros((4000, 1), np.float32)
    uniform = np.random.default_rng(0).random(x.shape, dtype=np.float32)
    draw_unknown(x, known, limits, np.zeros_like(x), np.ones(2, np.float32), uniform)
    assert (x[:, 0] == 7).all()
    assert (x[:, 1] < 0).all()
    assert x[:, 1].mean() == pytest.approx(-0.798, abs=0.03)


def test_factors_of_full_scores_carry_the_variance_that_was_put_in():
    """Known scores, 4 factors of variance 4 each on 64 experts with own noise of 0.25: factors hold 16 of 32 parts."""
    rng = np.random.default_rng(3)
    loadings = np.linalg.qr(rng.standard_normal((64, 4)))[0]
    values = 2 * rng.standard_normal((4000, 4)) @ loadings.T + 0.5 * rng.standard_normal((4000, 64))
    trace = small_trace(500, 8, logits=True)
    recording = read_recording([trace])
    latents = values.reshape(4000, LAYERS, EXPERTS).astype(np.float32)
    fitted = fit_factors(
        type(recording)(**{**vars(recording), "latents": latents, "known": np.ones(latents.shape, np.bool_)}), rng
    )
    strength = fitted.factors.var(axis=0)
    assert strength[:4] == pytest.approx([4, 4, 4, 4], rel=0.15)
    assert strength[4:].max() < 0.5
    overlap = np.linalg.svd(fitted.loadings[:, :4].T @ loadings)[1]
    assert overlap.min() > 0.98


def test_censored_scores_are_fitted_too():
    """Only the top 3 of 16 are known; the means of all log scores, known here, come out."""
    fitted = fit_factors(read_recording([small_trace(500, 8)]), np.random.default_rng(0))
    truth = read_recording([small_trace(500, 8, logits=True)]).latents.mean(axis=0).ravel()
    assert np.corrcoef(fitted.mean, truth)[0, 1] > 0.8


def test_autocovariance_by_hand():
    """Two requests 1 2 | 3 5: pairs at lag 1 are 1 x 2 and 3 x 5, on average 8.5; there is none at lag 2."""
    covariance, pairs = autocovariance(np.array([[1.0], [2], [3], [5]]), [2, 2])
    assert covariance[:2, 0].tolist() == [8.5, 0]
    assert pairs[:3].tolist() == [2, 0, 0]


def test_lasting_parts_are_found_again():
    """2 for a whole request, 1 that keeps .95 a token, of a variance of 4."""
    lags = LAGS.astype(float)
    covariance = (2 + 0.95**lags)[:, None]
    parts = lasting_parts(covariance, np.full(len(LAGS), 100.0), np.array([4.0]))
    assert parts.shape == (1, len(KEPT) + 2)
    fitted = parts[0, 0] + sum(share * kept**lags for share, kept in zip(parts[0, 1:], (*KEPT, 0.3), strict=True))
    np.testing.assert_allclose(fitted, covariance[:, 0], atol=0.05)
    assert (lasting_parts(-covariance, np.full(len(LAGS), 100.0), np.array([4.0])) == 0).all()


def test_autoregressive_keeps_its_share():
    values = autoregressive(20_000, 2, 0.8, np.random.default_rng(0))
    assert values.var(axis=0) == pytest.approx([1, 1], abs=0.12)
    assert (values[1:] * values[:-1]).mean(axis=0) == pytest.approx([0.8, 0.8], abs=0.1)


def test_kinds_count_what_follows_inside_requests():
    """Tokens A B | A: B follows A once, nothing follows B; the second A begins a request."""
    factors = np.repeat(np.array([[0.0, 0], [9, 9]]), [32, 32], axis=0)
    kinds = find_kinds(factors, [64], np.random.default_rng(1))
    assert kinds.followers.sum() == 63
    assert kinds.share.sum() == pytest.approx(1)
    chances = follow_chances(np.array([[0.0, 2], [0, 0]]), np.array([0.25, 0.75]))
    np.testing.assert_allclose(chances, [[0.0125, 0.9875], [0.25, 0.75]])


def test_a_walk_repeats_a_kind_as_often_as_its_chances_say_however_strong_the_context():
    chances = np.array([[0.1, 0.9, 0.0], [0.5, 0.1, 0.4], [0.3, 0.6, 0.1]])
    pull = 2 * np.eye(3)
    tokens = 20_000
    out = np.empty(tokens, np.int64)
    context = np.repeat(np.array([[1.0, 0, 0]]), tokens, axis=0)
    uniform = np.random.default_rng(4).random(tokens)
    walk(chances, np.full(3, 1 / 3), pull, context, uniform, np.empty(3), out)
    again = out[1:] == out[:-1]
    assert again.mean() == pytest.approx(0.1, abs=0.01)
    from_1 = out[1:][(out[:-1] == 1) & ~again]
    # of the others, 0 is favoured by e^2: .5 e^2 / (.5 e^2 + .4)
    assert (from_1 == 0).mean() == pytest.approx(0.902, abs=0.015)


@pytest.mark.parametrize("whole", [True, False])
def test_scores_come_out_as_wanted(whole):
    """Of a sample whose scores are known, under a twin that begins with another map."""
    twin = small_twin()
    sample = np.concatenate(list(twin.draw_latents([400] * 4, np.random.default_rng(5))))
    ordered = np.sort(sample, axis=2)[:, :, ::-1]
    scores = np.exp(log_scores(twin.logits(ordered), TOP_K, whole=whole))
    mass = scores.sum(axis=2).mean(axis=0)
    strange = twin._replace(slope=np.full(LAYERS, 3.0), heights=2 * twin.heights)
    fitted = fit_scores(strange, sample, score_quantiles(scores), mass if whole else None, TOP_K)
    got = np.exp(log_scores(fitted.logits(ordered), TOP_K, whole=whole))
    np.testing.assert_allclose(got.sum(axis=2).mean(axis=0), mass, rtol=0.02)
    np.testing.assert_allclose(got.mean(axis=0), scores.mean(axis=0), rtol=0.06)
    np.testing.assert_allclose((got >= 0.1).mean(), (scores >= 0.1).mean(), rtol=0.03)


def test_logits_by_hand():
    """Corners -2 and 1 with heights -2 and .5 (8 equal pieces of slope 5 / 6); slope .9 below: -3 maps to -2.9."""
    latents = np.zeros((1, LAYERS, 3), np.float32)
    latents[:] = [-3, -2, 1.6]
    assert small_twin().logits(latents)[0, 0] == pytest.approx([-2.9, -2, 1.0])


def test_reuse_by_hand():
    """Experts 0 1 | 1 2 | 0 2 of one layer: lag 1 shares one of two each time, lag 2 one (0) of two."""
    ids = np.array([[[0, 1]], [[1, 2]], [[0, 2]]], np.int32)
    rates, popularity = reuse(ids, [3], 3)
    assert rates[:2, 0].tolist() == [0.5, 0.5]
    assert np.isnan(rates[2:]).all()
    assert popularity[0] == pytest.approx([2 / 3] * 3)
