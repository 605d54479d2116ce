"""Fetch: which missing slices are read from flash on demand."""

from __future__ import annotations

from typing import ClassVar

from slicesim.policies.base import Strategy


class Fetch(Strategy):
    """Base of all fetch strategies. ``lsb``: read a critical expert's missing LSB while the token waits."""

    kind: ClassVar[str] = "fetch"
    lsb: ClassVar[bool] = True


class FetchAll(Fetch):
    """Every missing slice that is requested is read.

    Source: the default of slicemoe.md 2, row 2.
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py).
    """

    name: ClassVar[str] = "all"


class FetchMsb(Fetch):
    """Only missing MSB slices are read; a critical expert whose LSB is absent runs low (slicemoe.md 2, row 2).

    Source: SliceMoE allows MSB-only computing (slicemoe.md 1.4).
    Checked by: laws (tests/laws).
    """

    name: ClassVar[str] = "msb-only"
    lsb: ClassVar[bool] = False
