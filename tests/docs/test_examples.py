"""Every command and Python block of README and docs runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import ROOT

PAGES = [ROOT / "README.md", ROOT / "traces" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    found = []
    for page in PAGES:
        found += re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return found


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
PROGRAMS = [block for block in blocks("python") if not block.startswith("# examples:")]


#: Commands that need the extra ``capture``: run where torch is.
LIVE_COMMANDS = [line for block in blocks("sh capture") for line in block.splitlines() if line.strip()]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("hwconfigs", "traces", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize("command", LIVE_COMMANDS)
def test_live_command(command, checkout):
    pytest.importorskip("torch")
    test_command(command, checkout)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, checkout):
    words = shlex.split(command)
    assert words[0] in ("slicesim", "python")
    words = ["-m", *words] if words[0] == "slicesim" else words[1:]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program, checkout):
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pages_hold_examples():
    assert len(COMMANDS) >= 5
    assert len(LIVE_COMMANDS) >= 2
    assert len(PROGRAMS) >= 1


def test_the_policy_in_the_readme_is_the_one_in_experiments():
    shown = next(block for block in blocks("python") if "class MyEviction" in block)
    file = (ROOT / "experiments" / "my_policy.py").read_text(encoding="utf-8")
    assert "return float(entry.gate_mass)" in shown
    assert "return float(entry.gate_mass)" in file
