"""A capture that is killed again and again comes to the same file as one that is left alone."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from slicesim.trace.store import ParquetTrace
from tests.kills.nursery import Nursery, signal_after, signal_at
from tests.kills.test_kills import appears, seconds_of
from tests.live.conftest import ModelFolder, model_folder

__all__ = ["model_folder"]

KILLS = 4


def test_a_killed_capture_goes_on_and_comes_to_the_same_file(
    model_folder: ModelFolder,
    tmp_path: Path,
) -> None:
    (tmp_path / "p.txt").write_text("\n".join(f"w{n} w{n + 1} w{n + 2}" for n in range(1, 9)))
    asked = ["capture", str(model_folder("olmoe")), "--prompts", "p.txt", "--max-new-tokens", "6", "--threads", "1"]
    nursery, choice = Nursery(tmp_path, [[*asked, "--out", "warm.parquet"]]), random.Random(10)
    try:
        whole = seconds_of(nursery, *asked, "--out", "whole.parquet")
        expected = (tmp_path / "whole.parquet").read_bytes()
        out, parts = tmp_path / "t.parquet", tmp_path / "t.parquet.parts"
        killed = tries = 0
        while killed < KILLS:
            tries += 1
            assert tries < 10 * KILLS
            if tries % 2:
                during = signal_after(choice.random() * whole, signal.SIGKILL)
            else:
                during = signal_at(appears(choice.choice((parts, tmp_path)), "partial"), signal.SIGKILL)
            before = set(parts.glob("0*.parquet")) if parts.is_dir() else set()
            code, err = nursery.run(*asked, "--out", out.name, during=during)
            assert code in (0, -signal.SIGKILL), err
            killed += code != 0
            if out.exists():
                assert out.read_bytes() == expected
                out.unlink()
                shutil.rmtree(parts, ignore_errors=True)
                continue
            assert before <= set(parts.glob("0*.parquet"))
            assert all(ParquetTrace(part).request_lengths() for part in parts.glob("0*.parquet"))
        assert nursery.run(*asked, "--out", out.name)[0] == 0
        assert out.read_bytes() == expected
        assert not parts.exists()
    finally:
        nursery.close()
    assert {file.name for file in tmp_path.glob("*t.parquet*")} == {"t.parquet"}
