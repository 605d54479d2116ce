"""Prefetch strategies by hand, batch by batch, in plain Python; and what a set accuracy means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from slicesim.decide import DecodeDemand, decide
from slicesim.decide.decode import SLOT, Tokens
from slicesim.policies import ActivationMatching, Adaptive, CoActivation, Path, Popularity, ReadAhead
from slicesim.policies.prefetch import GUESS, TALLY, NextLogits
from tests.kit import EXPERT_BYTES, random_trace, run, simulation, tiny_model

EXPERTS, LAYERS = 4, 3


class Driver:
    """Takes a strategy through tokens as the batch loop does: learn, then remember, then guess."""

    def __init__(self, strategy: ReadAhead) -> None:
        self.strategy = strategy
        self.memory = strategy.memory(LAYERS, EXPERTS, 2, 0)
        self.before = np.zeros((LAYERS, 2), dtype=SLOT).view(np.recarray)
        self.before["expert"] = -1
        self.tally = np.zeros(1, dtype=TALLY).view(np.recarray)[0]

    def batch(self, layer: int, *experts: int, critical: tuple[int, ...] = ()) -> None:
        slots = np.zeros(len(experts), dtype=SLOT).view(np.recarray)
        slots.expert, slots.critical = experts, [expert in critical for expert in experts]
        self.strategy.learn(self.memory, layer, slots, self.before, self.tally)
        self.before[layer] = slots

    def points(self, layer: int, ahead: int = 1) -> dict[int, float]:
        """Points by slice (2 x expert, + 1 for the LSB), those without left out."""
        guesses = np.zeros(2 * EXPERTS, dtype=GUESS).view(np.recarray)
        count = self.strategy.guess(self.memory, None, 0, layer, ahead, self.before, guesses)
        return {int(guess.slice): float(guess.points) for guess in guesses[:count] if guess.points > 0}


def test_popularity_plain_and_decayed():
    """Layer 1 sees {0, 1}, {0, 2}, {0, 2}; expert 0 is critical once.

    Plain: expert 0 three times (LSB once), 1 once, 2 twice. Decay 0.5: expert 0 (1 x 0.5 + 1) x 0.5 + 1 = 1.75, its LSB
    of the first token 0.25, expert 1 0.25, expert 2 1 x 0.5 + 1 = 1.5.
    """
    for decay, expected in (
        (1.0, {0: 3.0, 1: 1.0, 2: 1.0, 4: 2.0}),
        (0.5, {0: 1.75, 1: 0.25, 2: 0.25, 4: 1.5}),
    ):
        driver = Driver(Popularity(decay=decay))
        driver.batch(1, 0, 1, critical=(0,))
        driver.batch(1, 0, 2)
        driver.batch(1, 0, 2)
        assert driver.points(1) == expected
        assert driver.points(2) == {}


def test_co_activation():
    """Tokens {0, 1} -> {2, 3} and {0, 2} -> {1, 3} (3 critical), from layer 0 to 1.

    After 0: 2, 3, 1, 3 of four MSB counts; after 1: 2, 3 of two; after 2: 1, 3 of two. Running {0, 1}: expert 1 1/4,
    expert 2 1/4 + 1/2, expert 3 2/4 + 1/2, its LSB 1/4 + 0. Two layers ahead is counted apart, and was seen once. One
    layer after {1, 3} only 3 has been followed, by 0 and 1.
    """
    driver = Driver(CoActivation(depth=2))
    driver.batch(0, 0, 1)
    driver.batch(1, 2, 3)
    driver.batch(2, 0, 1)
    driver.batch(0, 0, 2)
    driver.batch(1, 1, 3, critical=(3,))
    driver.batch(0, 0, 1)
    assert driver.points(1) == {2: 0.25, 4: 0.75, 6: 1.0, 7: 0.25}
    assert driver.points(2, ahead=2) == {0: 1.0, 2: 1.0}
    assert driver.points(2, ahead=1) == {0: 0.5, 2: 0.5}


def test_path():
    """{0, 1} -> {2, 3} -> {1, 2}: each of the four pairs (0, 2), (0, 3), (1, 2), (1, 3) is followed by 1 and 2.

    Later {0, 2} -> {2, 0}: of its pairs (0, 2), (0, 0), (2, 2), (2, 0) only the first one is known: 1/2 each.
    With a single context all pairs share a row: four times 1/2.
    """
    for contexts, share in ((4096, 0.5), (1, 2.0)):
        driver = Driver(Path(contexts=contexts))
        driver.batch(0, 0, 1)
        assert driver.points(1) == {}, "the first layer has no path"
        driver.batch(1, 2, 3)
        driver.batch(2, 1, 2)
        driver.batch(0, 0, 2)
        driver.batch(1, 2, 0)
        assert driver.points(2) == {2: share, 4: share}


def test_activation_matching():
    """Request A uses 0, 1 in layer 0 and 2 twice and 3 twice in layer 1; request B 2, 3 and then 0, 1 (1 critical).

    A third request that begins with 0, 2 in layer 0: cosine with A and with B is 1 / 2 each, the first one wins. After
    0, 2 and 3, 2: row (1, 0, 2, 1), cosine with A 1 / sqrt(12), with B 3 / sqrt(12).
    """
    driver = Driver(ActivationMatching(kept=2))
    for tokens in ([((0, 1), (2, 3), ()), ((0, 1), (2, 3), ())], [((2, 3), (0, 1), (1,))]):
        driver.strategy.begin_request(driver.memory)
        for first, second, critical in tokens:
            driver.batch(0, *first)
            driver.batch(1, *second, critical=critical)
    driver.strategy.begin_request(driver.memory)
    assert driver.points(1) == {}, "nothing seen yet of this request"
    driver.batch(0, 0, 2)
    assert driver.points(1) == {4: 2.0, 6: 2.0}
    driver.batch(0, 3, 2)
    assert driver.points(1) == {0: 1.0, 2: 1.0, 3: 1.0}
    driver.strategy.begin_request(driver.memory)  # two are kept: the third takes the place of its best match, B
    driver.batch(0, 2, 3)
    assert driver.points(1) == {}, "the best match never got to layer 1"
    assert driver.memory.tally[0] == 2


def test_the_horizon_follows_the_counts():
    """Windows of two batches, low 0.4, high 0.6, three layers at most.

    8 used of 10 with misses: 2 layers. 3 of 10: 1 layer. Nothing read, 1 missed: 2. 5 of 10: stays. 6 of 10, no
    miss: stays. 10 of 10 and a miss: 3, and again: 3.
    """
    driver = Driver(Adaptive(depth=3, window=2, low=0.4, high=0.6))
    reached = []
    for read, used, missed in ((10, 8, 1), (10, 3, 1), (0, 0, 1), (10, 5, 1), (10, 6, 0), (10, 10, 1), (10, 10, 1)):
        driver.batch(0, 0, 1)
        driver.tally.read += read
        driver.tally.used += used
        driver.tally.missed += missed
        driver.batch(1, 0, 1)
        reached.append(int(driver.strategy.reach(driver.memory)))
    assert reached == [2, 1, 2, 2, 2, 3, 3]


# ---------------------------------------------------------------------- a set accuracy

KEYS: dict[str, Any] = {"schedule__overlap": "prefetch", "cache__capacity_gb": 12 * EXPERT_BYTES / 1e9}


def next_logits(accuracy: float, **more: Any) -> dict[str, Any]:
    return {"policy__prefetch": {"name": "next-logits", "accuracy": accuracy, "budget_mb": 1.0, **more}}


def read_and_right(trace: Any, **keys: Any) -> tuple[int, int]:
    """Slices read ahead, and those among them whose expert the token wants in that layer."""
    simulated = simulation(trace, "tiny-deep", "dbsc", **KEYS, **keys)
    read = right = 0
    for demand in decide(simulated.request()):
        if isinstance(demand, DecodeDemand):
            token, _, place = np.nonzero(demand.prefetched >= 0)
            entry = demand.prefetched[demand.prefetched >= 0]
            layer, expert = np.divmod(entry // 2, simulated.model.experts)
            read += len(place)
            right += int((demand.expert[token, layer] == expert[:, None]).any(axis=1).sum())
    return read, right


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
def test_full_accuracy_is_the_oracle(logits, depth):
    trace = random_trace(7, 40, requests=2, prompt=4, logits=logits, model=tiny_model("tiny-deep"))
    oracle = {"policy__prefetch": {"name": "oracle", "budget_mb": 1.0, "depth": depth}}
    parts = [
        simulation(trace, "tiny-deep", "dbsc", **KEYS, **keys).run() for keys in (oracle, next_logits(1.0, depth=depth))
    ]
    assert parts[0].tokens.equals(parts[1].tokens)
    assert parts[0].decode["prefetched"]["slices"] > 0


@pytest.mark.parametrize("logits", [False, True])
def test_no_accuracy_never_guesses_right(logits):
    """Useless reads cost flash bytes, energy and, if anything, time."""
    trace = random_trace(8, 60, logits=logits, model=tiny_model("tiny-deep"))
    read, right = read_and_right(trace, **next_logits(0.0))
    assert read > 50
    assert right == 0
    plain = run(trace, "tiny-deep", "dbsc", **KEYS).decode
    wrong = run(trace, "tiny-deep", "dbsc", **KEYS, **next_logits(0.0)).decode
    assert wrong["bytes"]["flash_read"] > plain["bytes"]["flash_read"]
    assert wrong["energy_pj"]["flash"] > plain["energy_pj"]["flash"]
    assert wrong["energy_pj"]["total"] > plain["energy_pj"]["total"]
    assert wrong["latency_ps"]["total"] > plain["latency_ps"]["total"]


def test_with_logits_a_wrong_guess_is_the_next_best_expert():
    """Top-2 of 8: the two best beyond are ranks 3 and 4, whatever the seed."""
    trace = random_trace(9, 30, logits=True, model=tiny_model("tiny-deep"))
    simulated = simulation(trace, "tiny-deep", "dbsc", **KEYS, **next_logits(0.0))
    (demand,) = decide(simulated.request())
    rank = np.argsort(np.argsort(-trace.block.logits, axis=2, kind="stable"), axis=2)
    token, _, _ = np.nonzero(demand.prefetched >= 0)
    layer, expert = np.divmod(demand.prefetched[demand.prefetched >= 0] // 2, 8)
    assert set(rank[token, layer, expert].tolist()) == {2, 3}


@pytest.mark.parametrize("accuracy", [0.25, 0.9])
def test_the_share_of_right_guesses(accuracy):
    """Whatever is resident: 5 layers, 2 slots, 600 tokens."""
    strategy, block = NextLogits(accuracy=accuracy), random_trace(2, 600, model=tiny_model("tiny-deep")).block
    nothing = np.zeros((0, 1, 1))
    critical = np.zeros(block.ids.shape, dtype=np.bool_)
    tokens = Tokens(
        block.ids, block.scores, critical, nothing.astype(np.float32), nothing, nothing.astype(np.bool_), None
    )
    memory = strategy.memory(5, 8, 2, 3)
    right = total = 0
    for token in range(600):
        strategy.learn(memory, 0, None, None, None)
        for layer in range(5):
            guesses = np.zeros(16, dtype=GUESS).view(np.recarray)
            count = strategy.guess(memory, tokens, token, layer, 1, None, guesses)
            guessed = guesses[:count].slice // 2
            assert len(set(guessed.tolist())) == count == 2
            right += int(np.isin(guessed, block.ids[token, layer]).sum())
            total += count
    assert abs(right / total - accuracy) < 0.02


def test_draws_follow_the_seed():
    trace = random_trace(8, 60, model=tiny_model("tiny-deep"))
    found = [run(trace, "tiny-deep", "dbsc", seed=seed, **KEYS, **next_logits(0.5)).tokens for seed in (0, 0, 1)]
    assert found[0].equals(found[1])
    assert not found[0].equals(found[2])
