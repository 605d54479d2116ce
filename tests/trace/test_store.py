from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.errors import UserError
from slicesim.trace import ParquetTrace, load_trace, write_trace
from slicesim.trace.table import ABSENT
from tests.trace.samples import assert_same, header, joined, random_trace


@pytest.fixture
def file(tmp_path):
    trace = random_trace(lengths=(6, 4))
    path = tmp_path / "t.parquet"
    write_trace(path, trace.header, trace.blocks())
    return path


def rewritten(path, change):
    """Change the columns of a file, its metadata kept."""
    table = pq.read_table(path)
    data = change(table.to_pydict())
    pq.write_table(pa.table(data).replace_schema_metadata(table.schema.metadata), path)
    return path


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    layers=st.sets(st.integers(0, 40), min_size=1, max_size=4),
    shape=st.tuples(st.integers(1, 4), st.integers(0, 8)),
    has_logits=st.booleans(),
    group_rows=st.integers(1, 30),
)
def test_round_trip_with_row_groups_cut_anywhere(
    tmp_path_factory, seed, lengths, layers, shape, has_logits, group_rows
):
    top_k, more = shape
    trace = random_trace(seed, tuple(lengths), tuple(sorted(layers)), top_k + more, top_k, has_logits)
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    write_trace(path, trace.header, trace.blocks())
    pq.write_table(pq.read_table(path), path, row_group_size=group_rows)
    read = ParquetTrace(path)
    assert read.header == trace.header
    assert_same(joined(read.blocks()), trace.block)
    assert read.request_lengths() == trace.request_lengths()
    rows = np.concatenate([rows for _, rows in read.numbered_blocks()])
    np.testing.assert_array_equal(rows.reshape(-1), np.arange(rows.size))


def test_a_large_trace_is_read_in_several_blocks(tmp_path):
    trace = random_trace(lengths=(2500,))
    path = tmp_path / "t.parquet"
    write_trace(path, trace.header, trace.blocks())
    blocks = list(ParquetTrace(path).blocks())
    assert len(blocks) >= 3
    assert_same(joined(blocks), trace.block)


def test_rows_of_a_token_may_stand_in_any_order(file):
    trace = joined(ParquetTrace(file).blocks())
    rewritten(file, lambda d: {k: [v[i ^ 1] for i in range(len(v))] for k, v in d.items()})
    assert_same(joined(ParquetTrace(file).blocks()), trace)


def test_a_partial_layer_survives_the_round_trip(tmp_path):
    trace = random_trace(lengths=(4,))
    trace.block.ids[0, 1], trace.block.scores[0, 1] = ABSENT, 0.0
    facts = header(partial_prefill_layers=[2])
    path = tmp_path / "t.parquet"
    write_trace(path, facts, [trace.block])
    assert pq.read_metadata(path).num_rows == 7
    assert_same(joined(ParquetTrace(path).blocks()), trace.block)


def test_writing_leaves_nothing_behind_when_it_fails(tmp_path):
    trace = random_trace()

    def broken():
        yield trace.block
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_trace(tmp_path / "t.parquet", trace.header, broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 3, 10, 200, -1])
def test_a_truncated_file_is_one_line(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="truncated") as error:
        load_trace(file)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)


def test_a_parquet_file_that_is_no_trace(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UserError, match="no slicesim trace"):
        load_trace(path)


def test_a_broken_header_names_its_key(file):
    table = pq.read_table(file)
    facts = json.loads(table.schema.metadata[b"slicesim"])
    facts["top_k"] = "two"
    pq.write_table(table.replace_schema_metadata({"slicesim": json.dumps(facts)}), file)
    with pytest.raises(UserError, match="trace header: top_k"):
        load_trace(file)


def _set(name, row, value):
    def change(data):
        data[name][row] = value
        return data

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("layer", 5, 9), "row 5: layer 9 is not in the header's layers"),
        (_set("layer", 5, 1), "row 5: a second row for the same token and layer"),
        (_set("phase", 4, "prompt"), "row 4: phase must be prefill or decode"),
        (_set("phase", 5, "decode"), "row 5: the rows of one token differ in phase"),
        (_set("experts", 3, [1]), "row 3: experts holds 1 values, the header says 2"),
        (_set("experts", 3, [1, None]), "row 3: experts holds a gap"),
        (_set("experts", 3, [1.0, 2.5]), "'experts' must hold lists of whole numbers"),
        (_set("scores", 3, [0.1, None]), "row 3: scores holds a gap"),
        (_set("token", 3, None), "'token' must hold whole numbers"),
        (lambda d: {k: v for k, v in d.items() if k != "scores"}, "column 'scores' is missing"),
    ],
)
def test_a_malformed_row_is_named(file, change, message):
    rewritten(file, change)
    with pytest.raises(UserError) as error:
        list(load_trace(file).blocks())
    assert message in str(error.value)


def test_load_trace_names_who_asked_for_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"^s\.yaml:3: no such trace: .*nothing\.parquet$"):
        load_trace(tmp_path / "nothing.parquet", "s.yaml:3")
    with pytest.raises(UserError, match=r"^no such trace: "):
        load_trace(tmp_path / "nothing.parquet")


def test_a_trace_without_tokens_is_refused(tmp_path):
    write_trace(tmp_path / "t.parquet", header(), [])
    with pytest.raises(UserError, match="holds no tokens"):
        load_trace(tmp_path / "t.parquet")
