"""Prefetch: what is read before it is asked for."""

from __future__ import annotations

from typing import ClassVar

from slicesim.policies.base import Strategy


class Prefetch(Strategy):
    """Base of all prefetch strategies."""

    kind: ClassVar[str] = "prefetch"


class NoPrefetch(Prefetch):
    """Nothing is read ahead of its request (SliceMoE's choice, slicemoe.md 1.2)."""

    name: ClassVar[str] = "none"
