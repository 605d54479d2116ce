"""Prefetch: what is read before it is asked for.

When a layer's router is done, a strategy guesses the experts of the coming layers of the same token; slices of them
that are missing are read ahead, best guess first, within a budget of bytes. They enter the cache at once (the decision
plane has no clock); whether they arrive in time is the schedule's business.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from slicesim.compiled import register_jitable
from slicesim.policies.base import Strategy

#: One guess: its points, and the slice within its layer (2 * expert, + 1 for the LSB).
GUESS = np.dtype([("points", np.float64), ("slice", np.int64)])

#: Slices so far in this replay: read ahead; of those, looked up before they left; missed.
TALLY = np.dtype([("read", np.int64), ("used", np.int64), ("missed", np.int64)])


class Prefetch(Strategy):
    """Base of all prefetch strategies. Those that read ahead derive from ``ReadAhead``.

    needs_future: looks at what the token will want in layers that have not run yet. sees_logits: looks at the scores of
    experts beyond the top-k, where the trace holds them.
    """

    kind: ClassVar[str] = "prefetch"
    needs_future: ClassVar[bool] = False
    sees_logits: ClassVar[bool] = False

    @property
    def layers_ahead(self) -> int:
        """Coming layers that are looked at; 0 where nothing is ever read ahead."""
        return 0

    @property
    def budget_bytes(self) -> int:
        """Bytes read ahead per batch, at most."""
        return 0


class NoPrefetch(Prefetch):
    """Nothing is read ahead of its request (SliceMoE's choice, slicemoe.md 1.2).

    Source: SliceMoE, arXiv 2512.12990: routing in modern MoE is hard to predict.
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py).
    """

    name: ClassVar[str] = "none"


class ReadAhead(Prefetch):
    """Base of strategies that guess what the next ``depth`` layers will want.

    ``guess``, ``learn`` and ``reach`` are compiled into the batch loop. What a strategy learns it keeps in its
    ``memory``, which belongs to one replay and goes on from request to request.
    """

    depth: int = Field(1, ge=1, description="layers ahead, at most")
    budget_mb: float = Field(6.0, gt=0, allow_inf_nan=False, description="decimal megabytes per batch, at most")

    @property
    def layers_ahead(self) -> int:
        """Depth."""
        return self.depth

    @property
    def budget_bytes(self) -> int:
        """Budget in bytes."""
        return round(self.budget_mb * 1e6)

    def memory(self, layers: int, experts: int, top_k: int, seed: int) -> Any:
        """Return what is learnt in: an array, or a NamedTuple of arrays. seed: of the scenario."""
        return np.zeros(0)

    def begin_request(self, memory: Any) -> None:
        """Forget, or file, what counts for one request alone. Not compiled."""

    def learn(self, memory: Any, layer: int, slots: Any, before: Any, tally: Any) -> None:
        """Take in one batch, when its experts are known and before anything is guessed.

        slots: records [top_k] of this layer (``expert``, ``gate``, ``critical``), by falling score; before: see
        ``guess``, but its row of this layer is still that of the last token; tally: a TALLY record.
        """

    def reach(self, memory: Any) -> int:
        """Return how many layers to look ahead now, ``depth`` at most."""
        return self.depth

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Enter the slices of ``layer`` that the token may want; return how many. The most points are read first.

        ahead: how many layers the layer in hand lies before ``layer``; guesses: GUESS records [2 * experts], to be
        filled from the front (no points: not read); tokens: the trace's ``ids``, ``scores`` and ``critical`` [tokens,
        layers, top_k], of which only those of layers up to the one in hand are known on a real device; before: records
        [layers, top_k] of what the request used last in each layer of decode (``expert``, -1 for none; ``gate``;
        ``critical``): this token's up to the layer in hand, the last token's in those to come.
        """
        raise NotImplementedError(f"{type(self).__name__} must define guess")


class PreviousToken(ReadAhead):
    """What the request's previous token used in that layer, by its gate score there.

    Source: standard baseline (neighbouring tokens share experts).
    Checked by: tests/decide/test_prefetch.py (by hand), tests/parity/test_prefetch_decisions.py.
    """

    name: ClassVar[str] = "previous-token"

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Points are gate scores."""
        count = 0
        for slot in before[layer]:
            if slot.expert >= 0:
                for kind in range(2 if slot.critical else 1):
                    guesses[count].points, guesses[count].slice = slot.gate, 2 * slot.expert + kind
                    count += 1
        return count


class Oracle(ReadAhead):
    """What the token will use in that layer (knows the future): a bound on what any predictor can do.

    Points are gate scores. It knows the recorded requests: rerouting and denial are not foreseen.
    Source: the usual upper bound.
    Checked by: tests/decide/test_prefetch.py (by hand), tests/parity/test_prefetch_decisions.py.
    """

    name: ClassVar[str] = "oracle"
    needs_future: ClassVar[bool] = True

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Points are gate scores."""
        count = 0
        for slot in range(tokens.ids.shape[2]):
            for kind in range(2 if tokens.critical[token, layer, slot] else 1):
                guesses[count].points = tokens.scores[token, layer, slot]
                guesses[count].slice = 2 * tokens.ids[token, layer, slot] + kind
                count += 1
        return count


