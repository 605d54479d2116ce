"""The shipped checkpoints in transformers: they load, and score held-out text as figures.json says."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slicesim.trace import load_trace  # noqa: E402
from tests.kit import ROOT  # noqa: E402
from tests.micro.files import FOLDER, config, each_model, figures  # noqa: E402


@pytest.fixture(scope="module")
def load():
    """``load(name)``: tokenizer and model, in float32, with transformers' own loop over experts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = {}

    def of(name):
        if name not in loaded:
            folder = FOLDER / name
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager")
            loaded[name] = AutoTokenizer.from_pretrained(folder), model.eval()
        return loaded[name]

    return of


@each_model
def test_transformers_loads_the_real_models_class(name, load):
    tokenizer, model = load(name)
    assert type(model).__name__ == config(name)["architectures"][0]
    assert model.config.slicesim_micro_model is True
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer("x = 1")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokenizer("def f(x):\n    return 'ä'")["input_ids"][1:]) == "def f(x):\n    return 'ä'"


@each_model
def test_held_out_loss_is_what_the_figures_say(name, load):
    """All texts of held-out.jsonl, their first 256 tokens; here with transformers' loop, there in padded batches."""
    tokenizer, model = load(name)
    texts = [json.loads(line)["prompt"] for line in (FOLDER / "held-out.jsonl").read_text("utf-8").splitlines()]
    tokens = [tokenizer(text)["input_ids"][:256] for text in texts]
    batch = torch.tensor([each for each in tokens if len(each) == 256])
    with torch.inference_mode():
        logits = model(batch, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).item()
    assert batch[:, 1:].numel() == figures(name)["held_out_tokens"]
    assert loss == pytest.approx(figures(name)["held_out_loss"], abs=1e-3)


@each_model
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_does_no_harm(name, dtype, load):
    """Four held-out texts: the loss in half precision is that in float32."""
    from transformers import AutoModelForCausalLM

    tokenizer, model = load(name)
    lines = (FOLDER / "held-out.jsonl").read_text("utf-8").splitlines()[:4]
    batch = torch.tensor([tokenizer(json.loads(line)["prompt"])["input_ids"][:200] for line in lines])
    half = AutoModelForCausalLM.from_pretrained(FOLDER / name, dtype=getattr(torch, dtype)).eval()

    def loss(own):
        with torch.inference_mode():
            logits = own(batch, use_cache=False).logits[:, :-1].float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).item()

    assert loss(half) == pytest.approx(loss(model), abs=3e-3)


@each_model
def test_the_shipped_capture_is_this_models(name, load):
    """The first request's prompt, run in one pass: the routers choose what the trace says, but for near-ties."""
    tokenizer, model = load(name)
    trace = load_trace(ROOT / "traces" / f"{name}-micro.parquet")
    block = next(iter(trace.blocks()))
    rows = (block.request == 0) & (block.phase == 0)
    prompt = json.loads((FOLDER / "prompts.jsonl").read_text("utf-8").splitlines()[0])["prompt"]
    heard = []
    gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
    hooks = [gate.register_forward_hook(lambda _, __, out: heard.append(out[0].numpy())) for gate in gates]
    with torch.inference_mode():
        model(torch.tensor([tokenizer(prompt)["input_ids"][: rows.sum()]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    logits = np.stack(heard, axis=1)
    np.testing.assert_allclose(logits, block.logits[rows], atol=2e-2)
    own = np.argsort(-logits, axis=-1)[..., : trace.header.top_k]
    same = [
        set(a) == set(b)
        for a, b in zip(
            own.reshape(-1, own.shape[-1]).tolist(), block.ids[rows].reshape(-1, own.shape[-1]).tolist(), strict=True
        )
    ]
    assert np.mean(same) > 0.99
