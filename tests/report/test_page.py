"""The report in a browser: it draws, complains of nothing, asks the network for nothing, and trusts no name."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from slicesim.cli import app
from slicesim.errors import UserError
from slicesim.report.page import write_report
from slicesim.report.saved import SavedRun
from tests.report.conftest import altered

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Resources(HTMLParser):
    """Collects what a document loads or links to, and its scripts' and styles' text apart."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def resources(text):
    found = Resources()
    found.feed(text)
    return found


def embedded(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def charts_drawn(dom):
    """Charts of plotly: each is one <svg class="main-svg"> that holds the axes, and a second one for what floats."""
    return len(re.findall(r'class="main-svg"[^>]*>\s*<defs', dom))


@pytest.fixture
def page(two_results, tmp_path):
    return write_report(two_results[:1], tmp_path / "one.html")


def test_a_page_of_one_run_draws_all_charts(page, browser):
    dom, console = browser.open(page)
    assert console == []
    figures = [figure["id"] for figure in embedded(page.read_text())["figures"]]
    assert figures == [
        "latency", "lookups", "quality", "energy", "energy-time", "residency-0", "timeline-0",
    ]  # fmt: skip
    assert f'data-drawn="{len(figures)}"' in dom
    assert charts_drawn(dom) >= len(figures)
    assert dom.count("SYNTHETIC TRACE") >= 1 + len(figures)
    assert re.search(r"<output>after request 2, token 39: [^<]+GB</output>", dom)


def test_several_runs_lie_over_each_other_on_a_phone(two_results, tmp_path, browser):
    third = altered(two_results[0], tmp_path / "third", lambda summary: None)
    page = write_report([*two_results, third], tmp_path / "three.html")
    dom, console = browser.open(page, width=500)
    assert console == []
    figures = {figure["id"]: figure for figure in embedded(page.read_text())["figures"]}
    assert f'data-drawn="{len(figures)}"' in dom
    lines = figures["latency"]["data"]
    assert len({line["name"] for line in lines}) == len({line["line"]["color"] for line in lines}) == 3
    assert {"time-parts", "misses", "lookup-parts", "mass-parts", "error", "timeline-2", "residency-2"} <= set(figures)
    assert "cache.capacity_gb" not in dom.split('id="differences"')[1].split("</section>")[0]
    assert "policy.eviction.name" in dom.split('id="differences"')[1].split("</section>")[0]


def test_the_page_asks_the_network_for_nothing(page):
    text = page.read_text()
    found = resources(text)
    assert [link for link in found.links if link != "data:,"] == []
    assert not {"iframe", "img", "object"} & set(found.tags)
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_names_are_text_and_never_mark_up(two_results, tmp_path, browser):
    def rename(summary):
        summary["policy"] = HOSTILE
        summary["warnings"] = [HOSTILE]
        summary["scenario"]["device"]["name"] = HOSTILE
        summary["scenario"]["device"]["flash"]["bandwidth_gbs"]["source"] = HOSTILE
        for key in ("path", "source", "notes"):
            summary["trace"][key] = HOSTILE

    hostile = altered(two_results[0], tmp_path / "hostile", rename)
    page = write_report([hostile, two_results[1]], tmp_path / "hostile.html")
    found = resources(page.read_text())
    assert found.handlers == []
    assert found.tags.count("script") == 3
    dom, console = browser.open(page)
    assert console == []
    assert resources(dom).handlers == []
    assert "img" not in resources(dom).tags
    assert "&lt;/script&gt;" in dom


def test_the_chart_shows_the_figures_of_the_tokens(two_results, page):
    """117 decode tokens and fewer bars than bins: one bar each, whose parts add up to the token's latency."""
    import pandas as pd

    tokens = pd.read_parquet(two_results[0] / "tokens.parquet")
    decode = tokens[tokens.phase == "decode"]
    figure = embedded(page.read_text())["figures"][0]
    heights = np.sum([part["y"] for part in figure["data"]], axis=0)
    np.testing.assert_allclose(heights, decode["latency_ps"] / 1e9, rtol=1e-4)


def test_the_map_shows_the_last_snapshot(two_results, page):
    saved = SavedRun.read(two_results[0]).residency()
    data = embedded(page.read_text())
    figure = next(figure for figure in data["figures"] if figure["id"] == "residency-0")
    assert figure["data"][0]["z"] == saved.slices[-1].tolist()
    assert len(data["maps"][0]["cells"]) == len(saved.row)


def test_results_without_a_map_or_a_timeline_are_drawn(two_results, tmp_path):
    bare = altered(two_results[0], tmp_path / "bare", lambda summary: None)
    (bare / "residency.parquet").unlink()
    (bare / "timeline.json").unlink()
    text = write_report([bare], tmp_path / "bare.html").read_text()
    assert "no snapshots of a cache" in text
    assert "No timeline was recorded" in text


def broken(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "summary.json").unlink(), "no result here"),
        (broken("summary.json", "{"), "is not JSON"),
        (broken("summary.json", '{"decode": []}'), "is not the result of slicesim run"),
        (broken("tokens.parquet", "no"), "cannot be read"),
        (lambda folder: (folder / "tokens.parquet").unlink(), "is missing"),
        (broken("residency.parquet", "no"), "cannot be read"),
        (broken("timeline.json", "[]"), "is not a timeline"),
    ],
)
def test_what_is_no_result_is_said_in_one_line(two_results, tmp_path, harm, said):
    folder = altered(two_results[0], tmp_path / "r", lambda summary: None)
    harm(folder)
    with pytest.raises(UserError, match=said):
        write_report([folder], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_result_given_twice_is_said(two_results, tmp_path):
    with pytest.raises(UserError, match="given twice"):
        write_report([two_results[0], two_results[0]], tmp_path / "r.html")


def test_the_command_writes_the_page(two_results, tmp_path):
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, ["report", str(two_results[0]), "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0
    assert done.output.startswith(f"written: {tmp_path / 'r.html'} (")
    assert (tmp_path / "r.html").stat().st_size < 7e6
