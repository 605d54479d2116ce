"""A folder to work in, and the command line called in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from slicesim import cli
from slicesim.compiled import COMPILING
from slicesim.trace.store import write_trace
from tests.kit import DATA, EXPERT_BYTES, MOBILE, random_trace


class Output(NamedTuple):
    code: int
    out: str
    err: str


Slicesim = Callable[..., Output]


@pytest.fixture
def slicesim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Slicesim]:
    """``slicesim("run", "c.yaml")`` as the shell would call it, signal handlers included."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(cli.Interrupted, "signal", 0)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back at the end

    def call(*words: object) -> Output:
        monkeypatch.setattr(sys, "argv", ["slicesim", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return Output(end.value.code, out, err.replace(COMPILING, ""))

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with c.yaml (the paper's phone, a tiny model), t.parquet (top-k only) and l.parquet (logits)."""
    for name, logits in (("t", False), ("l", True)):
        trace = random_trace(1, 24, requests=2, prompt=6, logits=logits)
        write_trace(tmp_path / f"{name}.parquet", trace.header, trace.blocks())
    text = MOBILE.read_text(encoding="utf-8")
    for old, new in (
        ("../traces/deepseek-v2-lite-twin.parquet", "t.parquet"),
        ("model: deepseek-v2-lite", f"model: {DATA / 'tiny-moe.yaml'}"),
        ("capacity_gb: 2.4 ", f"capacity_gb: {6 * EXPERT_BYTES / 1e9:.9f} "),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path
