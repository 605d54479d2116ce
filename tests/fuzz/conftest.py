"""A folder with small, valid files of every kind that slicesim reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slicesim.trace.store import write_trace
from tests.kit import DATA, EXPERT_BYTES, ROOT, random_trace

#: Scenario files, cut down to a tiny model so that each input takes milliseconds.
TRACE, MODEL = "t.parquet", "tiny-moe.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """hwconfigs as shipped, but with the tiny model and its trace; the working folder."""
    shutil.copytree(ROOT / "hwconfigs", tmp_path / "hw")
    for model in ("tiny-moe", "tiny-deep", "one-layer"):
        shutil.copy(DATA / f"{model}.yaml", tmp_path / f"{model}.yaml")
    for name, logits in ((TRACE, False), ("l.parquet", True)):
        trace = random_trace(1, 24, requests=2, prompt=6, logits=logits)
        write_trace(tmp_path / name, trace.header, trace.blocks())
    for file in [*(tmp_path / "hw").glob("*.yaml"), tmp_path / "hw/parts/workload.yaml"]:
        lines = file.read_text(encoding="utf-8").split("\n")
        file.write_text("\n".join(_tiny(line, tmp_path) for line in lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _tiny(line: str, folder: Path) -> str:
    """Change the lines that name a model, a trace or a cache size."""
    word = line.strip().partition(":")[0]
    if line.startswith("model:"):
        return f"model: {folder / MODEL}"
    if word == "path":
        return f"  path: {folder / TRACE}"
    if word == "capacity_gb" and "{" not in line:
        return f"  capacity_gb: {6 * EXPERT_BYTES / 1e9:.9f}"
    return line
