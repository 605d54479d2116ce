"""The closed loop: what it equals, what it is near, and that its trace replays to the same decisions."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slicesim.decide.demand import DROPPED, LSB_FETCHED, LSB_HIT, REROUTED, SUBSTITUTED  # noqa: E402
from slicesim.decide.step import Stepper  # noqa: E402
from slicesim.errors import UserError  # noqa: E402
from slicesim.quality import loop as loop_module  # noqa: E402
from slicesim.quality.bank import AmatBank, OriginalBank  # noqa: E402
from slicesim.quality.loop import ClosedLoop, Listener, decoded, predict, predict_at_once  # noqa: E402
from slicesim.quality.study import Subject, choose_bank, prepare_loops, run_row, run_study  # noqa: E402
from slicesim.scenario.schema import Amat  # noqa: E402
from slicesim.trace.split import segments  # noqa: E402
from tests.kit import MOBILE  # noqa: E402
from tests.live import tiny  # noqa: E402
from tests.quality.conftest import EXPERT_BYTES, geometry, make_subject, make_texts  # noqa: E402

ALL = 100  # more experts than any tiny model has


def loops(subject: Subject, folder: Path, *policies: str, experts: float = 8, **keys: Any) -> list:
    assignments = {"model": geometry(subject, folder), "cache.capacity_gb": experts * EXPERT_BYTES / 1e9}
    assignments |= {"policy.precision.on_renormalised": True, "trace.layer_subset": True}
    assignments |= {key.replace("__", "."): value for key, value in keys.items()}
    return prepare_loops(subject, MOBILE, policies, assignments)


def no_bar(label: str, total: int) -> Any:
    return nullcontext(lambda done: None)


def study(subject: Subject, folder: Path, texts: list, *policies: str, weights: str = "amat", **keys: Any) -> list:
    at_once = keys.pop("at_once", False)
    simulations = loops(subject, folder, *policies, **keys)
    bank = choose_bank(subject, simulations[0].scenario.settings.amat, weights=weights)
    return list(run_study(subject, texts, simulations, bank, at_once=at_once, watch=no_bar).rows)


@pytest.mark.parametrize("family", sorted(set(tiny.FAMILIES) - {"deepseek-v2-groups"}))
def test_strength_0_and_everything_resident_is_the_plain_model_bit_for_bit(family, tmp_path):
    """Original weights in the loop; Cache-Prior with lambda 0; a cache for all experts. Every -ln p, to the bit."""
    subject = make_subject(family, tmp_path)
    (none,) = loops(subject, tmp_path, "slicemoe", experts=ALL, policy__constraint={"name": "none"})
    assert none.policy.routing.name == "cache-prior"
    assert none.policy.routing.strength == 0
    texts = make_texts((40, 12), (20, 1))
    plain = predict(subject.live.model, texts, Listener())
    row = run_row(subject, texts, none, OriginalBank())
    assert row.predictions.nll.tobytes() == plain.nll.tobytes()
    assert (row.predictions.top == plain.top).all()
    assert len(plain.nll) == 40 - 12 - 1 + 20 - 1 - 1


def test_cache_aware_routing_is_no_match_for_groups_of_experts(tmp_path):
    subject = make_subject("deepseek-v2-groups", tmp_path)
    simulations = loops(subject, tmp_path, "slicemoe", "lru-high", experts=ALL)
    texts = make_texts((20, 5))
    with pytest.raises(UserError, match="routing cache-prior: this model's router does not take the experts with the"):
        run_row(subject, texts, simulations[0], OriginalBank())
    row = run_row(subject, texts, simulations[1], OriginalBank())
    assert row.predictions.nll.tobytes() == predict(subject.live.model, texts, Listener()).nll.tobytes()


def test_misses_that_are_fetched_change_nothing(deepseek, tmp_path):
    """A small cache with stock routing: slower, but with the original weights the very same model."""
    texts = make_texts((40, 12))
    plain, tight = study(deepseek, tmp_path, texts, "lru-high", experts=3, weights="original")
    assert tight.summary["decode"]["miss_rate"]["msb"] > 0.3
    assert tight.predictions.nll.tobytes() == plain.predictions.nll.tobytes()


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_high_amat_is_near_and_low_amat_is_farther(family, tmp_path):
    subject = make_subject(family, tmp_path)
    plain, high, low = study(subject, tmp_path, make_texts((60, 12)), "lru-high", "lru-low")
    errors = [np.abs(row.predictions.nll - plain.predictions.nll).mean() for row in (high, low)]
    assert 0 < errors[0] < 0.1
    assert errors[1] > 4 * errors[0]


@pytest.mark.parametrize(
    ("policy", "keys"),
    [
        ("dbsc", {}),
        ("slicemoe", {"policy__constraint__start_step": 0}),
        ("slicemoe", {"policy__constraint": {"name": "none"}, "policy__routing__strength": 0.5}),
        ("slicemoe", {"policy__constraint": {"name": "budget", "target": 0.1, "start_step": 2}}),
        ("lru-high", {"cache__reset": "request", "policy__constraint": {"name": "budget", "target": 0.02}}),
        ("dbsc", {"policy__prefill_precision": "threshold", "policy__warmup": {"name": "pcw-topup"}}),
        ("random", {"cache__scope": "layer", "experts": 24}),
        ("dbsc", {"schedule__overlap": "prefetch", "policy__prefetch": {"name": "previous-token"}}),
        ("skip", {"policy__routing__beta": 0.6}),
        ("buddy", {"policy__routing__flatness": 0.0, "experts": 4}),
        ("hobbit-precision", {"policy__prefill_precision": "threshold"}),
    ],
)
@pytest.mark.parametrize("family", ["deepseek-v2", "mixtral"])
def test_the_recorded_trace_replays_to_the_same_decisions(family, policy, keys, tmp_path):
    """``run_row`` compares every decision and raises where one differs; here the counts of its summary too."""
    subject = make_subject(family, tmp_path)
    (prepared,) = loops(subject, tmp_path, policy, **keys)
    texts = make_texts((50, 15), (30, 10))
    asked = ClosedLoop(subject.live.blocks, Stepper(prepared.request()), AmatBank(Amat()))
    with asked.in_charge():
        predict(subject.live.model, texts, asked)
    row = run_row(subject, texts, prepared, AmatBank(Amat()))
    assert row.summary["decode"]["tokens"] == sum(text.scored for text in texts)
    assert row.summary["prefill"]["tokens"] == 25
    outcome = decoded(asked.demands)["outcome"]
    denied = row.summary["decode"]["denied"]
    assert ((outcome & DROPPED) != 0).sum() == denied["dropped"]
    assert ((outcome & SUBSTITUTED) != 0).sum() == denied["substituted"]
    parts = list(segments(row.trace, "recorded"))
    assert [len(part.block) for part in parts] == [15, 34, 10, 19]


def test_the_trace_holds_what_the_routers_of_the_loop_said(deepseek, tmp_path):
    """Damage in layer 1 moves the logits of layer 2; the first MoE layer's prompt is untouched by it."""
    texts = make_texts((30, 10))
    _, high, low = study(deepseek, tmp_path, texts, "lru-high", "lru-low")
    np.testing.assert_array_equal(high.trace.block.logits[:10, 0], low.trace.block.logits[:10, 0])
    assert (high.trace.block.logits[:10, 1] != low.trace.block.logits[:10, 1]).any()
    order = np.argsort(-high.trace.block.logits, axis=2, kind="stable")[:, :, :3]
    np.testing.assert_array_equal(np.sort(order, axis=2), np.sort(high.trace.block.ids, axis=2))


