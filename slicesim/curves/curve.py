"""What a curve says: look-ups of each phase at given cache sizes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from slicesim.decide import Request
from slicesim.errors import UserError
from slicesim.policies import LSB, MSB
from slicesim.policies.slices import FloatArray, IntArray

PHASES = ("prefill", "decode")


class Counts(NamedTuple):
    """One phase at several cache sizes.

    tokens: of the phase; hits, misses: int64 [sizes, 2], MSB and LSB; flash_bytes: int64 [sizes].
    """

    tokens: int
    hits: IntArray
    misses: IntArray
    flash_bytes: IntArray

    def miss_rates(self) -> dict[str, FloatArray]:
        """Return misses over look-ups [sizes] of all slices, MSB and LSB; NaN where nothing was looked up."""
        kinds = {"slices": [MSB, LSB], "msb": [MSB], "lsb": [LSB]}
        return {name: _share(self.misses[:, k].sum(1), self.hits[:, k].sum(1)) for name, k in kinds.items()}

    def flash_bytes_per_token(self) -> FloatArray:
        """Return bytes read from flash for one token of the phase [sizes]."""
        return self.flash_bytes / self.tokens if self.tokens else np.full(len(self.flash_bytes), np.nan)


class Curve(Protocol):
    """Look-ups over cache sizes, by one policy on one trace."""

    @property
    def label(self) -> str:
        """Name of the policy."""

    @property
    def method(self) -> str:
        """How it was made: ``one pass`` or ``replay``; ``bound`` for what no cache can read less than."""

    def at(self, capacities: ArrayLike) -> dict[str, Counts]:
        """Return the counts of ``prefill`` and ``decode`` at these cache sizes in bytes."""


def least_bytes(request: Request) -> int:
    """Return the smallest cache that is simulated: it holds one batch."""
    batch = request.trace.header.top_k * int((request.sizes.msb_bytes + request.sizes.lsb_bytes).max())
    return batch * (len(request.sizes.msb_bytes) if request.per_layer else 1)


def all_bytes(request: Request) -> int:
    """Return the size of a cache that holds everything."""
    return request.trace.header.experts * int((request.sizes.msb_bytes + request.sizes.lsb_bytes).sum())


def as_sizes(capacities: ArrayLike, least: int, label: str) -> IntArray:
    """Check cache sizes in bytes, and return them as an array."""
    sizes = np.atleast_1d(np.asarray(capacities, dtype=np.int64))
    if len(sizes) and sizes.min() < least:
        raise UserError(
            f"{label}: a cache of {sizes.min() / 1e9:g} GB holds less than one batch of experts; "
            f"give at least {least / 1e9:.10g}"
        )
    return sizes


def _share(misses: IntArray, hits: IntArray) -> FloatArray:
    lookups = misses + hits
    return np.where(lookups > 0, misses / np.maximum(lookups, 1), np.nan)
