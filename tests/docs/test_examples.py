"""Every command and Python block of README and docs runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import ROOT

#: The tutorial is walked through from top to bottom (test_walkthroughs.py).
DOCS = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem != "tutorial"]
PAGES = [ROOT / "README.md", ROOT / "traces" / "README.md", *DOCS]


def blocks(language: str) -> list[str]:
    found = []
    for page in PAGES:
        found += re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return found


#: The lines of one block share a folder and run in sequence, so a later line may read what an earlier one wrote.
COMMAND_BLOCKS = blocks("sh")
PROGRAMS = [block for block in blocks("python") if not block.startswith("# examples:")]

#: Commands that need the extra ``capture``: run where torch is.
LIVE_COMMAND_BLOCKS = blocks("sh capture")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("hwconfigs", "traces", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run_in_sequence(block: str, folder: Path) -> None:
    for command in filter(str.strip, block.splitlines()):
        words = shlex.split(command)
        assert words[0] in ("slicesim", "python")
        words = ["-m", *words] if words[0] == "slicesim" else words[1:]
        done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip(), command


@pytest.mark.parametrize("block", LIVE_COMMAND_BLOCKS)
def test_live_commands(block, checkout):
    pytest.importorskip("torch")
    run_in_sequence(block, checkout)


@pytest.mark.parametrize("block", COMMAND_BLOCKS)
def test_commands(block, checkout):
    run_in_sequence(block, checkout)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program, checkout):
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pages_hold_examples():
    assert len(COMMAND_BLOCKS) >= 5
    assert len(LIVE_COMMAND_BLOCKS) >= 1
    assert len(PROGRAMS) >= 1


def test_the_policy_in_the_readme_is_the_one_in_experiments():
    shown = next(block for block in blocks("python") if "class MyEviction" in block)
    file = (ROOT / "experiments" / "my_policy.py").read_text(encoding="utf-8")
    assert "return float(entry.gate_mass)" in shown
    assert "return float(entry.gate_mass)" in file
