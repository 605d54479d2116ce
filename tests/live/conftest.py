"""Tiny models in folders, made once, and the command line called in this process (``slicesim``, as in tests/cli)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import slicesim  # noqa: F401 - a fixture

ModelFolder = Callable[[str], Path]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """``model_folder("olmoe")``: the folder of that family's tiny model."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        from tests.live import tiny

        if family not in made:
            made[family] = tiny.save(family, tmp_path_factory.mktemp("models") / family)
        return made[family]

    return folder
