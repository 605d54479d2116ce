from __future__ import annotations

import warnings

import numpy as np
import pytest
import yaml

from slicesim.errors import UserError
from slicesim.trace.store import write_trace
from slicesim.trace.synth import synthesise
from slicesim.trace.table import require_faultless
from slicesim.trace.twin.complete import complete
from slicesim.trace.twin.fill import Filling
from slicesim.trace.twin.fit import fit_twin
from slicesim.trace.twin.make import fit_profile
from slicesim.trace.twin.profile import make_profile, read_profile, write_profile
from slicesim.trace.twin.recording import read_recording, reuse
from tests.trace.samples import joined
from tests.trace.twin.samples import EXPERTS, LAYERS, TOP_K, small_trace, small_twin


@pytest.fixture(scope="module")
def recording():
    return read_recording([small_trace(400, 8)])


@pytest.fixture(scope="module")
def fitted(recording):
    return fit_twin(recording)


@pytest.fixture(scope="module")
def profile(recording, fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "small.yaml"
    write_profile(path, make_profile("small", recording, fitted, "tests"))
    return path


def _routes(twin, lengths, seed):
    latents = np.concatenate(list(twin.draw_latents(lengths, np.random.default_rng(seed))))
    return np.argsort(-latents, axis=2, kind="stable")[:, :, :TOP_K].astype(np.int32)


def test_a_fitted_twin_reuses_experts_as_what_it_was_fitted_to(recording, fitted):
    """A second draw of the source differs from the first by up to .02 at these sizes."""
    wanted, popularity = reuse(recording.ids, recording.lengths, EXPERTS)
    got, its_popularity = reuse(_routes(fitted, [400] * 16, 9), [400] * 16, EXPERTS)
    np.testing.assert_allclose(got.mean(axis=1), wanted.mean(axis=1), atol=0.03)
    np.testing.assert_allclose(got[0], wanted[0], atol=0.05)
    assert np.corrcoef(popularity.ravel(), its_popularity.ravel())[0, 1] > 0.9


def test_the_same_recording_gives_the_same_twin(recording, fitted):
    again = fit_twin(recording)
    for one, other in zip(fitted, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_profile_is_read_as_it_was_written(profile, fitted):
    read, twin = read_profile(profile)
    assert (read.experts, read.top_k, read.layers) == (EXPERTS, TOP_K, list(range(LAYERS)))
    for one, other in zip(fitted, twin, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3)
    assert profile.stat().st_size < 20_000


def test_synthetic_traces_say_so_and_are_the_same_for_the_same_seed(profile):
    one, same, other = (synthesise(profile, 40, seed, requests=3, prompt_fraction=0.25) for seed in (1, 1, 2))
    assert one.digest == same.digest != other.digest
    assert one.header.synthetic
    assert one.header.has_logits
    assert "twin of small" in one.header.source
    assert one.request_lengths() == {0: 40, 1: 40, 2: 40}
    require_faultless(one.header, one.block, "t")
    logits = one.block.logits
    assert logits is not None
    np.testing.assert_array_equal(np.argsort(-logits, axis=2, kind="stable")[:, :, :TOP_K], one.block.ids)


@pytest.mark.parametrize("score_kind", ["softmax", "renormalised"])
def test_completed_traces_keep_what_was_recorded(profile, score_kind):
    trace = small_trace(50, 2, seed=8, score_kind=score_kind)
    header, blocks = complete(trace, profile)
    block = joined(blocks)
    assert header.has_logits
    assert header.imputed_logits
    np.testing.assert_array_equal(block.ids, trace.block.ids)
    np.testing.assert_array_equal(block.scores, trace.block.scores)
    logits = block.logits.astype(np.float64)
    np.testing.assert_array_equal(np.sort(np.argsort(-logits, axis=2)[:, :, :TOP_K]), np.sort(block.ids))
    weights = np.exp(logits)
    chosen = np.take_along_axis(weights, block.ids, 2)
    whole = chosen if score_kind == "renormalised" else weights
    np.testing.assert_allclose(chosen / whole.sum(axis=2, keepdims=True), block.scores, rtol=2e-3)


def test_imputed_logits_know_more_than_chance(profile):
    """Hidden scores are known here: imputed ones must correlate with them over experts that were not chosen."""
    trace = small_trace(200, 2, seed=8, logits=True)
    hidden = trace.block.logits
    bare = small_trace(200, 2, seed=8)
    block = joined(complete(bare, profile)[1])
    unchosen = np.ones(hidden.shape, np.bool_)
    np.put_along_axis(unchosen, trace.block.ids, False, 2)
    centred = [part - part.mean(axis=(0, 2), keepdims=True) for part in (hidden, block.logits)]
    assert np.corrcoef(centred[0][unchosen], centred[1][unchosen])[0, 1] > 0.3


@pytest.mark.parametrize("beside", [0.0, -0.04])
def test_filled_layers_bring_the_reuse_that_is_known_over_all_layers(recording, beside):
    wanted = reuse(recording.ids, recording.lengths, EXPERTS)[0][0].mean() + beside
    filling = Filling(recorded=(0, 1, 4, 5), layers=tuple(range(6)), adjacent_reuse=wanted)
    twin = fit_twin(recording, filling=filling)
    profile = make_profile("filled", recording, twin, "tests", filling=filling)
    assert profile.is_filled
    assert twin.layers == 6
    got, _ = reuse(_routes(twin, [400] * 16, 9), [400] * 16, EXPERTS)
    assert got[0].mean() == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 99}, "must be below the number of experts"),
        ({"layers": [0, 1, 2, 2]}, "layers must rise"),
        ({"experts": 8}, "twin.mean: must have the shape"),
        ({"twin.share": None}, "twin.share: missing array"),
        ({"twin.extra": {"shape": [1], "dtype": "uint8", "zlib_base64": "x"}}, "twin.extra: unknown array"),
        ({"twin.carry": {"shape": [4], "dtype": "float16", "zlib_base64": "?"}}, "twin.carry: not zlib in base64"),
        ({"twin.carry": {"shape": [4], "dtype": "float16", "zlib_base64": "eJwDAAAAAAE="}}, "does not hold 8 bytes"),
        ({"twin.carry": {"shape": [4], "dtype": "float64", "zlib_base64": ""}}, "dtype"),
        ({"surprise": 1}, "unknown key"),
    ],
)
def test_a_profile_that_is_not_valid(profile, tmp_path, change, message):
    data = yaml.safe_load(profile.read_text())
    for key, value in change.items():
        *parents, last = key.split(".")
        node = data
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[last]
        else:
            node[last] = value
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(UserError, match=message) as error:
        synthesise(tmp_path / "p.yaml", 4, 0)
    assert str(tmp_path / "p.yaml") in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "--tokens"),
        ({"requests": 0}, "--requests"),
        ({"seed": -1}, "--seed"),
        ({"prompt_fraction": 1.5}, "--prompt-fraction"),
        ({"prompt_fraction": float("nan")}, "--prompt-fraction"),
    ],
)
def test_arguments_out_of_range(profile, arguments, message):
    with pytest.raises(UserError, match=message):
        synthesise(profile, **({"tokens": 4, "seed": 0} | arguments))


