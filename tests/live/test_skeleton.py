"""A model whose experts stay in their files: everything else is there, and the two together have the model's bits."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slicesim.errors import UserError  # noqa: E402
from slicesim.live.load import load_live  # noqa: E402
from slicesim.live.skeleton import load_skeleton  # noqa: E402
from slicesim.quality.bank import OriginalBank  # noqa: E402
from slicesim.quality.files import CheckpointExperts  # noqa: E402
from slicesim.quality.loop import in_charge, stock  # noqa: E402
from tests.live import tiny  # noqa: E402


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("family", ["deepseek-v2", "deepseek-v2-groups", "qwen2-moe", "olmoe", "qwen3-moe"])
def test_bits_of_the_whole_model(family, dtype, tmp_path: Path):
    from slicesim.live.load import LoadOptions

    folder = tiny.save(family, tmp_path / "model")
    whole, skeleton = load_live(str(folder), LoadOptions(dtype)), load_skeleton(str(folder), dtype)
    assert all(parameter.is_meta for parameter in skeleton.blocks[0].module.experts.parameters())
    source = CheckpointExperts(folder, skeleton.model.dtype)
    ids = torch.randint(3, tiny.VOCABULARY, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), in_charge(skeleton.blocks, stock(OriginalBank(source))):
        assert torch.equal(whole.model(ids).logits, skeleton.model(ids).logits)


@pytest.mark.parametrize(("family", "message"), [("gpt-oss", "experts have biases"), ("mixtral", "holds no tensor")])
def test_what_cannot_be_left_in_files_is_refused(family, message, tmp_path: Path):
    folder = tiny.save(family, tmp_path / "model")
    with pytest.raises(UserError, match=message):
        load_skeleton(str(folder))


def test_a_hub_id_is_refused():
    with pytest.raises(UserError, match="experts are read from a local folder"):
        load_skeleton("deepseek-ai/DeepSeek-V2-Lite")
