"""Prefetch: what is read before it is asked for.

When a layer's router is done, a strategy guesses the experts of the coming layers of the same token; slices of them
that are missing are read ahead, best guess first, within a budget of bytes. They enter the cache at once (the decision
plane has no clock); whether they arrive in time is the schedule's business.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from slicesim.policies.base import Strategy

#: One guess: its points, and the slice within its layer (2 * expert, + 1 for the LSB).
GUESS = np.dtype([("points", np.float64), ("slice", np.int64)])


class Prefetch(Strategy):
    """Base of all prefetch strategies. Those that read ahead derive from ``ReadAhead``.

    needs_future: looks at what the token will want in layers that have not run yet.
    """

    kind: ClassVar[str] = "prefetch"
    needs_future: ClassVar[bool] = False

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
    budget_mb: float = Field(6.0, gt=0, allow_inf_nan=False, description="decimal megabytes per batch, at most")

    @property
    def layers_ahead(self) -> int:
        """Depth."""
        return self.depth

    @property
    def budget_bytes(self) -> int:
        """Budget in bytes."""
        return round(self.budget_mb * 1e6)

    def guess(self, tokens: Any, token: int, layer: int, before: Any, guesses: Any) -> int:
        """Enter the slices of ``layer`` that the token may want; return how many. The most points are read first.

        guesses: GUESS records [2 * experts], to be filled from the front; tokens: the trace's ``ids``, ``scores`` and
        ``critical`` [tokens, layers, top_k], of which only those of layers up to the one in hand are known on a real
        device; before: records [layers, top_k] of the request's last token in decode (``expert``, -1 for none;
        ``gate``; ``critical``).
        Compiled into the batch loop.
        """
        raise NotImplementedError(f"{type(self).__name__} must define guess")


class PreviousToken(ReadAhead):
    """What the request's previous token used in that layer, by its gate score there."""

    name: ClassVar[str] = "previous-token"

    def guess(self, tokens: Any, token: int, layer: int, before: Any, guesses: Any) -> int:
        """Points are gate scores."""
        count = 0
        for slot in before[layer]:
            if slot.expert >= 0:
                for kind in range(2 if slot.critical else 1):
                    guesses[count].points, guesses[count].slice = slot.gate, 2 * slot.expert + kind
                    count += 1
        return count


class Oracle(ReadAhead):
    """What the token will use in that layer (knows the future): a bound on what any predictor can do."""

    name: ClassVar[str] = "oracle"
    needs_future: ClassVar[bool] = True

    def guess(self, tokens: Any, token: int, layer: int, before: Any, guesses: Any) -> int:
        """Points are gate scores."""
        count = 0
        for slot in range(tokens.ids.shape[2]):
            for kind in range(2 if tokens.critical[token, layer, slot] else 1):
                guesses[count].points = tokens.scores[token, layer, slot]
                guesses[count].slice = 2 * tokens.ids[token, layer, slot] + kind
                count += 1
        return count
