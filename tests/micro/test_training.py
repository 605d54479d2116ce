"""The parts of train_micro.py: experts in padded batches agree with transformers; balance, text, resuming."""

from __future__ import annotations

import argparse

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.kit import ROOT  # noqa: E402
from tests.micro.files import each_model  # noqa: E402


@pytest.fixture(autouse=True)
def _experiments_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))


@pytest.fixture
def build():
    from micro.families import FAMILIES, build

    return lambda name: build(FAMILIES[name], 40, 0, 1)


def loss_and_gradients(model, tokens):
    model.zero_grad()
    logits = model(tokens, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@each_model
def test_padded_batches_give_the_same_loss_and_gradients(name, build):
    from micro.experts import compute_in_batches

    tokens = torch.randint(40, (2, 24), generator=torch.Generator().manual_seed(5))
    model = build(name)
    loss, gradients = loss_and_gradients(model, tokens)
    compute_in_batches(model)
    own_loss, own_gradients = loss_and_gradients(model, tokens)
    assert own_loss == pytest.approx(loss, abs=1e-5)
    for key, gradient in gradients.items():
        # An expert that no token chose has no gradient in one, and one of 0 in the other.
        torch.testing.assert_close(
            own_gradients[key], gradient, rtol=1e-3, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}"
        )


def test_balance_loss_by_hand():
    """E = 2, 2 tokens, top-1; scores (0.75, 0.25) and (0.5, 0.5), both take expert 0: 2 * (1 * 0.625 + 0) = 1.25."""
    from micro.measure import balance_loss

    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()
    assert balance_loss(logits, torch.tensor([[0], [0]])).item() == pytest.approx(1.25)


def test_documents_are_split_by_name_and_ordered():
    from micro.corpus import documents

    found = documents()
    names = [each.name for each in found]
    assert names == sorted(set(names))
    held_out = sum(each.is_held_out for each in found)
    assert 0.03 < held_out / len(found) < 0.1
    assert not any("site-packages" in name or "/test/" in name for name in names)


def test_training_goes_on_where_it_was_bit_for_bit(build, tmp_path):
    from train_micro import Trainer

    stream = torch.randint(40, (2000,), generator=torch.Generator().manual_seed(3))

    def trainer(steps):
        return Trainer(build("qwen1.5-moe-a2.7b"), stream, 0, argparse.Namespace(steps=steps, seed=1))

    straight = trainer(12)
    whole = [loss for _, loss, _ in steps_of(straight, 4)]
    first = trainer(12)
    steps_of(first, 2)
    first.save(tmp_path / "state.safetensors")
    second = trainer(12)
    second.load(tmp_path / "state.safetensors")
    assert [loss for _, loss, _ in steps_of(second, 2)] == whole[2:]


def steps_of(trainer, count):
    run = trainer.run()
    return [next(run) for _ in range(count)]
