"""``slicesim amat``: report, pack, unpack, and what each refuses."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from slicesim.amat import dequantise, quantise, relative_mse, truncate
from slicesim.amat.slices import slice_sizes
from slicesim.checkpoint import open_checkpoint
from slicesim.models import slice_bytes
from slicesim.scenario.schema import Amat
from tests.checkpoint.samples import checkpoint, expert_weights, stored, write_file

EXPERT = 3 * 64 * 32


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return checkpoint(tmp_path / "model.safetensors")


def rows(folder):
    with (folder / "errors.csv").open() as file:
        return {(r["tensor"], f"{r['high_bits']}/{r['low_bits']}", r["method"]): r for r in csv.DictReader(file)}


def test_report(slicesim, model, tmp_path):
    done = slicesim("amat", "report", model, "--pairs", "8/4,6/3")
    assert done.code == 0, done.err
    for fragment in ("18 tensors, 36,864 weights", "AMAT, MSB slice alone", "8/4", "6/3", "SQNR dB"):
        assert fragment in done.out
    folder = tmp_path / "results" / "model-amat"
    assert {file.name for file in folder.iterdir()} == {"summary.json", "errors.csv", "errors.png", "errors.svg"}
    found = rows(folder)
    assert len(found) == 18 * 2 * 6
    name = "model.layers.2.mlp.experts.1.down_proj.weight"
    weights = expert_weights()[name]
    high = quantise(weights, 6)
    low = dequantise(truncate(high, 3), weights.shape)
    for method, approximation in (("amat_high", dequantise(high, weights.shape)), ("amat_low", low)):
        row = found[name, "6/3", method]
        relative = relative_mse(weights, approximation)
        assert float(row["relative_mse"]) == pytest.approx(relative, rel=1e-9)
        assert float(row["sqnr_db"]) == pytest.approx(-10 * np.log10(relative))


def test_the_overall_error_weighs_tensors_by_their_energy(slicesim, model, tmp_path):
    done = slicesim("amat", "report", model, "--pairs", "8/4", "-o", "r", "--json")
    overall = {row["method"]: row["relative_mse"] for row in json.loads(done.out)["overall"]}
    weights = [values for name, values in expert_weights().items() if ".experts." in name]
    noise = sum(
        float(np.square(dequantise(truncate(quantise(w, 8), 4), w.shape) - w, dtype=float).sum()) for w in weights
    )
    assert overall["amat_low"] == pytest.approx(noise / sum(float(np.square(w, dtype=float).sum()) for w in weights))


def test_report_on_all_tensors(slicesim, model, tmp_path):
    slicesim("amat", "report", model, "--all", "--pairs", "8/4", "-o", "r")
    assert {name for name, _, _ in rows(tmp_path / "r")} == {name for name, w in expert_weights().items() if w.ndim > 1}


def test_report_on_zeros_has_no_ratio(slicesim, tmp_path):
    path = write_file(tmp_path / "zeros.safetensors", {"w": stored(np.zeros((4, 33)))})
    done = slicesim("amat", "report", path, "--all", "-o", tmp_path / "r", "--json")
    assert done.code == 0, done.err
    assert all(row["relative_mse"] is None for row in json.loads(done.out)["overall"])


def test_the_note_of_a_checkpoint_is_shown(slicesim, tmp_path):
    tensors = {name: stored(values) for name, values in expert_weights().items()}
    path = write_file(tmp_path / "m.safetensors", tensors, {"note": "micro model"})
    assert "micro model" in slicesim("amat", "report", path, "-o", tmp_path / "r").out


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("high", "low", "group"), [(8, 4, 32), (6, 3, 32), (7, 2, 24)])
def test_pack_and_unpack(slicesim, tmp_path, dtype, high, low, group):
    source = checkpoint(tmp_path / "m.safetensors", dtype)
    packed = tmp_path / "p.safetensors"
    done = slicesim("amat", "pack", source, "-o", packed, "--high", high, "--low", low, "--group", group)
    assert done.code == 0, done.err
    first, objects = open_checkpoint(source), open_checkpoint(packed)
    amat = Amat(high_bits=high, low_bits=low, group=group)
    sizes = [3 * size for size in slice_sizes(64 * 32, amat)]
    assert [(name, tensor.bytes) for name, tensor in objects.tensors.items()] == [
        (f"layers.{layer}.experts.{expert}.{part}", size)
        for layer in (1, 2) for expert in range(3) for part, size in zip(("msb", "lsb"), sizes, strict=True)
    ]  # fmt: skip
    if group == 32:
        assert tuple(sizes) == slice_bytes(EXPERT, high, low, group)
    for precision in ("high", "low"):
        out = tmp_path / f"{precision}.safetensors"
        assert slicesim("amat", "unpack", packed, "-o", out, "--precision", precision).code == 0
        rebuilt = open_checkpoint(out).tensors
        assert set(rebuilt) == {name for name in first.tensors if ".experts." in name}
        for name, tensor in rebuilt.items():
            given = first.tensors[name]
            assert (tensor.dtype, tensor.shape) == (given.dtype, given.shape)
            codes = quantise(given.floats(0, given.size), high, group)
            exact = dequantise(codes if precision == "high" else truncate(codes, high - low), (given.size,))
            unit = {"F32": 0, "F16": 2**-11, "BF16": 2**-8}[dtype]
            assert (np.abs(tensor.floats(0, tensor.size) - exact) <= unit * np.abs(exact) + 2**-25 * (unit > 0)).all()


@pytest.mark.parametrize("is_transposed", [False, True])
def test_fused_experts_come_back_in_their_layout(slicesim, tmp_path, is_transposed):
    rng = np.random.default_rng(0)
    values = {"gate_up_proj": rng.standard_normal((3, 64, 32)), "down_proj": rng.standard_normal((3, 32, 32))}
    stored_as = {n: np.ascontiguousarray(v.transpose(0, 2, 1)) if is_transposed else v for n, v in values.items()}
    place = "model.layers.0.mlp.experts."
    source = write_file(tmp_path / "m.safetensors", {place + n: stored(v) for n, v in stored_as.items()})
    assert slicesim("amat", "pack", source, "-o", tmp_path / "p.safetensors").code == 0
    assert slicesim("amat", "unpack", tmp_path / "p.safetensors", "-o", tmp_path / "u.safetensors").code == 0
    assert slicesim("amat", "report", source, "-o", tmp_path / "r", "--pairs", "8/4").code == 0
    for name, tensor in open_checkpoint(tmp_path / "u.safetensors").tensors.items():
        laid = values[name.removeprefix(place)].astype(np.float32)
        expected = np.stack([dequantise(quantise(one, 8), one.shape) for one in laid])
        found = tensor.floats(0, tensor.size).reshape(tensor.shape)
        assert (found == (expected.transpose(0, 2, 1) if is_transposed else expected)).all()
        relative = relative_mse(laid, expected)
        assert float(rows(tmp_path / "r")[name, "8/4", "amat_high"]["relative_mse"]) == pytest.approx(relative)


def refused(slicesim, fragment, *words):
    done = slicesim("amat", *words)
    assert done.code == 2, done.out
    assert fragment in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("report", "model.safetensors", "--pairs", "8"), "--pairs 8: write pairs as high/low"),
        (("report", "model.safetensors", "--pairs", "4/4"), "high_bits (4) must be above low_bits (4)"),
        (("report", "model.safetensors", "--pairs", "9/4"), "high_bits must be less than or equal to 8"),
        (("report", "model.safetensors", "--group", "0"), "group must be greater than or equal to 1"),
        (("report", "none.safetensors"), "none.safetensors: no such checkpoint"),
        (("report", "w.bin"), "w.bin: a pickle file"),
        (("pack", "w.bin", "-o", "x.safetensors"), "w.bin: a pickle file"),
        (("pack", "model.safetensors", "-o", "x.bin"), "x.bin: give the name of a .safetensors file"),
        (("pack", "model.safetensors", "-o", "model.safetensors"), "is the file to read from"),
        (("pack", ".", "-o", "x.safetensors"), "lies in the folder to read from"),
        (("unpack", "model.safetensors", "-o", "x.safetensors"), "holds no packed slices"),
        (("unpack", "model.safetensors", "-o", "x.safetensors", "--precision", "mid"), "must be high or low"),
    ],
)
def test_mistakes(slicesim, model, tmp_path, words, fragment):
    (tmp_path / "w.bin").write_bytes(b"")
    refused(slicesim, fragment, *words)
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "w.bin"}


@pytest.mark.parametrize("command", ["pack", "report"])
@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_weights_without_a_code_name_their_tensor(slicesim, tmp_path, command, weight):
    name = "model.layers.2.mlp.experts.1.up_proj.weight"
    weights = expert_weights()
    weights[name][3, 5] = weight
    path = write_file(tmp_path / "m.safetensors", {key: stored(values, "BF16") for key, values in weights.items()})
    refused(slicesim, f"tensor {name}: weights hold NaN or infinity", command, path, "-o", tmp_path / "x.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_damaged_packed_file_is_one_line(slicesim, model, tmp_path):
    packed, out = tmp_path / "p.safetensors", tmp_path / "u.safetensors"
    slicesim("amat", "pack", model, "-o", packed)
    whole = packed.read_bytes()
    start = open_checkpoint(packed).tensors["layers.1.experts.0.msb"].start
    for content, fragment in (
        (whole[:-1], "truncated"),
        (whole[:start] + b"\xff\xff" + whole[start + 2 :], "layers.1.experts.0.msb"),
        (whole.replace(b'\\"high_bits\\":8', b'\\"high_bits\\":9'), "metadata slicesim.amat: amat.high_bits"),
        (whole.replace(b'\\"low_bits\\":4', b'\\"low_bits\\":3'), "layers.1.experts.0.msb"),
        (whole.replace(b"layers.2.experts.1.lsb", b"layers.2.experts.9.lsb"), "layers.2.experts.1.lsb is missing"),
    ):
        packed.write_bytes(content)
        refused(slicesim, fragment, "unpack", packed, "-o", out)
        assert not out.exists()


def test_one_matrix_at_a_time(slicesim, tmp_path, monkeypatch):
    """Packing never asks for more than one expert's matrix; reports ask for a piece of one."""
    from slicesim.checkpoint import Tensor

    asked = []
    real = Tensor.floats
    monkeypatch.setattr(Tensor, "floats", lambda self, first, count: (asked.append(count), real(self, first, count))[1])
    source = checkpoint(tmp_path / "m.safetensors", layers=(1,), experts=1, hidden=512, inner=256)
    slicesim("amat", "pack", source, "-o", tmp_path / "p.safetensors")
    assert asked == [512 * 256] * 3
    asked.clear()
    slicesim("amat", "report", source, "-o", tmp_path / "r")
    assert asked == [1 << 16] * 6
