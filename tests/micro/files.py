"""What ships for each micro model, read without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.kit import ROOT

FOLDER = ROOT / "traces" / "micro"
NAMES = ("deepseek-v2-lite", "qwen1.5-moe-a2.7b")

each_model = pytest.mark.parametrize("name", NAMES)


def config(name: str) -> dict[str, Any]:
    return read_json(FOLDER / name / "config.json")


def figures(name: str) -> dict[str, Any]:
    return read_json(FOLDER / name / "figures.json")


def read_json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def tensors(name: str) -> dict[str, dict[str, Any]]:
    """The header of model.safetensors: 8 bytes of length (little-endian), then JSON."""
    with (FOLDER / name / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header
