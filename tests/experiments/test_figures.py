"""The paper's figures: each script writes its files, and what is called equal quality is."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit import ROOT

FOLDER = ROOT / "experiments" / "figures"
PAPER = ("pareto", "equal_quality", "warmup", "warmup_equal", "truncations", "tiers", "disputed")
BEYOND = ("own_policy", "equal_error", "critical", "devices", "bandwidth")
FIGURES = (*(f"paper_{name}" for name in PAPER), *(f"beyond_{name}" for name in BEYOND))


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """Import as a script would, from its own folder; its modules are forgotten afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


def script(name: str):
    return importlib.import_module(name)


def test_all_figures(tmp_path, capsys):
    """One test, so that all are drawn once."""
    script("all").main(["--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    for words in ("2.37x", "1.81x", "2.31x / 1.96x", "twins (SYNTHETIC)", "expert traffic alone"):
        assert words in printed
    for name in FIGURES:
        _is_drawn(tmp_path, name)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".svg"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    _are_equal(pd.read_csv(tmp_path / "paper_equal_quality.csv"))
    limits = pd.read_csv(tmp_path / "beyond_bandwidth.csv")
    assert limits["roofline"].to_numpy() == pytest.approx(limits["gain"].to_numpy(), rel=0.02)


def _is_drawn(folder: Path, name: str) -> None:
    picture = (folder / f"{name}.svg").read_text(encoding="utf-8")
    assert picture.rstrip().endswith("</svg>"), name
    assert "SYNTHETIC" in picture or name == "paper_truncations", name
    assert "synthetic" in picture.lower(), name
    assert len(pd.read_csv(folder / f"{name}.csv")), name


def _are_equal(frame: pd.DataFrame) -> None:
    """Systems called equal have SliceMoE's error."""
    ours = frame.loc[frame["system"] == "SliceMoE", "rel_mse"].item()
    equal = frame[frame["equal_quality"]]
    assert len(equal) >= 3
    assert equal["rel_mse"].to_numpy() == pytest.approx(ours, rel=script("equal").TOLERANCE + 1e-5)
    assert not frame.loc[frame["system"] == "uniform high bits", "equal_quality"].item()


@given(
    shape=st.floats(0.2, 5), lowest=st.floats(0, 0.2), highest=st.floats(0.3, 1), target=st.floats(0.01, 1.2),
    tolerance=st.floats(0.001, 0.1),
)  # fmt: skip
def test_bisection_meets_the_target_or_names_the_end(shape, lowest, highest, target, tolerance):
    """On rising curves lowest + (highest - lowest) x knob^shape."""
    equal = script("equal")
    replays = []

    def at(knob: float) -> tuple[float, float]:
        replays.append(knob)
        return lowest + (highest - lowest) * knob**shape, knob

    match = equal.match(at, target, 0.0, 1.0, tolerance, 40)
    assert match.found == match.knob
    assert match.proxy == lowest + (highest - lowest) * match.knob**shape
    assert match.met == (abs(match.proxy - target) <= tolerance * target)
    if not match.met:
        assert match.knob == (1.0 if target > highest else 0.0)
        assert not lowest <= target <= highest
    assert len(replays) <= 40


def test_a_leap_over_the_target_is_not_called_a_match():
    """A proxy of 0.1 below a knob of 0.6 and 0.5 from there on never is 0.25: the nearer side is returned."""
    match = script("equal").match(lambda knob: (0.1 if knob < 0.6 else 0.5, None), 0.25, 0.0, 1.0)
    assert (match.proxy, match.met) == (0.1, False)


def test_recorded_sequences_are_cut_into_requests(tmp_path):
    """Of sequences of 9, 25 and 4 tokens, requests of 4 + 6: none, two and none; the rest of the second is left out."""
    kit = script("kit")
    lengths, shape = (9, 25, 4), kit.Shape(1, 4, 6)
    generator = np.random.default_rng(0)
    ids = np.array([[generator.permutation(64)[:6] for _ in range(26)] for _ in range(sum(lengths))], dtype=np.uint8)
    folder = tmp_path / "deepseek-v2-lite"
    folder.mkdir()
    meta = {"model": "deepseek-v2-lite", "E": 64, "K": 6, "w_scale": 65535, "weight": "softmax probability"}
    weights = np.sort(generator.integers(1, 9000, ids.shape), axis=2)[..., ::-1]
    np.savez(
        folder / "a.npz", ids=ids, w=weights.astype(np.uint16), layers=np.arange(1, 27, dtype=np.int16),
        seq=np.repeat(np.arange(3, dtype=np.int32), lengths), phase=np.zeros(sum(lengths), np.uint8),
        meta=json.dumps(meta),
    )  # fmt: skip
    subject = kit.recorded(tmp_path, "deepseek-v2-lite", shape)
    block = subject.trace.block
    assert subject.layer_share == 1
    assert block.request.tolist() == [0] * 10 + [1] * 10
    assert block.phase.tolist() == ([0] * 4 + [1] * 6) * 2
    assert (block.ids == ids[9:29]).all()
    assert kit.recorded(tmp_path, "qwen1.5-moe-a2.7b", shape) is None


def test_a_wrong_folder_gives_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        script("pareto").main(["--real", str(tmp_path / "none"), "--out", str(tmp_path)])
    assert end.value.code == 2
    assert "no such folder" in capsys.readouterr().err
