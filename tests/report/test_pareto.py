"""The front, and labels that do not cover each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from slicesim.report.pareto import pareto_front, pareto_plot, spread


def row(policy, quality, energy, *, offline=False, objects="slices", headroom=1.5):
    return {
        "policy": policy, "expected_rel_mse": quality, "energy_pj": energy, "offline": offline, "objects": objects,
        "headroom": headroom,
    }  # fmt: skip


ROWS = [
    row("a", 0.1, 5e9),
    row("beaten in both", 0.2, 6e9),
    row("b", 0.3, 2e9, objects="whole"),
    row("as good, but costlier", 0.1, 7e9, objects="msb"),
    row("knows the future", 0.05, 1e9, offline=True),
    row("holds all", 0.01, 1e8, headroom=None),
    row("nothing decoded", None, None, headroom=None),
]


def test_front():
    assert [own["policy"] for own in pareto_front(ROWS)] == ["a", "b"]
    assert pareto_front([]) == []


def test_every_name_is_drawn_and_the_stamp_too(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("matplotlib.axes.Axes.annotate", lambda axis, text, *_, **__: written.append(text))
    trace = {"path": "t.parquet", "synthetic": True}
    stamped = []
    plain = Figure.text
    monkeypatch.setattr(Figure, "text", lambda *words, **keys: stamped.append(words[3]) or plain(*words, **keys))
    pareto_plot(ROWS, "Heading", trace, tmp_path / "p.png")
    assert sorted(written) == sorted([*(f"{own['policy']}  1.50x" for own in ROWS[:-2]), "holds all"])
    assert "SYNTHETIC TRACE" in stamped
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_no_rows(tmp_path):
    pareto_plot(ROWS[-1:], "Heading", {"path": "t.parquet"}, tmp_path / "p.png")
    assert (tmp_path / "p.png").exists()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.floats(0.1, 20))
def test_labels_keep_their_distance(heights, least):
    heights = np.sort(heights)
    moved = spread(heights, least, 0.0, 100.0)
    room = min(least, 100 / max(len(heights) - 1, 1))
    assert (np.diff(moved) >= room - 1e-9).all()
    assert moved.min() >= -1e-9
    assert moved.max() <= 100 + 1e-9


def test_labels_that_are_apart_stay():
    np.testing.assert_allclose(spread(np.array([10.0, 40.0, 80.0]), 15, 0, 100), [10, 40, 80])
    np.testing.assert_allclose(spread(np.array([40.0, 40.0]), 10, 0, 100), [35, 45])
