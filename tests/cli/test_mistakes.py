"""A user's mistakes: one line that says what, where and what to do; exit code 2; nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest

from slicesim.trace.store import write_trace
from tests.kit import DATA, MOBILE, ROOT, random_trace


def refused(output, *fragments):
    assert output.code == 2, output
    assert output.out == ""
    assert len(output.err.strip().splitlines()) == 1, output.err
    assert output.err.startswith("slicesim: ")
    for fragment in fragments:
        assert fragment in output.err
    return output.err


@pytest.fixture
def run(slicesim, here):
    """Run c.yaml with more options; afterwards nothing may have been written."""
    before = sorted(here.rglob("*"))

    def call(*words):
        output = slicesim("run", "c.yaml", "--out", "o", *words)
        assert sorted(p for p in here.rglob("*") if p.name != "__pycache__") == before
        return output

    return call


def edit(here, *replacements, extra=""):
    text = (here / "c.yaml").read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    (here / "c.yaml").write_text(text + extra)


def line_of(here, words):
    lines = (here / "c.yaml").read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if words in line)


# ---- the scenario file


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (None, ["x.yaml: no such file"]),
        (b"", ["x.yaml: must hold a YAML mapping", "is empty"]),
        (b"- a\n", ["x.yaml: must hold a YAML mapping (key: value)"]),
        (bytes(range(256)), ["x.yaml: is no text", "give a YAML file"]),
        (b"model: x\ntrace: [a\nb: c\n", ["x.yaml:3: broken YAML"]),
        (b"trace:\n\tpath: x\n", ["x.yaml:2: broken YAML", "indent with spaces, not tabs"]),
        (b"model: x\nmodel: y\n", ["x.yaml:2: model: given twice"]),
        (b"model: x\n---\nmodel: y\n", ["x.yaml:2: broken YAML"]),
        (b"1: x\n", ["x.yaml:1: the key 1 must be a word"]),
        (b"model: x\nseed: 2024-13-45\n", ["x.yaml: cannot be read as YAML (month must be in 1..12)"]),
        (b"base: &b {a: 1}\nmodel:\n  <<: *b\n", ["x.yaml:3: merge keys (<<) are not read", "use extends"]),
        (b"a: &x {b: *x}\n", ["x.yaml: its aliases (*name) stand for too many values"]),
        (b"model: deepseek-v2-lite\n", ["x.yaml: device: is missing"]),
        (b"device: phone\n", ["x.yaml:1: device: must be a mapping (key: value)"]),
        (b"extends: x.yaml\n", ["x.yaml:1: extends: circle"]),
        (b"extends: nope.yaml\n", ["x.yaml:1: extends: no such file: nope.yaml"]),
        (b"extends: [c.yaml]\n", ["x.yaml:1: extends: must be the path of one YAML file"]),
        (b"extends: c.yaml\ndevice:\n  flash:\n    lanes: 3\n", ["x.yaml:4: device.flash.lanes: a coefficient needs"]),
    ],
)
def test_scenario_file(slicesim, here, content, fragments):
    if content is not None:
        (here / "x.yaml").write_bytes(content)
    refused(slicesim("run", "x.yaml", "--out", "o"), *fragments)
    assert not (here / "o").exists()


def test_scenario_file_is_a_folder(slicesim, here):
    refused(slicesim("run", "."), ".: is a folder, give a YAML file")


def test_circle_of_two(slicesim, here):
    (here / "x.yaml").write_text("extends: y.yaml\n")
    (here / "y.yaml").write_text("extends: x.yaml\n")
    refused(slicesim("run", "x.yaml"), "y.yaml:1: extends: circle: x.yaml extends this file again")


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("bandwidth_gbs: {value: 13,", "bandwidth_mbs: {value: 13,", "dram.bandwidth_mbs: unknown key (did you mean"),
        ("{value: 13,", '{value: "13 GB/s",', "dram.bandwidth_gbs.value: must be a valid number - the unit stands in"),
        ("{value: 13,", "{value: true,", "must be a valid number (given: true)"),
        ("{value: 13,", "{value: null,", "must be a valid number (given: null)"),
        ("{value: 13,", "{value: [13],", "bandwidth_gbs.value: must be a valid number"),
        ("{value: 13, low: 13,", "{value: -13,", "dram.bandwidth_gbs: must be above 0, is -13"),
        ("{value: 13, low: 13, high: 16,", "{value: 0, low: 0, high: 16,", "must be above 0, is 0"),
        ("{value: 13, low: 13,", "{value: .nan,", "must be a finite number"),
        ("{value: 13, low: 13,", "{value: 1e-30,", "must be at least 1e-06 in the unit of the key"),
        ("{value: 13, low: 13,", "{value: 13, low: 14,", "value 13 lies below its own low of 14"),
        ("high: 16,", "high: .inf,", "dram.bandwidth_gbs.high: must be a finite number"),
        ("    row_kib: ", "    rows_kib: ", "device.dram.rows_kib: unknown key (did you mean 'row_kib'?)"),
        ("energy_pj_per_bit: {value: 1.5,", "energy_pj_per_bit: {value: 2, source: ''} #", "source: must not be empty"),
    ],
)
def test_one_wrong_key(run, here, old, new, fragment):
    edit(here, (old, new))
    line = next(i for i, text in enumerate((here / "c.yaml").read_text().splitlines(), 1) if new in text)
    refused(run(), f"slicesim: c.yaml:{line}: device.dram", fragment)


def test_missing_key_names_its_section(run, here):
    edit(here, ("    row_kib:", "    # row_kib:"))
    refused(run(), f"c.yaml:{line_of(here, '  dram:')}: device.dram.row_kib: is missing")


def test_bare_number_needs_a_source(run, here):
    edit(here, ("macs_per_cycle: {value: 8192, ", "macs_per_cycle: 8192 #"))
    refused(run(), "macs_per_cycle: a coefficient needs its source: write {value: 8192, source: where it comes from}")


def test_energy_counted_twice(run, here):
    edit(here, ("    bit_cost: ", "    mac_energy_pj: {value: 1, source: x}\n    bit_cost: "))
    refused(run(), "npu.efficiency_tops_per_w is all-in", "remove npu.mac_energy_pj")


def test_energy_not_given(run, here):
    edit(here, ("    efficiency_tops_per_w", "    # efficiency_tops_per_w"))
    refused(run(), "give npu.efficiency_tops_per_w, or all of: npu.mac_energy_pj")


# ---- --set


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("cache.capacity_gb", "write path=value, for example --set cache.capacity_gb=2.4"),
        ("=3", "write path=value"),
        ("cache.foo=3", "--set cache.foo: unknown key (known keys: capacity_gb"),
        ("nope.deep.key=3", "--set nope.deep.key: nope: unknown key"),
        ("policy.evict.name=lru", "--set policy.evict.name: policy.evict: unknown key (did you mean 'eviction'?)"),
        ("seed.x=3", "--set seed.x: seed is a single value, it has no keys below it"),
        ("cache.capacity_gb=", "--set cache.capacity_gb: must be a valid number (given: null)"),
        ("cache={capacity_gb: ", "--set cache:1: broken YAML"),
        ("cache={capacity_gb: 1, capacity_gb: 2}", "--set cache:1: capacity_gb: given twice"),
        ("seed=2024-13-45", "--set seed: cannot be read as YAML"),
        ("seed=-1", "seed: must be greater than or equal to 0 (given: -1)"),
        ("seed=1.5", "seed: must be a valid integer (given: 1.5)"),
        ("device=3", "--set device: must be a mapping (key: value)"),
        ("device.flash.lanes=two", "device.flash.lanes.value: must be a valid number"),
        ("device.flash.lanes=1.5", "must be a whole number from 1 to 1000000, is 1.5"),
        ("device.flash.lanes=1e15", "must be a whole number from 1 to 1000000"),
        ("device.npu.clock_ghz=1e-300", "clock_ghz: must be at least 1e-06 in the unit of the key"),
        ("device.flash.latency_us=1e300", "latency_us: must be at most 1e+09 in the unit of the key"),
        ("device.dram.bandwidth_gbs.value=100", "value 100 lies above its own high of 16"),
        ("device.sram.tile_kib=9000", "one tile must fit capacity_kib, two of them to be double-buffered"),
        ("device.npu.bit_cost=foo", "must be 'proportional' or 'bricks' (given: \"foo\")"),
        ("schedule.overlap=full", "must be 'serial', 'layer' or 'prefetch' (given: \"full\")"),
        ("trace.split=1.5", "must be recorded, all-decode, or a fraction between 0 and 1 (given: 1.5)"),
        ("trace.max_tokens=0", "must be greater than or equal to 1 (given: 0)"),
        ("trace.top_k=3", "trace.top_k: is 3, but t.parquet holds top-2"),
        ("amat.high_bits=4", "high_bits (4) must be above low_bits (4)"),
        ("policy=dbsc", "policy: must be a mapping (key: value)"),
        ("policy.eviction.name=lruu", "no eviction strategy 'lruu' (did you mean 'lru'?)"),
        ("policy.precision.treshold=0.2", "has no such parameter (it has: on_renormalised, threshold)"),
        ("policy.precision.threshold=high", "policy.precision.threshold: must be a valid number"),
        ("policy.precision.threshold=true", "policy.precision.threshold: must be a valid number (given: true)"),
        ("policy.precision.threshold=2", "must be less than or equal to 1 (given: 2)"),
        ("policy.routing.name=cache-prior", "cache-prior reroutes, but the trace holds only the top-k; use a trace"),
        ("policy.constraint.name=bias", "bias steers cache-prior: it needs routing cache-prior (and logits)"),
        ("cache.object_bytes=trace", "t.parquet brings no sizes of its own; use geometry"),
    ],
)
def test_set(run, text, fragment):
    refused(run("--set", text), fragment)


def test_strategies_that_do_not_go_together(run):
    refused(
        run("--policy", "belady", "--set", "policy.constraint.name=budget"),
        "belady knows the future of the recorded requests only: it needs routing stock and constraint none",
    )


# ---- sizes


def test_cache_of_10_mb(slicesim, here):
    refused(
        slicesim("run", MOBILE, "--out", "o", "--set", "cache.capacity_gb=0.01"),
        "--set cache.capacity_gb: 0.01 GB holds less than one batch of 6 experts (0.05678 GB)",
        "give at least 0.05678",
    )


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_least_cache_that_is_named_will_do(slicesim, here, scope):
    words = ("run", "c.yaml", "--out", "o", "--set", f"cache.scope={scope}", "--set")
    error = refused(slicesim(*words, "cache.capacity_gb=1e-6"), "holds less than one batch of 2 experts")
    enough = error.strip().rpartition("give at least ")[2]
    assert slicesim(*words, f"cache.capacity_gb={enough}").code == 0


def test_cache_above_dram(slicesim, here):
    words = ("run", "c.yaml", "--out", "o", "--set")
    error = refused(slicesim(*words, "cache.capacity_gb=10"), "exceed the device's DRAM (8 GB); give at most 7.999")
    assert slicesim(*words, f"cache.capacity_gb={error.strip().rpartition('at most ')[2]}").code == 0


def test_dram_too_small_for_the_model(run):
    refused(
        run("--set", "device.dram.capacity_gb=1e-4"),
        "--set device.dram.capacity_gb: 0.0001 GB do not hold non-expert weights",
        "or choose a smaller model",
    )


def test_absurd_cache(run):
    refused(run("--set", "cache.capacity_gb=1e300"), "must be less than or equal to 1000000")


# ---- models


@pytest.mark.parametrize("name", ["deepseek", "nope.yaml", "."])
def test_unknown_model(run, name):
    refused(run("--model", name), f"--model: no model {name!r}; shipped: deepseek-v2-lite", "path of a model YAML")


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("vocabulary", "vocabulry", "m.yaml:13: vocabulry: unknown key (did you mean 'vocabulary'?)"),
        ("top_k: 2", "top_k: 20", "m.yaml: top_k (20) is above the number of experts (8)"),
        ("kind: gqa", "kind: mqa", "m.yaml:12: attention: kind must be 'mla', 'gqa'"),
        ("kind: gqa, ", "", "m.yaml:12: attention: kind must be given"),
        ("kv_heads: 1", "kv_heads: one", "m.yaml:12: attention.kv_heads: must be a valid integer"),
    ],
)
def test_faulty_model_file(run, tmp_path_factory, old, new, fragment):
    file = tmp_path_factory.mktemp("models") / "m.yaml"
    text = (DATA / "tiny-moe.yaml").read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    refused(run("--model", file), fragment)


# ---- traces


@pytest.mark.parametrize(
    ("trace", "fragments"),
    [
        ("nope.parquet", ["--trace: no such trace: nope.parquet"]),
        (".", ["in no format that is known here: npz"]),
        ("c.yaml", ["c.yaml: in no format that is known here: npz"]),
        ("", ["--trace: trace.path: must not be empty"]),
    ],
)
def test_no_trace(run, trace, fragments):
    refused(run("--trace", trace), *fragments)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.6, 0.999])
def test_truncated_trace(run, here, share):
    whole = (here / "t.parquet").read_bytes()
    (here / "t.parquet").write_bytes(whole[: int(share * len(whole))])
    refused(run(), "t.parquet: not a whole Parquet file, perhaps truncated")


def test_parquet_that_is_no_trace(run, here):
    pd.DataFrame({"a": [1]}).to_parquet(here / "t.parquet")
    refused(run(), "t.parquet: no slicesim trace (the Parquet metadata has no key 'slicesim')")


def test_trace_that_may_not_be_read(run, monkeypatch):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied", "t.parquet")

    monkeypatch.setattr("slicesim.trace.load.is_parquet", forbidden)
    refused(run(), "slicesim: t.parquet: Permission denied")


def test_empty_trace(run, here):
    write_trace(here / "t.parquet", random_trace(1, 2).header, [])
    refused(run(), "t.parquet: the trace holds no tokens")


@pytest.mark.parametrize(
    ("trace", "model", "fragments"),
    [
        ("bigmoe-on-edge/gptoss.route.csv", "deepseek-v2-lite", ["128 experts per layer, the model has 64"]),
        ("bigmoe-on-edge/gptoss.route.csv", "gpt-oss-120b", ["top-2, the model routes top-4; set trace.top_k=2"]),
        ("deepseek-moe-16b/full_softmax.npz", "deepseek-v2-lite", ["its layer 27 is no MoE layer of the model"]),
        ("deepseek-v2-lite/esft-native", "deepseek-v2-lite", ["covers 3 of the model's 26", "trace.layer_subset=true"]),
        ("deepseek-v2-lite/esft-native", "olmoe-1b-7b", ["covers 3 of the model's 16", "choose the trace's model"]),
        ("qwen1.5-moe/gsm8k_5layers.npz", "qwen1.5-moe-a2.7b", ["covers 5 of the model's 24", "layer_subset=true"]),
        ("gpt-oss-20b/decode.npz", "gpt-oss-20b", ["holds renormalised ones", "policy.precision.on_renormalised=true"]),
    ],
)
def test_trace_of_another_model(slicesim, here, shared_data, trace, model, fragments):
    output = slicesim("run", MOBILE, "--out", "o", "--model", model, "--trace", shared_data / "traces" / trace)
    refused(output, *fragments)


def test_declared_subset(slicesim, here, shared_data):
    trace = shared_data / "traces" / "qwen1.5-moe" / "gsm8k_5layers.npz"
    output = slicesim(
        *("run", MOBILE, "--out", "o", "--model", "qwen1.5-moe-a2.7b", "--trace", trace),
        *("--set", "trace.layer_subset=true", "--set", "trace.split=all-decode", "--set", "trace.max_tokens=2"),
        *("--set", "cache.capacity_gb=0.5"),
    )
    assert output.code == 0, output.err


# ---- --out


@pytest.mark.parametrize(
    ("out", "fragment"),
    [
        ("t.parquet", "t.parquet: is a file; choose another --out"),
        ("t.parquet/x", "is a file; choose another --out"),
        ("other", "other: holds other files, not an earlier result; choose another --out"),
        (".", ".: is where you are working; choose another --out"),
        ("/", "/: is where you are working; choose another --out"),
        ("a" * 300, "File name too long; choose another --out"),
    ],
)
def test_out(slicesim, here, out, fragment):
    (here / "other").mkdir()
    (here / "other" / "thesis.txt").write_text("mine")
    before = sorted(here.rglob("*"))
    refused(slicesim("run", "c.yaml", "--out", out), fragment)
    assert sorted(here.rglob("*")) == before


def test_out_without_permission(slicesim, here, monkeypatch):
    (here / "ro").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(here / "ro"))  # root may write anywhere
    refused(slicesim("run", "c.yaml", "--out", "ro/o"), "ro/o: no permission to write in", "choose another --out")


def test_disk_full_while_saving(slicesim, here, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("slicesim.report.plots.overview", full)
    refused(slicesim("run", "c.yaml", "--out", "o"), "o: cannot be written (No space left on device)")
    assert not [path.name for path in here.iterdir() if "o" in path.name.split(".")]


# ---- compare, trace


@pytest.mark.parametrize(
    ("policies", "fragment"),
    [
        (",", "--policies: give at least one policy, for example lru-high,dbsc"),
        ("lru-high,dbcs", "no preset 'dbcs' (did you mean 'dbsc'?)"),
        ("dbsc,q.py:My", "q.py:My: no such file"),
    ],
)
def test_compare(slicesim, here, policies, fragment):
    refused(slicesim("compare", "c.yaml", "--policies", policies), fragment)


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("import", "nope", "-o", "x.parquet"), "no such trace: nope"),
        (("import", "c.yaml", "-o", "x.parquet"), "c.yaml: in no format that is known here"),
        (("import", "t.parquet", "-o", "x.parquet", "--format", "foo"), "--format: no format 'foo'; known: npz"),
        (("import", "a.jsonl", "-o", "x.parquet"), "name the model with --model"),
        (("import", "a.jsonl", "-o", "a.jsonl"), "a.jsonl: is the file to read from; choose another --out"),
        (("import", "a.jsonl", "-o", "."), ".: is a folder; give the name of a file with --out"),
        (("info", "nope"), "no such trace: nope"),
        (("validate", "nope"), "no such trace: nope"),
        (("synth", "nope.yaml", "-o", "x.parquet"), "nope.yaml: no such file"),
        (("synth", "c.yaml", "-o", "x.parquet"), "c.yaml:7: device: unknown key (known keys: name, made_by"),
    ],
)
def test_trace(slicesim, here, words, fragment):
    (here / "a.jsonl").write_text(
        '{"req_id":"a","token_idx":0,"layer":1,"topk_ids":[1,2],"topk_weights":[0.5,0.2]}\n', encoding="utf-8"
    )
    before = sorted(here.rglob("*"))
    refused(slicesim("trace", *words), fragment)
    assert sorted(here.rglob("*")) == before


def test_validate_lists_faults(slicesim, here):
    (here / "t.parquet").write_bytes(b"PAR1")
    output = slicesim("trace", "validate", "t.parquet")
    assert output.code == 2
    assert "t.parquet: not a whole Parquet file" in output.err


def test_in_a_shell_too(here):
    command = [sys.executable, "-m", "slicesim", "run", "c.yaml", "--set", "cache.capacity_gb=1e-6"]
    end = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert end.returncode == 2
    assert end.stdout == ""
    assert end.stderr.startswith("slicesim: --set cache.capacity_gb: ")
    assert not (here / "results").exists()
