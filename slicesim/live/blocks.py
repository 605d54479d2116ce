"""A live model's MoE blocks, one interface for all families: route, choose, compute from parts, override."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from slicesim.live.layouts import Concatenated, ExpertLayout, ExpertWeights, Matrices

#: An expert that was chosen and then dropped stands in the ids as this number; it adds nothing.
DROPPED = -1


class Routing(NamedTuple):
    """What the router says of each token.

    logits: float32 [tokens, experts]; ids: int64 [tokens, top_k], the model's own choice, best score first;
    scores: float32, same shape, the gate scores of the choice (see ``MoeBlock.score_kind``); weights: same shape,
    in the model's type, what the model multiplies the experts' outputs by.
    """

    logits: Tensor
    ids: Tensor
    scores: Tensor
    weights: Tensor


class MoeBlock(ABC):
    """One decoder layer's router, experts and shared expert.

    hidden: always [tokens, hidden], the block's input (after the layer's norm). Computing from parts with the
    model's own choice gives the model's own bits on a CPU, if the model was loaded with eager experts (``load_live``).
    """

    score_kind: ClassVar[Literal["softmax", "renormalised"]] = "softmax"
    layout: ClassVar[ExpertLayout] = Concatenated()

    def __init__(self, module: nn.Module, layer: int) -> None:
        self.module = module
        self.layer = layer

    @property
    def router(self) -> nn.Module:
        """The module that returns (logits, weights, ids)."""
        return self.module.gate

    @property
    def experts(self) -> int:
        """Number of routed experts."""
        return int(self.router.num_experts)

    @property
    def top_k(self) -> int:
        """Experts for each token."""
        return int(self.router.top_k)

    def route(self, hidden: Tensor) -> Routing:
        """Run the router; the choice and its weights are the model's own."""
        return self.read(self.router(hidden))

    def read(self, routed: tuple[Tensor, Tensor, Tensor]) -> Routing:
        """Read what the router module returned; puts the best score first (equal scores stay as they are)."""
        logits, weights, ids = routed
        logits = logits.float()
        scores = self.gate_scores(logits, ids)
        order = scores.argsort(dim=-1, descending=True, stable=True)
        return Routing(logits, *(values.gather(-1, order) for values in (ids, scores, weights)))

    def gate_scores(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return the gate scores (float32) of chosen experts: softmax over all experts, as ``score_kind`` says."""
        return logits.softmax(dim=-1, dtype=torch.float32).gather(-1, ids)

    @abstractmethod
    def combining_weights(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return what the model would multiply the outputs of these experts by, had it chosen them itself.

        logits: float32 [tokens, experts]; ids: [tokens, any number], no dropped expert among them. For the model's
        own ids in ``Routing``'s order the values agree to rounding; take ``Routing.weights`` for its bits.
        """

    def expert_weights(self, expert: int) -> ExpertWeights:
        """Return one expert's weights as views of the model's."""
        return self.layout.weights(self.module.experts, expert)

    def matrices(self, expert: int) -> Matrices:
        """Return one expert's three matrices as views [out, in] of the model's."""
        return self.layout.matrices(self.expert_weights(expert))

    def with_matrices(self, expert: int, matrices: Matrices) -> ExpertWeights:
        """Return weights with other matrices (quantised and rebuilt, say), the biases being the expert's own."""
        return self.layout.fused(matrices, like=self.expert_weights(expert))

    def expert_forward(self, weights: ExpertWeights, hidden: Tensor) -> Tensor:
        """Return one expert's output [tokens, hidden], unweighted."""
        return self.layout.forward(self.module.experts, weights, hidden)

    def shared_output(self, hidden: Tensor) -> Tensor | None:
        """Return the shared expert's output as it is added, or None where the family has none."""
        return None

    def mixture(self, hidden: Tensor, ids: Tensor, weights: Tensor, choose: ChooseWeights | None = None) -> Tensor:
        """Return the weighted sum of the experts' outputs.

        ids, weights: [tokens, any number]; DROPPED ids add nothing. ``choose`` gives the weights of an expert for the
        tokens that chose it (all of them in one product); left out, they are the model's own.
        """
        total = torch.zeros_like(hidden)
        # The order of experts and rows is that of transformers' eager experts: sums must have the same bits.
        for expert in ids.unique().tolist():
            if expert == DROPPED:
                continue
            slot, token = torch.where(expert == ids.T)
            for rows, used in self._used(expert, token, choose):
                output = self.expert_forward(used, hidden[token[rows]])
                output = output * weights[token[rows], slot[rows], None]
                total.index_add_(0, token[rows], output.to(total.dtype))
        return total

    def _used(self, expert: int, token: Tensor, choose: ChooseWeights | None) -> list[tuple[Any, ExpertWeights]]:
        if choose is None:
            return [(slice(None), self.expert_weights(expert))]
        return choose(self, expert, token)

    def output(self, hidden: Tensor, ids: Tensor, weights: Tensor, choose: ChooseWeights | None = None) -> Tensor:
        """Return the block's output [tokens, hidden]: mixture and shared expert."""
        total = self.mixture(hidden, ids, weights, choose)
        shared = self.shared_output(hidden)
        return total if shared is None else total + shared

    @contextmanager
    def overridden(self, compute: Callable[[MoeBlock, Tensor], Tensor]) -> Iterator[None]:
        """For a time, let ``compute(block, hidden)`` take the place of the block's forward pass."""

        def forward(hidden_states: Tensor) -> Any:
            flat = hidden_states.reshape(-1, hidden_states.shape[-1])
            return self._returned(compute(self, flat).reshape(hidden_states.shape))

        before = self.module.__dict__.get("forward")
        self.module.forward = forward
        try:
            yield
        finally:
            del self.module.forward
            if before is not None:
                self.module.forward = before

    def _returned(self, output: Tensor) -> Any:
        """Return the output as the decoder layer expects it."""
        return output


#: (block, expert, token numbers [n] that chose it) -> list of (rows, weights): which of the n rows (a slice or an
#: index tensor) are computed with which weights.
ChooseWeights = Callable[[MoeBlock, int, Tensor], list[tuple[Any, ExpertWeights]]]
