"""The site builds without a warning: no broken link, no page left out. It asks no network for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.kit import ROOT

pytest.importorskip("material")
pytest.importorskip("nbconvert")


def test_site(tmp_path):
    """One build for all checks: it takes longer than they do."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    nothing_is_loaded_from_the_network(tmp_path)
    links_out_of_docs_lead_to_pages(tmp_path)
    the_notebook_has_its_outputs(tmp_path)
    if shutil.which("chromium"):
        search_works_from_disk(tmp_path)


def nothing_is_loaded_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    source = r"<(?:script|img|iframe)[^>]* src=\"?https?:"
    sheet = r"<link[^>]*(?:stylesheet|preconnect)[^>]* href=\"?https?:"
    loaded = re.compile(f"{source}|{sheet}")
    assert [page.name for page in pages if loaded.search(page.read_text(encoding="utf-8"))] == []


def links_out_of_docs_lead_to_pages(site):
    """docs/own-policy.md links ../traces/README.md, which links its own neighbours; a guide links a folder."""
    assert 'href="repository/traces/index.html"' in (site / "own-policy.html").read_text(encoding="utf-8")
    text = (site / "repository" / "traces" / "index.html").read_text(encoding="utf-8")
    assert 'href="micro/index.html"' in text
    assert 'href="../../twins.html"' in text
    assert "extends" in (site / "repository" / "hwconfigs" / "oneplus-15r.yaml.html").read_text(encoding="utf-8")


def the_notebook_has_its_outputs(site):
    text = (site / "notebooks" / "api.html").read_text(encoding="utf-8")
    assert "tokens/s" in text
    assert len(list((site / "notebooks").glob("*.svg"))) == 2


def search_works_from_disk(site):
    page = (site / "index.html").as_uri() + "?q=headroom"
    command = ["chromium", "--headless=new", "--no-sandbox", "--virtual-time-budget=15000", "--dump-dom", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert re.search(r"\d+ matching documents", done.stdout), done.stderr
