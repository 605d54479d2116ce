"""Precision: which experts need high precision, and what the cache holds as one object."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from slicesim.policies.base import Strategy
from slicesim.policies.slices import BoolArray, FloatArray


class Precision(Strategy):
    """Base of all precision strategies.

    ``objects`` says what the cache holds: MSB and LSB ``slices``, ``whole`` experts at high precision, or ``msb``
    slices alone.
    """

    kind: ClassVar[str] = "precision"
    objects: ClassVar[Literal["slices", "whole", "msb"]] = "slices"
    on_renormalised: bool = Field(True, description="may be used where the trace's scores are renormalised")

    def critical(self, gates: FloatArray) -> BoolArray:
        """Return, for gate scores of any shape, which experts request their LSB too."""
        return np.zeros(gates.shape, dtype=np.bool_)


class Threshold(Precision):
    """DBSC's rule: an expert is critical when its original gate score is at least the threshold (slicemoe.md 1.4)."""

    name: ClassVar[str] = "threshold"
    threshold: float = Field(0.1, ge=0, le=1, description="on the raw softmax probability; compared with >=")
    on_renormalised: bool = Field(False, description="set true to compare with renormalised scores all the same")

    def critical(self, gates: FloatArray) -> BoolArray:
        """Return gates >= threshold."""
        return gates >= self.threshold


class UniformHigh(Precision):
    """Every expert at high precision, cached as one object of MSB and LSB bytes."""

    name: ClassVar[str] = "uniform-high"
    objects: ClassVar[Literal["slices", "whole", "msb"]] = "whole"


class UniformLow(Precision):
    """Every expert at low precision: MSB slices alone."""

    name: ClassVar[str] = "uniform-low"
    objects: ClassVar[Literal["slices", "whole", "msb"]] = "msb"
