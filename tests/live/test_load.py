"""What is loaded, and what is refused with one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from slicesim.errors import UserError  # noqa: E402
from slicesim.live import load as loading  # noqa: E402
from slicesim.live.load import LoadOptions, load_live  # noqa: E402
from tests.live import tiny  # noqa: E402


@pytest.fixture
def copy(model_folder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("olmoe"), tmp_path / "copy"))


def refusal(model: object, **options: object) -> str:
    with pytest.raises(UserError) as error:
        load_live(str(model), LoadOptions(**options))
    (line,) = str(error.value).splitlines()
    return line


def test_a_folder_with_pickles_alone_is_refused_and_not_opened(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle, which can run any code: only safetensors are loaded" in refusal(copy)


def test_pickles_beside_safetensors_are_left_alone(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert len(load_live(str(copy)).blocks) == 3


def test_missing_and_broken_folders(copy: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").endswith("nowhere: no such model folder")
    assert refusal("./nowhere") == "./nowhere: no such model folder"
    assert refusal(tmp_path) == f"{tmp_path}: no model folder (it has no config.json)"
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in refusal(copy)
    (copy / "model.safetensors").unlink()
    assert refusal(copy) == f"{copy}: holds no weights (*.safetensors)"


def test_weights_that_lack_a_tensor_are_refused(copy: Path) -> None:
    """transformers would fill it with random numbers and only warn."""
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.gate.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert refusal(copy) == f"{copy}: the weight files lack 1 tensors of the model, as model.layers.1.mlp.gate.weight"


def test_code_in_a_model_folder_is_not_run(copy: Path) -> None:
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"olmoe"', '"own_model"').replace(
        "{", '{"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},', 1))  # fmt: skip
    (copy / "own.py").write_text("raise SystemExit('code was run')")
    assert "cannot be loaded" in refusal(copy)


def test_types(model_folder) -> None:
    folder = str(model_folder("olmoe"))
    assert load_live(folder).model.dtype == torch.float32
    assert load_live(folder, LoadOptions(dtype="bfloat16")).model.dtype == torch.bfloat16
    assert refusal(folder, dtype="int8") == ("--dtype: 'int8' is none of auto, float32, bfloat16, float16")


def test_accelerate_is_asked_for_by_name(model_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    folder = model_folder("olmoe")
    assert refusal(folder, device_map="auto") == "--device-map needs accelerate: pip install accelerate"
    assert "give --device-map auto too" in refusal(folder, offload_folder=Path("off"))
    assert "give --offload-folder too" in refusal(folder, device_map="auto", max_memory_gb=1.0)


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_layers_on_disk_compute_the_same(family: str, model_folder, tmp_path: Path) -> None:
    """30 KB of memory: most layers are read from disk; also block by block, from parts."""
    pytest.importorskip("accelerate")
    options = LoadOptions(device_map="auto", offload_folder=tmp_path / "off", max_memory_gb=30e-6)
    ids = torch.tensor([[5, 9, 4, 30]])
    plain, off = load_live(str(model_folder(family))), load_live(str(model_folder(family)), options)
    assert "disk" in off.model.hf_device_map.values()

    def stock(block, hidden):
        routing = block.route(hidden)
        return block.output(hidden, routing.ids, routing.weights)

    with torch.inference_mode():
        expected = plain.model(ids).logits
        assert torch.equal(off.model(ids).logits, expected)
        with off.blocks[-1].overridden(stock):
            assert torch.equal(off.model(ids).logits, expected)
        assert torch.equal(off.model(ids).logits, expected)


def test_mxfp4_is_unpacked_to_plain_matrices(tmp_path: Path) -> None:
    """OCP MX: 16 values of a sign, two exponent bits and one of mantissa; 32 of them share a power of two.

    Low nibble first. Block of expert 0, output 0: bytes 0x21 are 0.5 and 1.0, scale 2^(128-127) = 2, so 1 and 2.
    """
    model = tiny.build("gpt-oss", intermediate_size=32).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    expected = {}
    for name in [name for name in weights if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, width, out = weights.pop(name).shape
        blocks = torch.randint(0, 256, (experts, out, width // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(120, 130, (experts, out, width // 32), generator=generator, dtype=torch.uint8)
        blocks[0, 0, 0, :], scales[0, 0, 0] = 0x21, 128
        weights[f"{name}_blocks"], weights[f"{name}_scales"] = blocks, scales
        magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
        nibbles = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2).long()
        values = magnitudes[nibbles & 7] * (1 - 2 * (nibbles >> 3)) * 2.0 ** (scales[..., None].float() - 127)
        expected[name] = values.flatten(-2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tiny.add_config(tmp_path, quantization_config={"quant_method": "mxfp4"})
    for block in load_live(str(tmp_path)).blocks:
        name = f"model.layers.{block.layer}.mlp.experts."
        for expert in range(block.experts):
            gate, up, down = (matrix.float() for matrix in block.matrices(expert))
            assert torch.equal(gate, expected[f"{name}gate_up_proj"][expert, 0::2])
            assert torch.equal(up, expected[f"{name}gate_up_proj"][expert, 1::2])
            assert torch.equal(down, expected[f"{name}down_proj"][expert])
        assert block.matrices(0).gate_proj[0].tolist() == [1.0, 2.0] * 16
