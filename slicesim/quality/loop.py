"""The closed loop: a live model whose MoE blocks do, token by token, what a policy decides (semantics, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slicesim.decide import DecodeDemand, Demand
from slicesim.decide.step import Batch, Stepper
from slicesim.errors import UserError
from slicesim.live.blocks import DROPPED, MoeBlock, Routing
from slicesim.live.greedy import input_device
from slicesim.policies.slices import BoolArray
from slicesim.quality.bank import ExpertBank, chooser
from slicesim.trace.table import DECODE, PREFILL, MemoryTrace, TraceBlock, TraceHeader

#: Called after every token with the number of tokens done.
Progress = Callable[[int], None]


class Text(NamedTuple):
    """Token ids of one text (int64 [tokens], at least prompt_tokens + 2); the first prompt_tokens are its prompt."""

    name: str
    ids: NDArray[np.int64]
    prompt_tokens: int

    @property
    def scored(self) -> int:
        """Predictions that count: those made by decode tokens. The prompt's own last one is not among them."""
        return len(self.ids) - self.prompt_tokens - 1


class Predictions(NamedTuple):
    """What a model made of the scored tokens, one text after another.

    nll: -ln of the probability of the token that came, float64; top: the model's first choice; target: what came;
    int64; all [scored].
    """

    nll: NDArray[np.float64]
    top: NDArray[np.int64]
    target: NDArray[np.int64]


class Listener:
    """Is told where a run stands; this one does not mind."""

    def begin_request(self, number: int) -> None:
        """A text begins; its prompt is next."""

    def end_prompt(self) -> None:
        """The prompt is through all layers."""

    def begin_token(self, place: int) -> None:
        """The token at this place of the text is next."""

    def end_token(self) -> None:
        """It is through all layers."""


def predict(model: Any, texts: Sequence[Text], listener: Listener, progress: Progress | None = None) -> Predictions:
    """Run texts token by token (teacher-forced, with a KV cache), after each one's prompt at once."""
    parts, done = [], 0
    with torch.inference_mode():
        for number, text in enumerate(texts):
            ids = torch.from_numpy(text.ids)[None].to(input_device(model))
            listener.begin_request(number)
            out = model(ids[:, : text.prompt_tokens], use_cache=True, logits_to_keep=1)
            listener.end_prompt()
            for place in range(text.prompt_tokens, len(text.ids) - 1):
                listener.begin_token(place)
                out = model(ids[:, place : place + 1], cache=out.cache, use_cache=True)
                listener.end_token()
                parts.append(_judged(out.logits[0], ids[0, place + 1 : place + 2]))
                done += 1
                if progress is not None:
                    progress(done)
    return _joined(parts)


def predict_at_once(model: Any, texts: Sequence[Text], listener: Listener) -> Predictions:
    """Run each text as one batch, as if all of it were prompt; the same predictions are scored as by ``predict``."""
    parts = []
    with torch.inference_mode():
        for number, text in enumerate(texts):
            ids = torch.from_numpy(text.ids)[None].to(input_device(model))
            listener.begin_request(number)
            out = model(ids[:, :-1], use_cache=False, logits_to_keep=text.scored)
            listener.end_prompt()
            parts.append(_judged(out.logits[0], ids[0, text.prompt_tokens + 1 :]))
    return _joined(parts)