class NextLogits(ReadAhead):
    """The coming layers' gates applied ahead of time, right at a set accuracy: a predictor that is given, not built.

    Each expert that the token will want is guessed with probability ``accuracy``; else a wrong one takes its place,
    with its gate score and its precision: the best-scored expert beyond the top-k that is not guessed yet where the
    trace holds logits, else one drawn uniformly from the others. Which are wrong is fixed by seed, token, layer and
    slot. Source: Pre-gated MoE (arXiv 2308.12066), AdapMoE (arXiv 2408.10284), HOBBIT (arXiv 2411.01433) apply a
    coming gate to present activations. Simplified: accuracy is a number, the same for every layer and distance.
    Checked by: tests/decide/test_predictions.py (accuracy 1 is the oracle, 0 has no right guess, shares between).
    """

    name: ClassVar[str] = "next-logits"
    needs_future: ClassVar[bool] = True
    sees_logits: ClassVar[bool] = True
    accuracy: float = Field(0.9, ge=0, le=1, description="share of the coming experts that are guessed, of 1")

    def memory(self, layers: int, experts: int, top_k: int, seed: int) -> Any:
        """Seed, and decode tokens so far: int64 [2]."""
        return np.array([seed, 0])

    def learn(self, memory: Any, layer: int, slots: Any, before: Any, tally: Any) -> None:
        """Count tokens."""
        if layer == 0:
            memory[1] += 1

    def guess(
        self, memory: Any, tokens: Any, token: int, layer: int, ahead: int, before: Any, guesses: Any
    ) -> int:  # fmt: skip
        """Points are the gate scores of the experts that are wanted."""
        count = 0
        for slot in range(tokens.ids.shape[2]):
            expert = int(tokens.ids[token, layer, slot])
            if _drawn(memory, layer, 2 * slot) >= self.accuracy * PRIME:
                expert = _wrong_expert(tokens, token, layer, guesses, count, _drawn(memory, layer, 2 * slot + 1))
            if expert >= 0:
                for kind in range(2 if tokens.critical[token, layer, slot] else 1):
                    guesses[count].points = tokens.scores[token, layer, slot]
                    guesses[count].slice = 2 * expert + kind
                    count += 1
        return count


#: Draws are below this: 2^31 - 1.
PRIME = 2147483647


@register_jitable  # type: ignore[untyped-decorator]
def _drawn(memory: Any, layer: int, number: int) -> int:
    """Return a number below PRIME that seed, token, layer and number decide: squares modulo the prime mix them."""
    mixed = (memory[0] % PRIME * 40503 + memory[1] % PRIME * 16807 + layer * 69621 + number * 65539) % PRIME
    for _ in range(4):
        mixed = (mixed * mixed % PRIME + number + 1) * 48271 % PRIME
    return mixed  # type: ignore[no-any-return]


@register_jitable  # type: ignore[untyped-decorator]
def _wrong_expert(tokens: Any, token: int, layer: int, guesses: Any, count: int, drawn: int) -> int:
    """Return an expert that the token will not want and that is not guessed yet; -1 where there is none."""
    experts, has_logits = len(guesses) // 2, len(tokens.logits) > 0
    free, best = 0, -1
    for expert in range(experts):
        if _is_free(tokens.ids[token, layer], guesses, count, expert):
            free += 1
            if has_logits and (best < 0 or tokens.logits[token, layer, expert] > tokens.logits[token, layer, best]):
                best = expert
    if has_logits or free == 0:
        return best
    left = drawn % free
    for expert in range(experts):
        if _is_free(tokens.ids[token, layer], guesses, count, expert):
            if left == 0:
                return expert
            left -= 1
    return -1


@register_jitable  # type: ignore[untyped-decorator]
def _is_free(ids: Any, guesses: Any, count: int, expert: int) -> bool:
    for wanted in ids:
        if wanted == expert:
            return False
    for place in range(count):
        if guesses[place].slice // 2 == expert:
            return False
    return True
