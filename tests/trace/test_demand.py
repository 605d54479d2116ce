"""Demand traces: what is written is read again, and every fault is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slicesim.errors import UserError
from slicesim.trace import load_trace
from slicesim.trace.demand import DemandHeader, DemandTrace, is_demand, read_demand, write_demand
from tests.kit import ROOT, random_trace

HEADER = DemandHeader(model="M", layers=2, top_k=2, read_bytes=100, source='a: log, "quoted" # 1', licence="none")
GOOD = """# slicesim demand v1
# model: M
# layers: 2
# top_k: 2
# read_bytes: 100
# source: a log
# licence: none
token,flash_read_bytes
0,350
2,0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "x.demand.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["x.demand.csv", "x.parquet"])
@given(
    read=st.lists(st.integers(0, 10**12), min_size=1, max_size=6),
    recorded=st.booleans(),
    kept=st.booleans(),
    other=st.none() | st.integers(1, 10**10),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(name, read, recorded, kept, other, tmp_path):
    compute = np.arange(len(read)) * 10**9 if recorded else None
    header = HEADER.model_copy(update={"kept": kept, "non_expert_bytes": other})
    trace = DemandTrace.of(header, read, compute_ps=compute, name=name)
    write_demand(tmp_path / name, trace)
    assert is_demand(tmp_path / name)
    again = read_demand(tmp_path / name)
    assert again.header == header
    assert again.digest == trace.digest
    assert (again.compute_ps is None) == (not recorded)


def test_hits_are_what_the_reads_leave(tmp_path):
    """2 layers x 2 experts x 3 reads of 100 B: 1,200 B a token."""
    trace = read_demand(write(tmp_path, GOOD))
    assert trace.token.tolist() == [0, 2]
    assert trace.hit_bytes.tolist() == [850, 1200]


def test_hit_rates_become_reads(tmp_path):
    """12 reads a token: a quarter of hits leaves 9 of 100 B; all hit leaves none."""
    text = GOOD.replace("flash_read_bytes", "hit_rate").replace("0,350\n2,0\n", "0,0.25\n1,1\n")
    trace = read_demand(write(tmp_path, text))
    assert trace.flash_read_bytes.tolist() == [900, 0]
    assert trace.hit_bytes.tolist() == [300, 1200]


FAULTS = [
    ("0,350", "0,-1", "line 9: flash_read_bytes is '-1'; give a whole number from 0 to 10000000000000"),
    ("0,350", "0,1.5", "line 9: flash_read_bytes is '1.5'; give a whole number"),
    ("0,350", "0,350,1", "line 9: 3 cells; give 2: token,flash_read_bytes"),
    ("2,0", "0,0", "line 10: token 0 follows 0; give tokens in rising order"),
    ("token,flash_read_bytes", "token,bytes", "column 'bytes' is not known; give token and flash_read_bytes or hit_"),
    ("flash_read_bytes\n", "hit_bytes\n", "columns are token,hit_bytes; give token and flash_read_bytes or hit_rate"),
    ("0,350\n2,0\n", "", "the trace holds no tokens; give one row for each"),
    ("token,flash_read_bytes\n0,350\n2,0\n", "", "no row of column names; write token,flash_read_bytes"),
    ("# layers: 2\n", "", "preamble: layers is missing: add it to the preamble"),
    ("# layers: 2\n", "# layers: 2\n# layers: 3\n", "line 4: layers is given twice; leave one out"),
    ("# layers: 2\n", "# layer: 2\n", "preamble: layer"),
    ("# layers: 2\n", "# layers: two\n", "preamble: layers is wrong"),
    ("# layers: 2\n", "# layers\n", "line 3: write '# key: value'; keys: model, layers"),
    ("demand v1", "demand v2", "line 1: is '# slicesim demand v2'; write '# slicesim demand v1'"),
]


@pytest.mark.parametrize(("old", "new", "message"), FAULTS, ids=[message[:30] for *_, message in FAULTS])
def test_fault(old, new, message, tmp_path):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_demand(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_key_of_the_preamble(tmp_path):
    path = write(tmp_path, GOOD.replace("# top_k: 2", "# top_k: 2\n# lanes: 4"))
    with pytest.raises(UserError, match="preamble: lanes is no key of the preamble: leave it out"):
        read_demand(path)


def test_a_demand_trace_is_no_routing_trace(tmp_path):
    with pytest.raises(UserError, match="a demand trace holds bytes, no routing: only slicesim run and sensitivity"):
        load_trace(write(tmp_path, GOOD))


def test_others_are_not_taken_for_one(tmp_path):
    assert not is_demand(tmp_path / "none.csv")
    assert not is_demand(tmp_path)
    for text in ("token,flash_read_bytes\n0,1\n", "PAR1 no parquet", ""):
        assert not is_demand(write(tmp_path, text))
    assert random_trace(0, 3).name == "memory"


def test_the_trace_that_ships_is_what_the_figures_say():
    """Made from the quantiles of phone_decode.csv, byte by byte."""
    from slicesim.validation.phone import phone_rows, trace_of

    row = next(row for row in phone_rows() if row["id"] == "B5")
    shipped = read_demand(ROOT / "traces" / "qwen3-30b-a3b-b5.demand.csv")
    assert shipped.digest == trace_of(row).digest
    assert shipped.header.synthetic
