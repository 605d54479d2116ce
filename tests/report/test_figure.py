"""Plots fit for a paper: vector beside pixels, the same bytes each time, letters that can be read, a stamp."""

from __future__ import annotations

import re

import pytest

from slicesim.report import plots
from slicesim.report.figure import PAGE_IN, TEXT, canvas, finish
from slicesim.report.plots import BINS, DRAWN, overview
from slicesim.report.saved import SavedRun

TRACE = {"path": "t.parquet", "synthetic": True}


def drawn(folder, name):
    folder.mkdir()
    with canvas(PAGE_IN, 2.0) as (figure, axis):
        axis.plot([0, 1], [0, 1])
        axis.set_xlabel("time (ms)")
        finish(figure, "a heading", TRACE, folder / name)
    return folder / name


def test_a_png_has_its_svg_beside_it_and_both_are_the_same_each_time(tmp_path):
    first, second = (drawn(tmp_path / name, "p.png") for name in "ab")
    assert sorted(path.name for path in first.parent.iterdir()) == ["p.png", "p.svg"]
    for suffix in (".png", ".svg"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()


def test_the_vector_file_is_as_wide_as_a_page_and_needs_no_font(tmp_path):
    text = drawn(tmp_path / "a", "p.svg").read_text()
    assert not (tmp_path / "a" / "p.png").exists()
    assert float(re.search(r'<svg [^>]*width="([\d.]+)pt"', text)[1]) == pytest.approx(72 * PAGE_IN)
    assert "<text" not in text
    assert "<dc:date>" not in text
    assert "SYNTHETIC TRACE" in text  # the stamp's letters are outlines; the comment beside them names them


def test_no_letter_is_smaller_than_eight_points(two_results, tmp_path, monkeypatch):
    from matplotlib.text import Text

    sizes = []

    def look(figure, *_):
        sizes.extend(text.get_fontsize() for text in figure.findobj(Text) if text.get_text())

    monkeypatch.setattr(plots, "finish", look)
    saved = SavedRun.read(two_results[0])
    overview(saved.summary, *saved.binned(DRAWN, BINS), tmp_path / "o.png")
    assert len(sizes) > 20
    assert min(sizes) >= TEXT == 8