class Spy:
    """A bank that remembers what was asked of it, and hands out the original weights."""

    has_precisions = True

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, bool]] = []

    def weights(self, block: Any, expert: int, high: bool) -> Any:
        self.asked.append((block.layer, expert, high))
        return block.expert_weights(expert)


class WithoutPrompt(ClosedLoop):
    """Lets its bank forget what the prompt asked for."""

    def end_prompt(self) -> None:
        super().end_prompt()
        self.bank.asked.clear()


def test_the_blocks_do_what_was_decided(deepseek, tmp_path):
    """Each decode batch runs the table's experts at the table's precision, the dropped ones not at all."""
    keys = {"policy__constraint": {"name": "budget", "target": 0.05, "start_step": 0}, "experts": 4}
    (prepared,) = loops(deepseek, tmp_path, "slicemoe", policy__routing__strength=0.4, **keys)
    spy = Spy()
    asked = WithoutPrompt(deepseek.live.blocks, Stepper(prepared.request()), spy)
    with asked.in_charge():
        predict(deepseek.live.model, make_texts((50, 10)), asked)
    table = decoded(asked.demands)
    seen = dict.fromkeys((DROPPED, SUBSTITUTED, REROUTED), 0)
    asked_for = iter(spy.asked)
    for experts, outcomes in zip(table["expert"], table["outcome"], strict=True):
        for layer in range(2):
            runs = (outcomes[layer] & DROPPED) == 0
            high = (outcomes[layer] & (LSB_HIT | LSB_FETCHED)) != 0
            for expert, is_high in sorted(zip(experts[layer][runs].tolist(), high[runs].tolist(), strict=True)):
                assert next(asked_for) == (layer + 1, expert, is_high)
            for bit in seen:
                seen[bit] += int(((outcomes[layer] & bit) != 0).sum())
    assert next(asked_for, None) is None
    assert seen[SUBSTITUTED] > 0
    assert seen[REROUTED] > 0


