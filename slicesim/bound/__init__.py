"""The optimum: how few bytes any cache could have read from flash for the look-ups of a run (docs/bound.md)."""

from slicesim.bound.flash_bound import FlashBound
from slicesim.bound.prices import Reuses, least_read_bytes

__all__ = ["FlashBound", "Reuses", "least_read_bytes"]
