"""Pages that follow from code are what the code says."""

from __future__ import annotations

import pytest
import typer

import slicesim
from docs.tools.cli_page import cli_page
from docs.tools.references import DOCS, PAGES
from docs.tools.scenario_page import UNITS, scenario_page, unit_of
from slicesim.cli import app


@pytest.mark.parametrize("name", PAGES)
def test_page(name):
    """Else: python docs/tools/references.py."""
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name]()


def test_every_command_is_there():
    page = cli_page()
    for name, command in typer.main.get_command(app).commands.items():
        for inner in getattr(command, "commands", {"": command}):
            assert f"\n## slicesim {name} {inner}".rstrip() + "\n" in page


def test_every_public_name_is_there():
    page = PAGES["api.md"]()
    assert all(f"\n## {name}\n" in page for name in slicesim.__all__)


def test_every_key_of_a_scenario_says_what_it_means():
    rows = [line.split(" | ") for line in scenario_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row[0] for row in rows if len(row) != 5 or not row[4].strip(" |")] == []


def test_units():
    assert unit_of("energy_pj_per_bit") == "pJ/bit"  # the longest ending counts, not _pj
    assert unit_of("bandwidth_gbs") == UNITS["_gbs"]
    assert unit_of("lanes") == ""
