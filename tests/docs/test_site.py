"""The site builds without a warning: no broken link, no page left out; and it asks no network for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.kit import ROOT

pytest.importorskip("material")
pytest.importorskip("nbconvert")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    source = r"<(?:script|img|iframe)[^>]* src=\"?https?:"
    sheet = r"<link[^>]*(?:stylesheet|preconnect)[^>]* href=\"?https?:"
    loaded = re.compile(f"{source}|{sheet}")
    assert [page.name for page in pages if loaded.search(page.read_text(encoding="utf-8"))] == []


def test_links_out_of_docs_lead_to_pages(site):
    """docs/own-policy.md links ../traces/README.md, which links its own neighbours."""
    assert 'href="repository/traces/index.html"' in (site / "own-policy.html").read_text(encoding="utf-8")
    text = (site / "repository" / "traces" / "index.html").read_text(encoding="utf-8")
    assert 'href="micro/index.html"' in text
    assert 'href="../../twins.html"' in text
    assert "extends" in (site / "repository" / "hwconfigs" / "oneplus-15r.yaml.html").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_search_works_from_disk(site):
    page = (site / "index.html").as_uri() + "?q=headroom"
    command = ["chromium", "--headless=new", "--no-sandbox", "--virtual-time-budget=15000", "--dump-dom", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert re.search(r"\d+ matching documents", done.stdout), done.stderr


def test_the_notebook_has_its_outputs(site):
    text = (site / "notebooks" / "api.html").read_text(encoding="utf-8")
    assert "tokens/s" in text
    assert len(list((site / "notebooks").glob("*.svg"))) == 2
