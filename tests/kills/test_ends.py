"""Ctrl-C, SIGTERM and a full disk: one line, the right exit code, nothing half-written."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from tests.kills.nursery import Nursery, signal_after
from tests.kills.test_kills import contents, seconds_of

COMMANDS = (("run", "c.yaml"), ("sweep", "s.yaml", "--jobs", "1"), ("compare", "c.yaml", "--policies", "lru-high,dbsc"))


def strays(here: Path) -> list[str]:
    return [file.name for file in here.rglob(".*") if "partial" in file.name or ".old-" in file.name]


def test_signals_end_a_command_with_one_line(here: Path, nursery: Nursery) -> None:
    choice = random.Random(9)
    ended = 0
    for words in COMMANDS[:2]:
        whole = seconds_of(nursery, *words, "--out", f"whole-{words[0]}")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            code, err = nursery.run(
                *words, "--out", f"{words[0]}-{number}", during=signal_after(choice.uniform(0.1, 0.8) * whole, number)
            )
            assert code in (0, 128 + number)
            if code:
                ended += 1
                assert err.splitlines()[-1] == "slicesim: interrupted"
                assert "Traceback" not in err
            assert strays(here) == []
            left = here / f"{words[0]}-{number}"
            if left.exists() and words[0] == "run":
                assert contents(left) == contents(here / "whole-run")
    assert ended


def test_a_full_disk_is_one_line(here: Path, nursery: Nursery) -> None:
    """A limit on the size of files stands in for the disk: the write fails in the same place and way."""
    for words in COMMANDS:
        assert nursery.run(*words, "--out", f"whole-{words[0]}")[0] == 0  # all is compiled, and cached on disk
        for most_bytes in (700, 5000):
            before = set(here.iterdir())
            code, err = nursery.run(*words, "--out", f"full-{words[0]}", most_bytes=most_bytes)
            said = [line for line in err.splitlines() if not line.startswith("warning: ")]
            assert (code, len(said)) == (2, 1), err
            assert said[0].startswith("slicesim: ")
            assert "File too large" in said[0]
            assert strays(here) == []
            if words[0] != "sweep":
                assert set(here.iterdir()) - before <= {here / ".out", here / ".err"}
