from __future__ import annotations

import numpy as np
import pytest

from slicesim.errors import UserError
from slicesim.trace import write_trace
from slicesim.trace.importers import ImportOptions
from slicesim.trace.validate import validate_trace
from tests.trace.samples import random_trace


@pytest.fixture
def trace():
    return random_trace(lengths=(4, 4), has_logits=True)


def written(tmp_path, trace):
    write_trace(tmp_path / "t.parquet", trace.header, trace.blocks())
    return tmp_path / "t.parquet"


def test_a_sound_file_has_no_faults(tmp_path, trace):
    assert validate_trace(written(tmp_path, trace)) == []


@pytest.mark.parametrize(
    ("column", "place", "value", "message"),
    [
        ("ids", (5, 1), [8, 1], "row 11: request 1, token 1, layer 2: expert id outside 0 to 7"),
        ("ids", (5, 1), [1, 1], "row 11: request 1, token 1, layer 2: the same expert twice in one token"),
        ("ids", (5, 1), -1, "row 10: request 1, token 1, layer 2: no row for this layer"),
        ("scores", (5, 0), np.nan, "row 10: request 1, token 1, layer 1: score is not a finite number"),
        ("scores", (5, 0), -1.0, "row 10: request 1, token 1, layer 1: negative score"),
        ("logits", (5, 0), np.inf, "row 10: request 1, token 1, layer 1: logit is not a finite number"),
        ("phase", 3, 0, "row 6: request 0, token 3: prefill after decode"),
        ("token", slice(6, 8), [3, 4], "row 12: request 1, token 3: token numbers must rise by one"),
        ("token", slice(5, 7), [2, 1], "row 10: request 1, token 2: token numbers must rise by one"),
        ("request", 7, 0, "row 14: request 0, token 3: this request appears again"),
    ],
)
def test_each_fault_names_its_row(tmp_path, trace, column, place, value, message):
    getattr(trace.block, column)[place] = value
    found = validate_trace(written(tmp_path, trace))
    assert any(line.startswith(f"{tmp_path / 't.parquet'}: {message}") for line in found), found
    assert len(found) == (3 if column == "token" and place == slice(5, 7) else 1)


def test_rows_are_counted_across_row_groups(tmp_path):
    trace = random_trace(lengths=(3000,))
    trace.block.scores[2500, 1, 0] = np.nan
    assert "row 5001: request 0, token 2500, layer 2" in validate_trace(written(tmp_path, trace))[0]


def test_many_faults_are_counted(tmp_path):
    trace = random_trace(lengths=(40,))
    trace.block.scores[:30, :, 0] = np.nan
    found = validate_trace(written(tmp_path, trace))
    assert len(found) == 21
    assert found[-1] == "... and 40 more"


def test_a_truncated_file_is_one_line(tmp_path, trace):
    path = written(tmp_path, trace)
    path.write_bytes(path.read_bytes()[:-20])
    (line,) = validate_trace(path)
    assert "truncated" in line
    assert "\n" not in line


def test_a_file_without_tokens(tmp_path, trace):
    write_trace(tmp_path / "t.parquet", trace.header, [])
    assert validate_trace(tmp_path / "t.parquet") == [f"{tmp_path / 't.parquet'}: the trace holds no tokens"]


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="no such trace"):
        validate_trace(tmp_path / "t.parquet")


def test_an_importable_file_lists_its_faults_by_line(tmp_path):
    line = '{{"req_id": 0, "token_idx": {}, "layer": 0, "topk_ids": [1, {}], "topk_weights": [0.5, 0.25]}}\n'
    path = tmp_path / "t.jsonl"
    path.write_text("".join(line.format(token, 1 if token in (2, 4) else 3) for token in range(6)))
    found = validate_trace(path, ImportOptions(model="olmoe-1b-7b"))
    assert [text.split(": ")[1] for text in found] == ["line 3", "line 5"]
    assert validate_trace(path) == [
        f"{path}: this format does not record the model's geometry: name the model with --model"
    ]


def test_real_traces_are_sound(shared_data):
    assert validate_trace(shared_data / "traces/bigmoe-on-edge/qwen.route.csv") == []
    assert validate_trace(shared_data / "traces/deepseek-v2-lite/law.npz") == []
