"""What a key of a search may be: a range, or one of several values; and where a number from 0 to 1 falls in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from slicesim.scenario.schema import Section

Number = Annotated[int | float, Field(allow_inf_nan=False)]

#: Steps of a range: more are a slip.
_MOST_LEVELS = 1_000_000


class Range(Section):
    """Numbers from low to high, both included."""

    low: Number = Field(description="least value, in the unit of the key")
    high: Number = Field(description="largest value")
    log: bool = Field(False, description="even in the logarithm: as many points from 1 to 10 as from 10 to 100")
    step: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="only low, low + step, ...; whole numbers where low and step are"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, it is {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together: list the values instead, [1, 2, 4, 8]")
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"steps of {self.step} from {self.low} do not reach high ({self.high})")
            if steps > _MOST_LEVELS:
                raise ValueError(f"has {steps:,.0f} steps, at most {_MOST_LEVELS:,} go into one range")
        return self

    @cached_property
    def levels(self) -> Sequence[Any] | None:
        """The values one by one, where there is a step."""
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step) + 1
        if isinstance(self.low, int) and isinstance(self.step, int):
            return range(self.low, self.low + count * self.step, self.step)
        # 12 digits: 0.1 + 2 x 0.1 is written 0.3.
        return [float(f"{self.low + place * self.step:.12g}") for place in range(count)]

    def at(self, share: float) -> Any:
        """Return the value below which ``share`` (0 to 1, 1 excluded) of the range lies."""
        if self.levels is not None:
            return self.levels[int(share * len(self.levels))]
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(value, float(self.low)), float(self.high))


@dataclass(frozen=True)
class Choices:
    """Values without an order between them."""

    levels: Sequence[Any]

    def at(self, share: float) -> Any:
        """Return the value at ``share`` (0 to 1, 1 excluded) of the list."""
        return self.levels[int(share * len(self.levels))]


Domain = Range | Choices


def _range_or_list(value: Any) -> Any:
    if not isinstance(value, (dict, list, Range)):
        raise ValueError("must be a range, {low: 1, high: 4}, or a list of values")
    return value


def _form(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a range"  # a space: no key of the file


#: A range, or a list of values, as a search's keys have them.
Varied = Annotated[
    Annotated[Range, Tag("a range")] | Annotated[list[Any], Tag("a list")],
    Discriminator(_form),
    BeforeValidator(_range_or_list),
]


def domain(varied: Range | list[Any]) -> Domain:
    """Return what a key's values are drawn from."""
    return varied if isinstance(varied, Range) else Choices(varied)
