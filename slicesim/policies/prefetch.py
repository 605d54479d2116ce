"""Prefetch: what is read before it is asked for.

When a layer's router is done, a strategy guesses the experts of the coming layers of the same token; slices of them
that are missing are read ahead, best guess first, within a budget of bytes. They enter the cache at once (the decision
plane has no clock); whether they arrive in time is the schedule's business.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from slicesim.policies.base import Strategy
from slicesim.policies.slices import FloatArray


class Prefetch(Strategy):
    """Base of all prefetch strategies. Those that read ahead derive from ``ReadAhead``."""

    kind: ClassVar[str] = "prefetch"

    @property
    def layers_ahead(self) -> int:
        """Coming layers that are looked at; 0 where nothing is ever read ahead."""
        return 0

    @property
    def budget_bytes(self) -> int:
        """Bytes read ahead per batch, at most."""
        return 0


class NoPrefetch(Prefetch):
    """Nothing is read ahead of its request (SliceMoE's choice, slicemoe.md 1.2)."""

    name: ClassVar[str] = "none"


class ReadAhead(Prefetch):
    """Base of strategies that guess what the next ``depth`` layers will want."""

    depth: int = Field(1, ge=1, description="layers ahead")
    budget_mb: float = Field(20.0, gt=0, allow_inf_nan=False, description="decimal megabytes per batch, at most")

    @property
    def layers_ahead(self) -> int:
        """Depth."""
        return self.depth

    @property
    def budget_bytes(self) -> int:
        """Budget in bytes."""
        return round(self.budget_mb * 1e6)

    def guess(self, tokens: Any, token: int, layer: int, before: Any, points: FloatArray) -> None:
        """Give points above 0 to the slices of ``layer`` that the token will want; the most points are read first.

        points: [experts, 2] (MSB, LSB), all 0; tokens: the trace's ``ids``, ``scores`` and ``critical`` [tokens,
        layers, top_k], of which only those of layers up to the one in hand are known on a real device; before:
        records [layers, top_k] of the request's last token in decode (``expert``, -1 for none; ``gate``; ``critical``).
        Compiled into the batch loop.
        """
        raise NotImplementedError(f"{type(self).__name__} must define guess")


class PreviousToken(ReadAhead):
    """What the request's previous token used in that layer, by its gate score there."""

    name: ClassVar[str] = "previous-token"

    def guess(self, tokens: Any, token: int, layer: int, before: Any, points: FloatArray) -> None:
        """Points are gate scores."""
        for slot in before[layer]:
            if slot.expert >= 0:
                points[slot.expert, 0] = slot.gate
                if slot.critical:
                    points[slot.expert, 1] = slot.gate


class Oracle(ReadAhead):
    """What the token will use in that layer (knows the future): a bound on what any predictor can do."""

    name: ClassVar[str] = "oracle"

    def guess(self, tokens: Any, token: int, layer: int, before: Any, points: FloatArray) -> None:
        """Points are gate scores."""
        for slot in range(tokens.ids.shape[2]):
            expert = tokens.ids[token, layer, slot]
            points[expert, 0] = tokens.scores[token, layer, slot]
            if tokens.critical[token, layer, slot]:
                points[expert, 1] = tokens.scores[token, layer, slot]
