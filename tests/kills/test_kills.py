"""kill -9 at random moments: results are whole or absent, and nothing is in the way of the next run."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests.kills.nursery import Nursery, signal_after, signal_at

#: Of each command; those of ``capture`` are in test_capture.py, which needs torch.
KILLS = 8


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def appears(folder: Path, word: str, *, more: int = 0) -> Callable[[], bool]:
    """Whether a half-written file or folder is there, and holds ``more`` files."""

    def is_there() -> bool:
        found = [file for file in folder.glob(f".*{word}*") if not file.name.endswith(".lock")]
        return any(more <= (len(list(file.iterdir())) if file.is_dir() else more) for file in found)

    return is_there


def seconds_of(nursery: Nursery, *words: str) -> float:
    began = time.monotonic()
    assert nursery.run(*words)[0] == 0
    return time.monotonic() - began


def test_a_killed_run_leaves_a_whole_result_or_none(here: Path, nursery: Nursery) -> None:
    choice, asked = random.Random(7), ("run", "c.yaml", "--out")
    whole = seconds_of(nursery, *asked, "whole")
    expected = contents(here / "whole")
    killed = tries = 0
    while killed < KILLS:
        tries += 1
        assert tries < 10 * KILLS
        earlier = choice.random() < 0.5  # a result of an earlier run is there, of another scenario
        shutil.rmtree(here / "o", ignore_errors=True)
        if earlier:
            shutil.copytree(here / "whole", here / "o")
            (here / "o/summary.json").write_text('{"earlier": true}\n')
        before = contents(here / "o") if earlier else {}
        if tries % 2:
            during = signal_after(choice.random() * whole, signal.SIGKILL)
        else:
            during = signal_at(appears(here, "partial", more=choice.randrange(len(expected) + 1)), signal.SIGKILL)
        code, err = nursery.run(*asked, "o", during=during)
        assert code in (0, -signal.SIGKILL), err
        killed += code != 0
        if (here / "o").exists():
            assert contents(here / "o") in (before, expected)
        shown = {file.name for file in here.iterdir() if not file.name.startswith(".")}
        assert shown <= {"c.yaml", "s.yaml", "t.parquet", "l.parquet", "warm", "whole", "o"}
    assert nursery.run(*asked, "o") == (0, nursery.run(*asked, "again")[1])
    assert contents(here / "o") == expected
    assert not [file.name for file in here.iterdir() if file.name.startswith((".o.", ".again."))]


def test_a_killed_sweep_goes_on_and_comes_to_the_same_table(here: Path, nursery: Nursery) -> None:
    choice, asked = random.Random(8), ("sweep", "s.yaml", "--jobs", "1", "--out")
    whole = seconds_of(nursery, *asked, "whole")
    expected = contents(here / "whole")
    killed = tries = 0
    while killed < KILLS:
        tries += 1
        assert tries < 10 * KILLS
        if tries % 2:
            during = signal_after(choice.random() * whole, signal.SIGKILL)
        else:
            place = here / "o" / choice.choice(("points", "points", "."))
            during = signal_at(appears(place, "partial"), signal.SIGKILL)
        before = set(contents(here / "o")) if (here / "o").exists() else set()
        code, err = nursery.run(*asked, "o", during=during)
        assert code in (0, -signal.SIGKILL), err
        killed += code != 0
        left = contents(here / "o") if (here / "o").exists() else {}
        named = {name: data for name, data in left.items() if not name.rpartition("/")[2].startswith(".")}
        assert all(data == expected[name] for name, data in named.items())
        assert {name for name in before if "/." not in f"/{name}"} <= set(named)
        if code == 0:  # all of it was done: begin anew
            assert named == {name: data for name, data in expected.items() if name != ".lock"}
            shutil.rmtree(here / "o")
    assert nursery.run(*asked, "o")[0] == 0
    assert contents(here / "o") == expected
    pd.testing.assert_frame_equal(
        pd.read_parquet(here / "o/sweep.parquet"), pd.read_parquet(here / "whole/sweep.parquet")
    )
