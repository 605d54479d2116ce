"""The tutorial and the how-to guides: every page is walked through from top to bottom in one folder.

A yaml or python block whose first line is ``# file: NAME`` is written there; sh and python blocks run; a text block
right after one that ran is its output: the lines shown stand there in this order, ``...`` for any number of lines
between (spaces at the ends of lines do not count).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import ROOT

WALKS = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# file: (\S+)\n")


@pytest.mark.parametrize("page", WALKS, ids=lambda page: page.stem)
def test_walk(page, tmp_path):
    for name in ("hwconfigs", "traces", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    output = None
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        named = FILE.match(block)
        if language == "text" and output is not None:
            assert is_shown(block, output), f"the output is now:\n{output}"
        elif named:
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
        output = None if named else run(language, block, tmp_path)


def run(language: str, block: str, folder: Path) -> str | None:
    """Run a block and return what it prints; nothing where it is not one to be run."""
    if language == "python":
        return call(["-c", block], folder)
    if language == "sh":
        return "".join(call(arguments(line), folder) for line in block.splitlines())
    return None


def arguments(line: str) -> list[str]:
    program, *words = shlex.split(line)
    assert program in ("slicesim", "python")
    return ["-m", program, *words] if program == "slicesim" else words


def call(words: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stderr}"
    assert done.stdout.strip(), words
    return done.stdout


def is_shown(shown: str, output: str) -> bool:
    """Whether the lines shown stand in the output; lines with nothing between them follow each other there."""
    whole = "\n".join(["", *(line.rstrip() for line in output.splitlines()), ""])
    place = 0
    for part in re.split(r"^\.\.\.$", "\n".join(line.rstrip() for line in shown.splitlines()), flags=re.M):
        lines = part.strip("\n")
        place = whole.find(f"\n{lines}\n", place) if lines else place
        if place < 0:
            return False
    return True


def test_what_counts_as_shown():
    output = "head\n a 1  \n b 2\n c 3\n"
    assert is_shown("head\n a 1\n b 2\n", output)
    assert is_shown("...\n b 2\n...\n", output)
    assert is_shown("head\n...\n c 3\n", output)
    assert not is_shown("head\n b 2\n", output)  # a line is missing between them
    assert not is_shown("...\n b 2\n...\n a 1\n", output)  # the other way round
    assert not is_shown("...\n b\n...\n", output)  # part of a line


def test_there_are_walks():
    assert {page.stem for page in WALKS} >= {"tutorial", "add-a-device", "write-a-policy", "add-a-model"}
