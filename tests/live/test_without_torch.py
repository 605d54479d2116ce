"""slicesim without the extra: nothing imports torch, and what needs it says which extra to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "safetensors", "matplotlib")


def python(program: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, cwd=cwd)


def test_import_and_help_load_nothing_heavy() -> None:
    program = f"""
import sys, slicesim, slicesim.live, slicesim.live.capture
try:
    sys.argv = ["slicesim", "capture", "--help"]
    slicesim.cli.main() if hasattr(slicesim, "cli") else __import__("slicesim.cli").cli.main()
except SystemExit as end:
    assert not end.code, end.code
assert not set(sys.modules) & set({HEAVY!r}), set(sys.modules) & set({HEAVY!r})
"""
    done = python(program)
    assert done.returncode == 0, done.stderr
    assert "--max-new-tokens" in done.stdout


def test_capture_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("hello")
    program = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from slicesim.cli import main
main()
"""
    done = python(program, "capture", "model", "--prompts", "p.txt", "-o", "t.parquet", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("slicesim: live models need torch and transformers")
    assert line.endswith(': pip install "slicesim[capture]"')
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]