def test_traces_that_cannot_be_fitted(tmp_path, profile):
    def write(name, trace):
        write_trace(tmp_path / name, trace.header, trace.blocks())
        return tmp_path / name

    short = write("short.parquet", small_trace(20, 2))
    plain = write("plain.parquet", small_trace(200, 2))
    relative = write("relative.parquet", small_trace(200, 2, score_kind="renormalised"))
    with pytest.raises(UserError, match="40 whole tokens are too few"):
        fit_profile([short], "p")
    with pytest.raises(UserError, match=r"score_kind is renormalised, but plain\.parquet has softmax"):
        fit_profile([plain, relative], "p")
    with pytest.raises(UserError, match="are for layers that are filled in"):
        fit_profile([plain], "p", adjacent_reuse=0.2)
    with pytest.raises(UserError, match="name the model"):
        fit_profile([plain], "p", fill_layers=True)
    with pytest.raises(UserError, match="already holds logits"):
        complete(small_trace(20, 2, logits=True), profile)


def test_requests_shorter_than_most_lags_can_be_fitted():
    recording = read_recording([small_trace(20, 20)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = fit_twin(recording)
    assert all(np.isfinite(part).all() for part in twin)


def test_full_logits_are_fitted_as_they_are():
    twin = fit_twin(read_recording([small_trace(400, 8, logits=True)]))
    truth = small_twin()
    wanted, _ = reuse(_routes(truth, [400] * 16, 3), [400] * 16, EXPERTS)
    got, _ = reuse(_routes(twin, [400] * 16, 4), [400] * 16, EXPERTS)
    np.testing.assert_allclose(got.mean(axis=1), wanted.mean(axis=1), atol=0.03)