def test_a_buddy_has_the_weight_of_the_expert_it_stands_in_for(deepseek, tmp_path):
    """Only the outputs are exchanged: with one expert for all of a layer nothing changes but rounding."""
    keys = {"experts": 4, "policy__routing": {"name": "buddy", "flatness": 0.0, "most": 2}}
    (prepared,) = loops(deepseek, tmp_path, "lru-high", **keys)
    texts = make_texts((60, 10))

    class Alike(OriginalBank):
        def weights(self, block: Any, expert: int, high: bool) -> Any:
            return block.expert_weights(0)

    plain = ClosedLoop(deepseek.live.blocks, Stepper(loops(deepseek, tmp_path, "lru-high")[0].request()), Alike())
    asked = ClosedLoop(deepseek.live.blocks, Stepper(prepared.request()), Alike())
    predictions = []
    for loop in (plain, asked):
        with loop.in_charge():
            predictions.append(predict(deepseek.live.model, texts, loop))
    assert ((decoded(asked.demands)["outcome"] & SUBSTITUTED) != 0).sum() > 0
    np.testing.assert_allclose(predictions[1].nll, predictions[0].nll, rtol=1e-3)
    assert (decoded(asked.demands)["expert"] != decoded(plain.demands)["expert"]).any()


@pytest.mark.parametrize("family", ["deepseek-v2", "mixtral"])
def test_a_prompt_leaves_out_what_precision_skips(family, tmp_path):
    """T2 = 0: the first-ranked expert alone. Each prompt token runs it, weighted as if it had been the whole choice."""
    subject = make_subject(family, tmp_path)
    rule = {"name": "hobbit", "t1": 0.0, "t2": 0.0}
    keys = {"experts": ALL, "policy__precision": rule, "policy__prefill_precision": "threshold"}
    (prepared,) = loops(subject, tmp_path, "hobbit-precision", **keys)
    row = run_row(subject, make_texts((30, 12)), prepared, OriginalBank())
    prompt = row.summary["prefill"]
    assert prompt["quality"]["low_mass"] == 0
    assert prompt["quality"]["dropped_mass"] > 0
    block = subject.live.blocks[0]
    hidden = torch.randn(5, block.router.weight.shape[-1], generator=torch.Generator().manual_seed(1))
    asked = ClosedLoop(subject.live.blocks, Stepper(prepared.request()), OriginalBank())
    asked.begin_request(0)
    with torch.inference_mode():
        routing = block.route(hidden)
        first = routing.ids[:, :1]
        expected = block.output(hidden, first, block.combining_weights(routing.logits, first))
        torch.testing.assert_close(asked._compute(block, hidden), expected)


