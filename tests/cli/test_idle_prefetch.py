"""A prefetch budget that holds no slice is said."""

from __future__ import annotations


def test_warning(slicesim, here):
    words = ("run", "c.yaml", "--out", "o", "--policy", "read-ahead-popularity")
    assert "nothing is read ahead" not in slicesim(*words).err
    found = slicesim(*words, "--set", "policy.prefetch.budget_mb=0.001")
    assert found.code == 0
    assert (
        "prefetch popularity: a budget of 0.001 MB per batch holds no slice (0.0 MB): nothing is read ahead"
        in found.err
    )
