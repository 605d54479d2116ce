"""``slicesim quality`` where the extra is missing: one line; its help needs nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BLOCKED = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from slicesim.cli import main
main()
"""
HELP = """
import sys
from slicesim.cli import app
try:
    app(["quality", "--help"])
except SystemExit as end:
    assert not end.code
heavy = {"torch", "transformers", "safetensors", "matplotlib", "numba"} & set(sys.modules)
assert not heavy, heavy
"""


def python(program: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, cwd=cwd)


def test_the_extra_is_named(tmp_path: Path) -> None:
    done = python(BLOCKED, "quality", "model", "--text", "t.txt", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("slicesim: live models need torch and transformers")
    assert not list(tmp_path.iterdir())


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    done = python(HELP, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--whole-batch" in done.stdout
