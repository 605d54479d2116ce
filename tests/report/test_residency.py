"""Snapshots of the cache: exact, evenly spread, bounded, and without a trace in the figures."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from slicesim.decide.decide import decide
from slicesim.decide.residency import MOST, Residency
from tests.kit import random_trace, run, simulation


def resident_bytes(slices, sizes):
    """Add up what a map shows, [layers, experts]; sizes: bytes of an MSB and an LSB slice by layer."""
    return sum(int((slices >> bit & 1).sum(axis=1) @ size) for bit, size in enumerate(sizes))


CASES = [("dbsc", {}), ("lru-high", {"cache__scope": "layer"}), ("slicemoe", {"cache__reset": "request"})]


@pytest.mark.parametrize(("policy", "keys"), CASES)
def test_the_map_holds_the_bytes_of_its_row(policy, keys, tmp_path):
    result = run(random_trace(3, 60, requests=3, prompt=7, logits=True), policy=policy, **keys)
    result.save(tmp_path / "r")
    table = pq.read_table(tmp_path / "r" / "residency.parquet")
    layers = result.summary["trace"]["layers"]
    cells = np.array(table["slices"].to_pylist(), dtype=np.uint8).reshape(
        -1, len(layers), result.summary["trace"]["experts"]
    )
    assert table["layer"].to_pylist() == layers * len(cells)
    model = result.summary["model"]
    seen = table.to_pandas().drop_duplicates("row")
    assert len(seen) == len(cells) > MOST // 2
    for shot, cell in zip(seen.itertuples(), cells, strict=True):
        row = result.tokens.iloc[shot.row]
        assert (shot.request, shot.token) == (row.request, row.token)
        assert resident_bytes(cell, (np.array(model["msb_bytes"]), np.array(model["lsb_bytes"]))) == row.resident_bytes
    assert seen.row.iloc[-1] == len(result.tokens) - 1


def test_snapshots_do_not_change_decisions():
    simulated = simulation(random_trace(5, 700, prompt=9, logits=True), policy="slicemoe")
    plain, watched = (list(decide(simulated.request(), own)) for own in (None, Residency()))
    for one, other in zip(plain, watched, strict=True):
        for name, column in (vars(one) if hasattr(one, "__dict__") else one._asdict()).items():
            np.testing.assert_array_equal(column, getattr(other, name), err_msg=name)


class State:
    """A cache of one layer and one expert that holds nothing."""

    resident = np.zeros(2, dtype=np.bool_)
    experts = 1


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 127, 500, 5000])
def test_snapshots_are_evenly_spread_and_few(rows):
    """After 64 snapshots of rows 0 to 63 every second stays, rows 0, 2 .. 62; from then on every second row counts."""
    residency, done = Residency(), 0
    while done < rows:
        step = min(residency.rows_left, rows - done)
        done += step
        residency.passed(step, 0, done - 1, State)
    residency.end(0, rows - 1, State)
    taken = [shot.row for shot in residency.snapshots]
    assert len(taken) <= MOST
    assert taken[0] == 0
    assert taken[-1] == rows - 1
    gaps = np.diff(taken[:-1] if len(taken) > 1 else taken)
    assert len(set(gaps.tolist())) <= 1
    if rows >= MOST:
        assert len(taken) >= MOST // 2
