"""Safetensors files read by range: golden bytes, shards, and what is refused."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.checkpoint import Plan, open_checkpoint, writing
from slicesim.checkpoint.dtypes import decode, encode
from slicesim.errors import UserError
from tests.checkpoint.samples import expert_weights, file_bytes, stored, write_file


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_floats_of_every_dtype(tmp_path, dtype):
    values = np.array([[1.5, -2.0, 0.0], [2.0**-20, 128.0, -0.25]])
    path = write_file(tmp_path / "m.safetensors", {"pad": stored(np.ones(3), "F16"), "w": stored(values, dtype)})
    tensor = open_checkpoint(path).tensors["w"]
    assert tensor.shape == (2, 3)
    assert tensor.floats(0, 6).reshape(2, 3).tolist() == values.tolist()
    assert tensor.floats(2, 3).tolist() == values.reshape(-1)[2:5].tolist()


def test_bfloat16_by_hand():
    """1.0 is 0x3f80; 1 + 2^-8 lies half-way to 0x3f81 and goes to the even 0x3f80, 1 + 3 x 2^-8 to 0x3f82."""
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8 + 2**-20)], dtype=np.float32)
    raw = encode(values, "BF16")
    assert raw.view("<u2").tolist() == [0x3F80, 0x3F80, 0x3F82, 0xBF81]
    assert decode(raw, "BF16").tolist() == [1.0, 1.0, 1.015625, -1.0078125]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**16 - 1)), st.sampled_from(["BF16", "F16"]))
def test_sixteen_bits_come_back(words, dtype):
    raw = np.array(words, dtype="<u2")
    finite = np.isfinite(decode(raw.view(np.uint8), dtype))
    kept = raw[finite]
    assert encode(decode(kept.view(np.uint8), dtype), dtype).view("<u2").tolist() == kept.tolist()


def test_a_folder_with_an_index_and_one_without(tmp_path):
    write_file(tmp_path / "a.safetensors", {"x": stored(np.ones(2))}, {"format": "pt"})
    write_file(tmp_path / "b.safetensors", {"y": stored(np.zeros(2))})
    assert set(open_checkpoint(tmp_path).tensors) == {"x", "y"}
    assert open_checkpoint(tmp_path).metadata == {"format": "pt"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    assert set(open_checkpoint(tmp_path).tensors) == {"x"}
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "z": "c.safetensors"}}))
    with pytest.raises(UserError, match=r"c\.safetensors: is missing, but model\.safetensors\.index\.json names it"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(UserError, match="no index of safetensors shards"):
        open_checkpoint(tmp_path)
    index.write_text("{")
    with pytest.raises(UserError, match="no index of safetensors shards"):
        open_checkpoint(tmp_path)


def test_one_name_in_two_shards_is_refused(tmp_path):
    for name in ("a", "b"):
        write_file(tmp_path / f"{name}.safetensors", {"x": stored(np.ones(2))})
    with pytest.raises(UserError, match=r"b\.safetensors: tensor x is also in a\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "x.ckpt", "x.pkl"])
def test_pickle_is_refused_unread(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04never read")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(UserError, match=f"{name}: a pickle file can run code and is never loaded"):
            open_checkpoint(path)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="holds no safetensors file"):
        open_checkpoint(tmp_path)
    with pytest.raises(UserError, match="no such checkpoint"):
        open_checkpoint(tmp_path / "x.safetensors")


def test_every_cut_is_noticed(tmp_path):
    whole = file_bytes({"x": stored(np.ones((2, 3))), "y": stored(np.ones(4), "F16")})
    path = tmp_path / "m.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"m\.safetensors: (truncated|no safetensors file, or cut off)"):
            open_checkpoint(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match="too long"):
        open_checkpoint(path)


HEADERS = [
    b"not json",
    b"[]",
    b'{"x": 1}',
    b'{"x": {"dtype": "F32", "shape": [1]}}',
    b'{"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
    b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}',
    b'{"__metadata__": 1, "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_is_not_sound_is_one_line(tmp_path, header):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(UserError) as error:
        open_checkpoint(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 250), st.integers(0, 255))
def test_any_changed_byte_reads_or_is_refused(tmp_path_factory, place, byte):
    content = bytearray(file_bytes({"x": stored(np.ones((2, 3))), "y": stored(np.ones(4), "F16")}, {"a": "b"}))
    content[place % len(content)] = byte
    path = tmp_path_factory.mktemp("byte") / "m.safetensors"
    path.write_bytes(content)
    with suppress(UserError):
        open_checkpoint(path)


def test_written_as_a_stream_in_any_order(tmp_path):
    path = tmp_path / "new" / "w.safetensors"
    with writing(path, [Plan("a", "U8", (3,)), Plan("b", "F32", (2,))], {"k": "v"}) as writer:
        writer.write("b", np.array([2.0], "<f4").view(np.uint8), 4)
        writer.write("a", np.array([1, 2, 3], np.uint8))
        writer.write("b", np.array([1.0], "<f4").view(np.uint8))
        assert not path.exists()
    found = open_checkpoint(path)
    assert found.metadata == {"k": "v"}
    assert found.tensors["a"].start % 4096 == 0
    assert found.tensors["a"].raw().tolist() == [1, 2, 3]
    assert found.tensors["b"].floats(0, 2).tolist() == [1, 2]


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "w.safetensors", [Plan("a", "U8", (3,))], {}):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((UserError, OSError)) as error, writing(tmp_path / "file" / "w.safetensors", [], {}):
        pass
    assert "Traceback" not in str(error.value)


def test_the_safetensors_package_agrees(tmp_path):
    """Both ways, and with bfloat16, against the reference implementation."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    weights = {name: torch.from_numpy(values) for name, values in expert_weights().items()}
    weights["half"] = torch.randn(5, 3).bfloat16()
    weights["empty"] = torch.zeros(0, 3)
    theirs = tmp_path / "theirs.safetensors"
    save_file(weights, theirs, metadata={"format": "pt"})
    found = open_checkpoint(theirs)
    assert found.metadata == {"format": "pt"}
    assert set(found.tensors) == set(weights)
    for name, tensor in found.tensors.items():
        assert tensor.floats(0, tensor.size).tolist() == weights[name].float().reshape(-1).tolist()
    ours = tmp_path / "ours.safetensors"
    tensors = list(found.tensors.values())
    with writing(ours, [Plan(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors], {"k": "v"}) as writer:
        for tensor in tensors:
            writer.write(tensor.name, encode(tensor.floats(0, tensor.size), tensor.dtype))
    read = load_file(ours)
    assert set(read) == set(weights)
    assert all(torch.equal(read[name], weights[name]) for name in weights)