def _judged(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.double()
    nll = logits.logsumexp(dim=-1) - logits.gather(-1, target[:, None])[:, 0]
    return nll, logits.argmax(dim=-1), target


def _joined(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Predictions:
    nll, top, target = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return Predictions(nll, top, target)


@contextmanager
def in_charge(blocks: Sequence[MoeBlock], compute: Callable[[MoeBlock, Tensor], Tensor]) -> Iterator[None]:
    """For a time, let ``compute`` take the place of all blocks' forward passes."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block.overridden(compute))
        yield


def stock(bank: ExpertBank) -> Callable[[MoeBlock, Tensor], Tensor]:
    """Return what computes a block as the model does, with weights from a bank."""

    def compute(block: MoeBlock, hidden: Tensor) -> Tensor:
        routing = block.route(hidden)
        high = torch.ones_like(routing.ids, dtype=torch.bool)
        return block.output(hidden, routing.ids, routing.weights, chooser(bank, routing.ids, high))

    return compute


class Seen(NamedTuple):
    """What one layer's router said, as a trace keeps it: [tokens, top_k] twice, [tokens, experts]."""

    ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    logits: NDArray[np.float32]

    @classmethod
    def of(cls, routing: Routing) -> Seen:
        """Copy it out of the model."""
        ids, scores, logits = (part.cpu().numpy() for part in (routing.ids, routing.scores, routing.logits))
        return cls(ids.astype(np.int32), scores.astype(np.float64), logits)


@dataclass
class ClosedLoop(Listener):
    """Takes the place of the MoE blocks' forward passes, asks the stepper, and records what the routers said.

    The prompt's experts run as prefill has them; after it each batch does what was decided: dropped experts are left
    out, replaced ones run with the weight that the model would give them, degraded ones at low precision.
    """

    blocks: Sequence[MoeBlock]
    stepper: Stepper
    bank: ExpertBank
    request: int = 0

    def __post_init__(self) -> None:
        self.demands: list[Demand] = []
        self._seen: list[Seen] = []
        self._tokens: list[TraceBlock] = []
        self._is_prompt = True
        self._place = 0

    def in_charge(self) -> AbstractContextManager[None]:
        """For a time, compute the blocks."""
        return in_charge(self.blocks, self._compute)

    def trace(self, header: TraceHeader, name: str) -> MemoryTrace:
        """Return what was recorded, prompts and decode tokens."""
        columns = zip(*self._tokens, strict=True)
        return MemoryTrace(header, TraceBlock(*(np.concatenate(column) for column in columns)), name)

    def begin_request(self, number: int) -> None:
        """Begin a request; its prompt is next."""
        self.request, self._is_prompt, self._place = number, True, 0
        self.stepper.begin_request()

    def end_prompt(self) -> None:
        """Take the prompt through the cache, and hand over to decode."""
        seen = self._record(PREFILL)
        self.demands.append(self.stepper.prompt(self.request, seen.ids, seen.scores))
        self._is_prompt = False

    def begin_token(self, place: int) -> None:
        """Begin a decode token."""
        self.demands.append(self.stepper.begin_token(self.request, place, place + 1))

    def end_token(self) -> None:
        """Record it."""
        self._record(DECODE)

    def _record(self, phase: int) -> Seen:
        """Put the layers of the tokens in hand together."""
        ids, scores, logits = (np.stack(column, axis=1) for column in zip(*self._seen, strict=True))
        self._seen = []
        count = len(ids)
        request, token = np.full(count, self.request, dtype=np.int64), self._place + np.arange(count)
        self._place += count
        self._tokens.append(TraceBlock(request, token, np.full(count, phase, dtype=np.int8), ids, scores, logits))
        return Seen(ids, scores, logits)

    def _compute(self, block: MoeBlock, hidden: Tensor) -> Tensor:
        routing = block.route(hidden)
        seen = Seen.of(routing)
        self._seen.append(seen)
        if self._is_prompt:
            self._check_choice(seen)
            return self._prompt(block, hidden, routing, seen)
        batch = self.stepper.step(seen.ids[0], seen.scores[0], seen.logits[0])
        ids, weights = _served(block, routing, batch)
        return self._one_token(block, hidden, ids, weights, batch.high[batch.runs])

    def _prompt(self, block: MoeBlock, hidden: Tensor, routing: Routing, seen: Seen) -> Tensor:
        """Run a prompt's experts as prefill has them."""
        layer = len(self._seen) - 1
        high = torch.from_numpy(self.stepper.prompt_is_high(layer, seen.ids, seen.scores)).to(hidden.device)
        runs = torch.from_numpy(self.stepper.prompt_runs(layer, seen.ids, seen.scores)).to(hidden.device)
        ids, weights = routing.ids, routing.weights
        if not bool(runs.all()):
            ids, weights = ids.where(runs, DROPPED), weights.clone()
            for count in runs.sum(dim=1).unique().tolist():  # tokens that run equally many at once
                rows = runs.sum(dim=1) == count
                own = routing.ids[rows][runs[rows]].reshape(-1, count)
                weights[rows[:, None] & runs] = block.combining_weights(routing.logits[rows], own).reshape(-1)
        return block.output(hidden, ids, weights, chooser(self.bank, ids, high))

    def _one_token(self, block: MoeBlock, hidden: Tensor, ids: Tensor, weights: Tensor, high: BoolArray) -> Tensor:
        """Do what ``block.output`` does for one token, sooner: in the same order, with the same bits."""
        total = torch.zeros_like(hidden)
        for expert, slot in sorted((expert, slot) for slot, expert in enumerate(ids[0].tolist())):
            output = block.expert_forward(self.bank.weights(block, expert, bool(high[slot])), hidden)
            total += (output * weights[:, slot, None]).to(total.dtype)
        shared = block.shared_output(hidden)
        return total if shared is None else total + shared

    def _check_choice(self, seen: Seen) -> None:
        """Cache-aware routing ranks all experts by their logits: refuse a model that does not choose so itself."""
        routing = self.stepper.request.policy.routing
        if routing.sees_logits:
            chosen = np.take_along_axis(seen.logits, seen.ids.astype(np.int64), axis=1)
            if (chosen.min(axis=1) < np.sort(seen.logits, axis=1)[:, -seen.ids.shape[1]]).any():
                raise UserError(
                    f"routing {routing.name or type(routing).__name__}: this model's router does not take the experts "
                    "with the highest logits (it chooses within groups); use routing stock"
                )


def _served(block: MoeBlock, routing: Routing, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the experts that run and what their outputs are multiplied by, [1, experts that run] each.

    The model's own choice keeps the model's own bits. Any other one is weighted as the model weights a choice: where it
    scales weights to a sum of 1, over those that run. A substitute that serves with an original's gate has its weight.
    """
    ids = torch.from_numpy(batch.expert[batch.runs].astype(np.int64))[None].to(routing.ids.device)
    if torch.equal(ids, routing.ids):
        return ids, routing.weights
    weighed_as = torch.from_numpy(batch.weighed_as[batch.runs].astype(np.int64))[None].to(ids.device)
    return ids, block.combining_weights(routing.logits, weighed_as)


def decoded(demands: Sequence[Demand]) -> dict[str, NDArray[Any]]:
    """Put the decisions of decode together: what two replays have to share, column by column."""
    tables = [demand for demand in demands if isinstance(demand, DecodeDemand)]
    names = ("expert", "outcome", "gate", "served_gate", "resident_bytes", "strength")
    return {name: np.concatenate([getattr(table, name) for table in tables]) for name in names} if tables else {}
