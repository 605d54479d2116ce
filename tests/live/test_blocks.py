"""A block computed from its parts against the model's own block, bit for bit, for each family."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slicesim.live.families import moe_blocks  # noqa: E402
from slicesim.live.load import LoadOptions, load_live  # noqa: E402
from tests.live import tiny  # noqa: E402

FAMILIES = sorted(tiny.FAMILIES)


@pytest.fixture(scope="module", params=FAMILIES)
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("model")
    return load_live(str(tiny.save(request.param, folder)))


def stock(block, hidden):
    routing = block.route(hidden)
    return block.output(hidden, routing.ids, routing.weights)


@pytest.mark.parametrize("tokens", [1, 2, 17])
def test_stock_choice_gives_the_models_bits(live, tokens: int) -> None:
    ids = torch.randint(3, tiny.VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    with torch.no_grad():
        plain = live.model(ids).logits
        seen = []

        def compute(block, hidden):
            seen.append(block.layer)
            return stock(block, hidden)

        for block in live.blocks:
            with block.overridden(compute):
                assert torch.equal(live.model(ids).logits, plain)
            assert "forward" not in block.module.__dict__
        assert seen == [block.layer for block in live.blocks]
        assert torch.equal(live.model(ids).logits, plain)


def test_an_override_is_heeded_and_taken_back_after_an_error(live) -> None:
    ids = torch.tensor([[5, 9, 4]])
    block = live.blocks[-1]
    with torch.no_grad():
        plain = live.model(ids).logits
        with block.overridden(lambda _, hidden: torch.zeros_like(hidden)):
            assert not torch.equal(live.model(ids).logits, plain)
        with pytest.raises(ZeroDivisionError), block.overridden(lambda *_: 1 / 0):
            live.model(ids)
        assert torch.equal(live.model(ids).logits, plain)


def test_matrices_are_out_by_in_and_can_be_laid_out_again(live) -> None:
    hidden = torch.randn(5, live.config.hidden_size, generator=torch.Generator().manual_seed(1))
    for block in live.blocks:
        for expert in range(block.experts):
            matrices = block.matrices(expert)
            width = live.config.hidden_size
            inner = matrices.gate_proj.shape[0]
            assert [tuple(m.shape) for m in matrices] == [(inner, width), (inner, width), (width, inner)]
            own = block.expert_weights(expert)
            again = block.with_matrices(expert, matrices)
            assert all(a is b or torch.equal(a, b) for a, b in zip(own, again, strict=True))
            with torch.no_grad():
                assert torch.equal(block.expert_forward(own, hidden), block.expert_forward(again, hidden))


def test_an_expert_by_hand(live) -> None:
    """An expert is down(act(gate x) * (up x)); gpt-oss clamps at 7, adds biases and 1 to up: from the papers."""
    hidden = torch.randn(4, live.config.hidden_size, generator=torch.Generator().manual_seed(2))
    block = live.blocks[0]
    gate, up, down = block.matrices(1)
    weights = block.expert_weights(1)
    with torch.no_grad():
        g, u = hidden @ gate.T, hidden @ up.T
        if weights.gate_up_bias is None:
            expected = (g * torch.sigmoid(g) * u) @ down.T
        else:
            g = (g + weights.gate_up_bias[0::2]).clamp(max=7.0)
            u = (u + weights.gate_up_bias[1::2]).clamp(-7.0, 7.0)
            expected = ((u + 1) * g * torch.sigmoid(1.702 * g)) @ down.T + weights.down_bias
        torch.testing.assert_close(block.expert_forward(weights, hidden), expected, rtol=1e-4, atol=1e-4)


def test_routing_is_sorted_and_weights_follow_from_logits(live) -> None:
    hidden = torch.randn(9, live.config.hidden_size, generator=torch.Generator().manual_seed(3))
    for block in live.blocks:
        with torch.no_grad():
            routing = block.route(hidden)
            _, own_weights, own_ids = block.router(hidden)
        assert routing.logits.shape == (9, block.experts)
        assert routing.ids.shape == routing.scores.shape == routing.weights.shape == (9, block.top_k)
        assert (routing.scores.diff(dim=-1) <= 0).all()
        order = own_ids.argsort(dim=-1)
        sorted_order = routing.ids.argsort(dim=-1)
        assert torch.equal(own_ids.gather(-1, order), routing.ids.gather(-1, sorted_order))
        assert torch.equal(own_weights.gather(-1, order), routing.weights.gather(-1, sorted_order))
        torch.testing.assert_close(block.combining_weights(routing.logits, routing.ids), routing.weights)


def test_dropped_experts_add_nothing(live) -> None:
    hidden = torch.randn(3, live.config.hidden_size, generator=torch.Generator().manual_seed(4))
    block = live.blocks[0]
    with torch.no_grad():
        routing = block.route(hidden)
        ids = routing.ids.clone()
        ids[:, 1:] = -1
        best = block.mixture(hidden, ids, routing.weights)
        for token in range(3):
            output = block.expert_forward(block.expert_weights(int(ids[token, 0])), hidden[token : token + 1])
            torch.testing.assert_close(best[token], output[0] * routing.weights[token, 0])


def test_each_token_may_have_its_own_weights(live) -> None:
    """Half of an expert's tokens are computed with its matrices times 2: their gate, up and down outputs double."""
    hidden = torch.randn(8, live.config.hidden_size, generator=torch.Generator().manual_seed(5))
    block = live.blocks[0]

    def choose(block, expert, token):
        own = block.expert_weights(expert)
        zero = own._replace(
            down=torch.zeros_like(own.down), down_bias=None if own.down_bias is None else own.down_bias * 0
        )
        low = (token % 2 == 0).nonzero()[:, 0]
        high = (token % 2 == 1).nonzero()[:, 0]
        return [(low, zero), (high, own)]

    with torch.no_grad():
        routing = block.route(hidden)
        plain = block.mixture(hidden, routing.ids, routing.weights)
        mixed = block.mixture(hidden, routing.ids, routing.weights, choose)
    assert not mixed[0::2].any()
    torch.testing.assert_close(mixed[1::2], plain[1::2])


def test_a_model_without_experts_is_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from slicesim.errors import UserError

    tiny_llama = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(UserError, match="LlamaForCausalLM has no MoE block that slicesim knows"):
        moe_blocks(LlamaForCausalLM(tiny_llama))


def test_bfloat16_blocks_compute_from_parts_too(tmp_path: Path) -> None:
    for family in FAMILIES:
        live = load_live(str(tiny.save(family, tmp_path / family)), LoadOptions(dtype="bfloat16"))
        ids = torch.tensor([[5, 9, 4, 30, 31]])
        with torch.no_grad():
            plain = live.model(ids).logits
            with live.blocks[-1].overridden(stock):
                assert torch.equal(live.model(ids).logits, plain)
