"""The result folder: whole or absent."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from slicesim.errors import UserError
from slicesim.report.folder import check_free, write_folder
from tests.kit import random_trace, run

FILES = ["overview.png", "overview.svg", "residency.parquet", "summary.json", "timeline.json", "tokens.parquet"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def files(**texts):
    return {name.replace("_", "."): lambda path, text=text: path.write_text(text) for name, text in texts.items()}


def test_save(tmp_path):
    result = run(random_trace(3, 12, prompt=4))
    result.save(tmp_path / "deep" / "o")
    assert names(tmp_path / "deep" / "o") == FILES
    assert names(tmp_path / "deep") == ["o"]
    summary = json.loads((tmp_path / "deep" / "o" / "summary.json").read_text())
    assert summary == json.loads(result.to_json())
    tokens = pd.read_parquet(tmp_path / "deep" / "o" / "tokens.parquet")
    pd.testing.assert_frame_equal(tokens, result.tokens)
    assert tokens["phase"].tolist() == ["prefill", *["decode"] * 8]
    assert summary["decode"]["latency_ps"]["total"] == tokens["latency_ps"][1:].sum()
    assert (tmp_path / "deep" / "o" / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_has_the_agreed_keys(tmp_path):
    summary = run(random_trace(3, 12, prompt=4)).summary
    assert {"slicesim_version", "scenario", "trace", "prefill", "decode"} <= set(summary)
    assert {"source", "synthetic", "tokens"} <= set(summary["trace"])
    keys = {
        "requests": {"msb", "lsb"},
        "hits": {"msb", "lsb"},
        "misses": {"msb", "lsb"},
        "denied": {"degraded", "substituted", "dropped"},
        "miss_rate": {"slices", "msb", "lsb", "bytes"},
        "bytes": {"flash_read", "dram_read", "dram_write", "sram_read", "sram_write"},
        "latency_ps": {"total", "mean", "p50", "p95", "p99"},
        "energy_pj": {"total", "flash", "dram", "sram", "npu", "background", "expert", "non_expert"},
        "quality": {"high_mass", "low_mass", "substituted_mass", "dropped_mass", "expected_rel_mse"},
    }
    for key, inner in keys.items():
        assert inner <= set(summary["decode"][key]), key
    assert {"tokens", "tokens_per_s"} <= set(summary["decode"])


def test_replaces_an_earlier_result(tmp_path):
    write_folder(tmp_path / "o", files(summary_json="1", old_txt="1"))
    write_folder(tmp_path / "o", files(summary_json="2"))
    assert names(tmp_path / "o") == ["summary.json"]
    assert (tmp_path / "o" / "summary.json").read_text() == "2"
    assert names(tmp_path) == ["o"]


def test_takes_an_empty_folder(tmp_path):
    (tmp_path / "o").mkdir()
    write_folder(tmp_path / "o", files(summary_json="1"))
    assert names(tmp_path) == ["o"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bug"), OSError(28, "No space left on device")])
def test_a_failure_leaves_all_as_it_was(tmp_path, error):
    def fail(_):
        raise error

    write_folder(tmp_path / "o", files(summary_json="1"))
    for folder in ("o", "new"):
        with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
            write_folder(tmp_path / folder, {**files(summary_json="2"), "b": fail})
    assert names(tmp_path) == ["o"]
    assert (tmp_path / "o" / "summary.json").read_text() == "1"


def test_refuses_what_is_no_result(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "round").symlink_to("round")
    for name, reason in (
        ("file", "is a file"),
        ("file/below", "is a file"),
        ("full", "holds other files, not an earlier result"),
        ("round", "ymlink loop|levels of symbolic links"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(UserError, match=reason) as error:
            check_free(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))
        assert str(error.value).endswith("choose another --out")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="is where you are working"):
        check_free(tmp_path / "empty")


def test_no_figure_is_null(tmp_path):
    result = run(random_trace(3, 4, prompt=4))
    assert json.loads(result.to_json())["decode"]["tokens_per_s"] is None
    result.save(tmp_path / "o")
    assert names(tmp_path / "o") == FILES
