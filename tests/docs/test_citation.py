"""CITATION.cff: what its schema (1.2.0) asks for, and the version that is installed."""

from __future__ import annotations

import yaml

from slicesim.version import __version__
from tests.kit import ROOT


def test_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert str(cited["version"]) == __version__
    assert cited["authors"] == [{"name": "slicesim contributors"}]
    assert cited["license"] == "Apache-2.0"
