"""Result folders, and a browser to look at pages with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from slicesim.result import Result
from tests.kit import random_trace, run


@pytest.fixture(scope="session")
def two_results(tmp_path_factory) -> tuple[Path, Path]:
    """Three requests of 40 tokens under two policies."""
    folder = tmp_path_factory.mktemp("results")
    trace = random_trace(3, 40, requests=3, prompt=7, logits=True)
    for policy in ("slicemoe", "lru-high"):
        found: Result = run(trace, policy=policy)
        found.save(folder / policy)
    return folder / "slicemoe", folder / "lru-high"


def altered(folder: Path, target: Path, change) -> Path:
    """Copy a result, and change its summary."""
    shutil.copytree(folder, target)
    summary = json.loads((target / "summary.json").read_text())
    change(summary)
    (target / "summary.json").write_text(json.dumps(summary))
    return target


class Browser:
    """Headless Chromium without a network."""

    def __init__(self, program: str, profile: Path) -> None:
        self._command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000",
        ]  # fmt: skip

    def open(self, page: Path, width: int = 1400) -> tuple[str, list[str]]:
        """Return the document as it stands when all scripts have run, and what they wrote to the console."""
        done = subprocess.run(
            [*self._command, f"--window-size={width},1200", "--dump-dom", page.as_uri()], capture_output=True,
            encoding="utf-8", errors="replace", check=False, timeout=120,
        )  # fmt: skip
        return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture
def browser(tmp_path) -> Browser:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("needs chromium, or CHROMIUM=/path/to/it")
    return Browser(program, tmp_path / "profile")
