"""What the page of errors is made of: rows of measured and simulated figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from slicesim.validation.reference import relative_error

#: fitted: parameters were chosen on this row; predicted: on others or on none; input: given to the simulator.
Kind = Literal["fitted", "predicted", "input"]


@dataclass(frozen=True)
class Row:
    """One figure. simulated: None where it was not worked out here; needs_data: its input does not ship."""

    name: str
    what: str
    measured: float
    simulated: float | None
    kind: Kind
    note: str = ""
    needs_data: bool = False

    @property
    def error(self) -> float | None:
        """Error as a fraction of what was measured."""
        return None if self.simulated is None else relative_error(self.simulated, self.measured)

    @property
    def is_speed(self) -> bool:
        """Tell whether it is a rate of tokens over a run, which the target is about."""
        return self.what.startswith("tokens/s")


@dataclass(frozen=True)
class Table:
    """Rows of one kind, with what is to be said of them."""

    title: str
    text: str
    rows: Sequence[Row]