@pytest.mark.parametrize("family", ["deepseek-v2", "mixtral"])
def test_what_runs_is_weighted_as_the_model_would(family, tmp_path):
    """Experts 0 and 2 in place of the choice: DeepSeek's scores x 1.5 as they are, Mixtral's scaled to a sum of 1."""
    subject = make_subject(family, tmp_path)
    block = subject.live.blocks[0]
    hidden = torch.randn((1, 32), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        routing = block.route(hidden)
        ids = torch.tensor([[0, 2]])
        weights = block.combining_weights(routing.logits, ids)
    scores = routing.logits.softmax(dim=-1)[0, [0, 2]]
    expected = scores * 1.5 if family == "deepseek-v2" else scores / scores.sum()
    torch.testing.assert_close(weights[0], expected)


def test_a_whole_batch_hides_the_damage(deepseek, tmp_path):
    """The same policy on the same tokens: as one batch nothing is rerouted.

    Original weights, to see routing's damage alone: as one batch there is none.
    """
    texts = make_texts((100, 10))
    keys = {"policy__constraint": {"name": "none"}, "policy__routing": {"name": "cache-prior", "strength": 1.0}}
    keys |= {"policy__routing__top_j": 0, "experts": 7}
    plain, row = study(deepseek, tmp_path, texts, "slicemoe", at_once=True, weights="original", **keys)
    token_by_token = np.abs(row.predictions.nll - plain.predictions.nll).mean()
    at_once = np.abs(row.at_once.nll - plain.at_once.nll).mean()
    assert token_by_token > 0.1
    assert at_once < 1e-6
    np.testing.assert_allclose(plain.at_once.nll, plain.predictions.nll, atol=1e-4)


def test_plain_perplexity_by_hand(deepseek):
    """-ln softmax of the plain forward pass at the tokens after the prompt's last but one."""
    (text,) = texts = make_texts((20, 5))
    with torch.inference_mode():
        logits = deepseek.live.model(torch.from_numpy(text.ids)[None]).logits[0].double()
    expected = [-logits[place].log_softmax(-1)[text.ids[place + 1]].item() for place in range(5, 19)]
    np.testing.assert_allclose(predict(deepseek.live.model, texts, Listener()).nll, expected, atol=1e-4)
    np.testing.assert_allclose(predict_at_once(deepseek.live.model, texts, Listener()).nll, expected, atol=1e-4)


PEEKING = """
from slicesim.policies.prefetch import ReadAhead

class Peeks(ReadAhead):
    def guess(self, memory, tokens, token, layer, ahead, before, guesses):
        for slot in range(tokens.ids.shape[2]):
            guesses[slot].points = tokens.scores[token, layer, slot]
            guesses[slot].slice = 2 * tokens.ids[token, layer, slot]
        return tokens.ids.shape[2]
"""


def test_a_strategy_that_looks_ahead_is_found_out(deepseek, tmp_path):
    (tmp_path / "mine.py").write_text(PEEKING)
    prefetch = {"name": f"{tmp_path}/mine.py:Peeks"}
    (prepared,) = loops(
        deepseek, tmp_path, "lru-low", experts=3, schedule__overlap="prefetch", policy__prefetch=prefetch
    )
    with pytest.raises(UserError, match="decides otherwise than the loop did"):
        run_row(deepseek, make_texts((30, 10)), prepared, OriginalBank())


@pytest.mark.parametrize(
    ("policies", "keys", "message"),
    [
        (("belady",), {}, "policy belady: eviction belady knows the future"),
        (("dbsc", "dbsc"), {}, "a policy stands there twice"),
        (("dbsc",), {"trace__split": 0.5}, "--set trace.split: the loop records its own trace"),
        (
            ("dbsc",),
            {"model": "mixtral-8x7b"},
            r"has 2 MoE layers \(from layer 1\) of 8 experts, top-3, Mixtral-8x7B has 32 \(from 0\)",
        ),
        (("dbsc",), {"cache__capacity_gb": 1e-9}, "capacity_gb"),
    ],
)
def test_mistakes_are_found_before_the_first_token(deepseek, tmp_path, monkeypatch, policies, keys, message):
    monkeypatch.setattr(loop_module, "predict", None)
    with pytest.raises(UserError, match=message) as error:
        loops(deepseek, tmp_path, *policies, **keys)
    assert "\n" not in str(error.value)
