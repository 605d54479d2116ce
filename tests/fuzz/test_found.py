"""Faults that fuzzing found, one test each."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slicesim.amat.pack import Packing
from slicesim.amat.pairs import parse_pair
from slicesim.amat.unpack import Unpacking
from slicesim.cli.console import Interrupted, hush
from slicesim.errors import UserError
from slicesim.live.parts import Parts
from slicesim.live.prompts import read_prompts
from slicesim.models import load_model
from slicesim.report.folder import write_folder
from slicesim.report.page import write_report
from slicesim.scenario import Scenario
from slicesim.simulation import simulate
from slicesim.sweeps.store import Store
from slicesim.trace import load_trace
from slicesim.trace.demand import FIRST_LINE, read_demand, write_demand
from slicesim.trace.importers import ImportOptions, import_trace
from slicesim.trace.twin.profile import Packed
from slicesim.trace.validate import validate_trace
from tests.checkpoint.samples import checkpoint
from tests.fuzz import formats
from tests.fuzz.harness import require_line
from tests.fuzz.mutate import BOMB
from tests.fuzz.test_traces import npz_bytes


def refused(call, *names: str) -> str:
    with pytest.raises(UserError) as error:
        call()
    require_line(str(error.value), *names)
    return str(error.value)


def test_what_the_user_wrote_cannot_break_the_line(folder: Path):
    Path("case.yaml").write_text('"a\\nb\\e[31m\\u2028": 1\n')
    assert r"a\nb\x1b[31m\u2028: unknown key" in refused(lambda: Scenario.load("case.yaml"), "case.yaml:1")
    Path("case.yaml").write_text(f"{'k' * 100_000}: 1\n")
    refused(lambda: Scenario.load("case.yaml"), "case.yaml:1")


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_aliases_of_aliases(folder: Path, text: str):
    Path("case.yaml").write_text(text)
    assert "its aliases (*name) stand for too many values" in refused(lambda: Scenario.load("case.yaml"), "case.yaml")


def test_one_alias_may_be_used_often(folder: Path):
    Path("case.yaml").write_text(
        "extends: hw/mobile.yaml\nseed: &one 1\ncache: {scope: layer, capacity_gb: *one, reset: never}\n"
    )
    assert Scenario.load("case.yaml").settings.seed == 1


@pytest.mark.parametrize("text", ["a: " + "[" * 3000, "{a: " * 2000, "- " * 2000])
def test_deep_nesting(folder: Path, text: str):
    Path("case.yaml").write_text(text)
    assert "nested more than 50 levels deep" in refused(lambda: Scenario.load("case.yaml"), "case.yaml:1")


def test_a_key_with_a_blank(folder: Path):
    Path("case.yaml").write_text("extends: hw/mobile.yaml\na b: 1\n")
    assert "a b: unknown key" in refused(lambda: Scenario.load("case.yaml"), "case.yaml:2")


def test_a_client_that_is_no_mapping(folder: Path):
    refused(lambda: Scenario.load("hw/mobile.yaml", assignments={"device.npu": 5}), "device.npu")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_no_file_can_have(folder: Path, name: str):
    Path("case.yaml").write_text(f"extends: {json.dumps(name)}\n")
    assert "no such file" in refused(lambda: Scenario.load("case.yaml"), "case.yaml:1")
    refused(lambda: load_model(f"{name}.yaml"), "model")
    refused(lambda: load_trace(name), "no such trace")
    Scenario.load("hw/mobile.yaml", assignments={"trace.path": name})


def test_jsonl_with_a_phase_that_is_no_word(folder: Path):
    record = json.loads(formats.jsonl_text().splitlines()[0])
    Path("j.jsonl").write_text(json.dumps({**record, "phase": {"a": 1}}))
    read = lambda: import_trace(Path("j.jsonl"), ImportOptions(model="tiny-moe.yaml"))  # noqa: E731
    assert "phase must be prefill or decode" in refused(read, "j.jsonl: line 1")


def test_npz_with_meta_data_nested_without_end(folder: Path):
    Path("n.npz").write_bytes(npz_bytes({**formats.npz_arrays(), "meta": np.array("[" * 5000)}))
    assert "'meta' must be a JSON text" in refused(lambda: import_trace(Path("n.npz"), ImportOptions()), "n.npz")


def test_parquet_whose_footer_is_broken(folder: Path):
    whole = Path("t.parquet").read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    Path("t.parquet").write_bytes(whole[:footer] + b"\xff" * 8 + whole[footer + 8 :])
    refused(lambda: load_trace("t.parquet"), "t.parquet")


HEAD = (
    f"{FIRST_LINE}\n# model: m\n# layers: 3\n# top_k: 2\n# read_bytes: 10\n# source: s\n# licence: l\n"
    "token,flash_read_bytes\n"
)


def test_demand_files(folder: Path):
    path = Path("d.csv")
    for text, message in (
        ("", "line 1"),
        (HEAD + '0,"5\n1,6\n', "line 9: 0 cells"),
        (HEAD + "0,1e400\n", "line 9: flash_read_bytes"),
        (
            HEAD.replace("layers: 3", "layers: 1000000").replace("read_bytes: 10", f"read_bytes: {10**13}"),
            "layers x top_k",
        ),
    ):
        path.write_text(text)
        assert message in refused(lambda: read_demand(path), "d.csv")


def test_a_demand_trace_whose_source_has_a_rare_letter(folder: Path):
    Path("d.csv").write_text(HEAD.replace("source: s", "source: \U0001f600") + "0,5\n")
    trace = read_demand("d.csv")
    write_demand("again.csv", trace)
    assert read_demand("again.csv").digest == trace.digest


def test_requests_stand_in_the_order_of_their_first_line(folder: Path):
    head, *lines = formats.csv_text().splitlines()
    late = next(line for line in lines if line.startswith("1,") and line.split(",")[4] == "1")
    lines.remove(late)
    Path("c.csv").write_text("\n".join([head, late, *lines]) + "\n")
    trace = import_trace(Path("c.csv"), ImportOptions(model="tiny-moe.yaml"))
    assert list(trace.request_lengths()) == [1, 0]
    assert formats.rows_of_trace(trace) == formats.plain_csv(Path("c.csv"))


@pytest.mark.parametrize("value", [1.5, float("inf"), float("nan")])
def test_a_demand_of_no_whole_bytes_is_not_cut_to_one(folder: Path, value: float):
    path = Path("d.parquet")
    header = {"model": "m", "layers": 3, "top_k": 2, "read_bytes": 10, "source": "s", "licence": "l"}
    table = pa.table({"token": [0], "flash_read_bytes": [value]})
    pq.write_table(table.replace_schema_metadata({b"slicesim-demand": json.dumps(header)}), path)
    assert "row 0: flash_read_bytes" in refused(lambda: read_demand(path), "d.parquet")


def test_packed_experts_of_a_huge_shape(tmp_path: Path):
    plain, packed = checkpoint(tmp_path / "m.safetensors", experts=1, layers=(1,)), tmp_path / "p.safetensors"
    Packing(plain, packed, parse_pair(8, 4, 32)).run()
    whole = packed.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["slicesim.amat"])
    next(iter(facts["tensors"].values()))["shape"] = [2**20, 2**16]
    header["__metadata__"]["slicesim.amat"] = json.dumps(facts)
    text = json.dumps(header).encode()
    packed.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    unpack = Unpacking(packed, tmp_path / "o.safetensors", "high").run
    assert "are asked for" in refused(unpack, "p.safetensors: layers.1.experts.0.msb")
    assert not (tmp_path / "o.safetensors").exists()


def test_a_profile_of_a_huge_shape():
    packed = Packed(shape=[10**12, 10**12], dtype="float16", zlib_base64="eJwDAAAAAAE=")
    with pytest.raises(ValueError, match="more than a profile may hold"):
        packed.values()


def test_leavings_of_killed_runs_are_removed_and_those_of_live_ones_are_not(tmp_path: Path):
    dead = max(int(Path("/proc/sys/kernel/pid_max").read_text()), 2**22) + 1
    for name in (
        f".o.partial-{dead}",
        f".o.old-{dead}",
        f".o.partial-{os.getppid()}",
        ".o.partial-x",
        f".p.old-{dead}",
    ):
        (tmp_path / name).mkdir()
    write_folder(tmp_path / "o", {"summary.json": lambda path: path.write_text("{}")})
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"o", f".o.partial-{os.getppid()}", ".o.partial-x", f".p.old-{dead}"}


def test_a_sweep_on_a_full_disk_leaves_no_half_of_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path / "o")

    def full(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"{")
        raise OSError(28, "No space left on device")

    def put() -> None:
        with store.opened():
            monkeypatch.setattr(Path, "write_text", full)
            store.put("0" * 32, "{}")

    assert "No space left on device" in refused(put, str(tmp_path / "o"))
    assert list(store.points.iterdir()) == []


def test_points_that_make_no_table(tmp_path: Path):
    store = Store(tmp_path / "o")
    with store.opened():
        frame = pd.DataFrame({"decode.tokens": [1, 10**400]})
        assert "makes no table" in refused(lambda: store.write_table(frame), "o/points")
    assert sorted(file.name for file in store.folder.iterdir()) == [".lock", "points"]


def test_a_report_of_a_name_with_half_a_letter(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")
    simulate("hw/mobile.yaml", policy="dbsc").save("r")
    summary = json.loads(Path("r/summary.json").read_text())
    summary["scenario"]["device"]["name"] = "\ud800"
    Path("r/summary.json").write_text(json.dumps(summary))
    assert write_report([Path("r")], Path("page.html")).stat().st_size > 0
    summary["prefill"] = 5
    Path("r/summary.json").write_text(json.dumps(summary))
    refused(lambda: write_report([Path("r")], Path("page.html")), "r: is no whole result")


def test_a_signal_that_arrives_in_a_callback_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    class Callback:
        def __del__(self) -> None:
            raise self.error

    monkeypatch.setattr(sys, "unraisablehook", hush)
    for error, said in ((Interrupted, False), (ValueError, True)):
        Callback.error = error
        Callback()
        assert bool(capsys.readouterr().err) == said


def test_a_broken_memory_of_a_capture(tmp_path: Path):
    parts = Parts(tmp_path / "t.parquet", {"model": "m"})
    parts.folder.mkdir()
    (parts.folder / "capture.json").write_text("[1")

    def take_up(restart: bool) -> None:
        with parts.opened(restart):
            pass

    assert "--restart" in refused(lambda: take_up(False), "capture.json")
    take_up(True)


@pytest.mark.parametrize(
    "text", ["!!timestamp x", "!!bool x", "!!int ''", "!!float x", "!!python/object/apply:os.system [id]"]
)
def test_tags_whose_value_does_not_fit(folder: Path, text: str):
    Path("case.yaml").write_text(f"extends: hw/mobile.yaml\nseed: {text}\n")
    refused(lambda: Scenario.load("case.yaml"), "case.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("hidden", 10**9, "weights, more than any has"), ("layers", 10**8, "less than or equal to 10000"),
     ("experts", 10**12, "less than or equal to 65536")],
)  # fmt: skip
def test_models_larger_than_can_be_counted(folder: Path, key: str, value: int, message: str):
    text = Path("tiny-moe.yaml").read_text()
    old = next(line for line in text.splitlines() if line.startswith(f"{key}:"))
    Path("big.yaml").write_text(
        text.replace(old, f"{key}: {value}").replace("expert_inner: 32", "expert_inner: 99999999")
    )
    assert message in refused(lambda: load_model("big.yaml"), "big.yaml")


def test_a_table_that_is_no_text_further_down(folder: Path):
    Path("c.csv").write_bytes(formats.csv_text().encode() + b"#" * 20_000 + b"\xe9\n")
    read = lambda: import_trace(Path("c.csv"), ImportOptions(model="tiny-moe.yaml"))  # noqa: E731
    assert "cannot be read as text" in refused(read, "c.csv")


def test_prompts_nested_without_end(tmp_path: Path):
    (tmp_path / "p.jsonl").write_text('{"a":' * 5000)
    refused(lambda: read_prompts(tmp_path / "p.jsonl"), "p.jsonl: line 1")


@pytest.mark.parametrize("change", [{"w": "c8"}, {"w": "?"}, {"all_probs": "c8"}])
def test_npz_of_no_real_numbers(folder: Path, change: dict[str, str]):
    arrays = formats.npz_arrays()
    arrays["all_probs"] = np.ones((12, 2, 8), np.uint16)
    Path("n.npz").write_bytes(
        npz_bytes({**arrays, **{name: arrays[name].astype(kind) for name, kind in change.items()}})
    )
    refused(lambda: import_trace(Path("n.npz"), ImportOptions()), "n.npz")


def test_npz_without_arrays_and_bombs(folder: Path):
    Path("n.npz").write_bytes(npz_bytes({}))
    assert "it holds none" in refused(lambda: import_trace(Path("n.npz"), ImportOptions()), "n.npz")
    Path("n.npz").write_bytes(npz_bytes({"ids": np.zeros(2**28 + 1, np.uint8)}))
    assert "would unpack to" in refused(lambda: import_trace(Path("n.npz"), ImportOptions()), "n.npz")


@pytest.mark.parametrize("expert", [2**32 + 1, 2**63 - 1, -(2**32) + 1])
def test_an_expert_that_needs_64_bits_does_not_become_another_one(folder: Path, expert: int):
    arrays = formats.npz_arrays()
    arrays["ids"] = arrays["ids"].astype(np.int64)
    arrays["ids"][0, 0, 0] = expert
    Path("n.npz").write_bytes(npz_bytes(arrays))
    assert "expert id outside 0 to 7" in refused(lambda: import_trace(Path("n.npz"), ImportOptions()), "n.npz")
    table = pq.read_table("t.parquet")
    rows = table.to_pylist()
    rows[0]["experts"][0] = expert
    wide = pa.schema([pa.field(f.name, pa.list_(pa.int64())) if f.name == "experts" else f for f in table.schema])
    pq.write_table(pa.Table.from_pylist(rows, schema=wide.with_metadata(table.schema.metadata)), "t.parquet")
    assert "expert id outside 0 to 7" in validate_trace("t.parquet")[0]
