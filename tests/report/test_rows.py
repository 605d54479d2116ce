"""Rows that go to a file on the way are the same rows."""

from __future__ import annotations

import pandas as pd

from slicesim import rows
from tests.kit import random_trace, run


def test_few_in_memory_give_the_same_result(monkeypatch, tmp_path):
    trace = random_trace(2, 300, requests=4, prompt=5)
    whole = run(trace, policy="slicemoe")
    monkeypatch.setattr(rows, "STEPS_IN_MEMORY", 100)
    spilled = run(trace, policy="slicemoe")
    assert spilled.summary == whole.summary
    pd.testing.assert_frame_equal(spilled.tokens, whole.tokens, check_exact=True)
    for name, result in (("a", whole), ("b", spilled)):
        result.save(tmp_path / name)
    assert (tmp_path / "a" / "summary.json").read_bytes() == (tmp_path / "b" / "summary.json").read_bytes()
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / name / "tokens.parquet") for name in "ab"))
    assert (tmp_path / "a" / "overview.png").read_bytes() == (tmp_path / "b" / "overview.png").read_bytes()
