"""``slicesim policies``."""

from __future__ import annotations

import json

from tests.cli.test_mistakes import refused


def test_list(slicesim, here):
    code, out, _ = slicesim("policies", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"slicemoe", "hobbit", "moe-infinity", "all-in-dram", "mmap"} <= {row["policy"] for row in rows}
    assert "slicemoe" in slicesim("policies").out


def test_one(slicesim, here):
    shown = json.loads(slicesim("policies", "edgemoe", "--json").out)
    assert shown["precision"]["name"] == "static-widths"
    assert shown["schedule"] == {"overlap": "prefetch"}
    assert "path" in slicesim("policies", "edgemoe").out


def test_mistakes(slicesim, here):
    refused(slicesim("policies", "hobit"), "no preset 'hobit' (did you mean 'hobbit'?)")
    refused(slicesim("policies", "--page", "."), "is a folder; give the name of a file with --page")


def test_page(slicesim, here):
    assert slicesim("policies", "--page", "p.md").code == 0
    assert (here / "p.md").read_text(encoding="utf-8").startswith("# Policies\n")
