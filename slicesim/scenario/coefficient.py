"""One number of the hardware with its source, and what such a number may be."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from slicesim.scenario.section import Section


class Coefficient(Section):
    """One number of the hardware, with where it comes from; its unit stands in the key that holds it."""

    value: float = Field(allow_inf_nan=False)
    source: str = Field(min_length=1)
    low: float | None = Field(None, allow_inf_nan=False, description="lowest plausible value, same unit")
    high: float | None = Field(None, allow_inf_nan=False, description="highest plausible value, same unit")

    @model_validator(mode="before")
    @classmethod
    def _needs_source(cls, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            return data
        raise ValueError(f"a coefficient needs its source: write {{value: {data}, source: where it comes from}}")

    @model_validator(mode="after")
    def _inside_its_range(self) -> Coefficient:
        if self.low is not None and self.value < self.low:
            raise ValueError(f"value {self.value:g} lies below its own low of {self.low:g}")
        if self.high is not None and self.value > self.high:
            raise ValueError(f"value {self.value:g} lies above its own high of {self.high:g}")
        return self


#: Beyond these a figure is a slip of the unit, and times and energies would overflow.
_LEAST, _MOST, _MOST_UNITS = 1e-6, 1e9, 10**6


def _positive(c: Coefficient) -> Coefficient:
    if c.value <= 0:
        raise ValueError(f"must be above 0, is {c.value:g}")
    if c.value < _LEAST:
        raise ValueError(f"must be at least {_LEAST:g} in the unit of the key, is {c.value:g}")
    return _plausible(c)


def _not_negative(c: Coefficient) -> Coefficient:
    if c.value < 0:
        raise ValueError(f"must not be negative, is {c.value:g}")
    return _plausible(c)


def _plausible(c: Coefficient) -> Coefficient:
    if c.value > _MOST:
        raise ValueError(f"must be at most {_MOST:g} in the unit of the key, is {c.value:g}")
    return c


def _share(c: Coefficient) -> Coefficient:
    if not _LEAST <= c.value <= 1:
        raise ValueError(f"must lie above 0 and at most 1, is {c.value:g}")
    return c


def _count(c: Coefficient) -> Coefficient:
    if not 1 <= c.value <= _MOST_UNITS or c.value != int(c.value):
        raise ValueError(f"must be a whole number from 1 to {_MOST_UNITS}, is {c.value:g}")
    return c


Positive = Annotated[Coefficient, AfterValidator(_positive)]
NotNegative = Annotated[Coefficient, AfterValidator(_not_negative)]
Share = Annotated[Coefficient, AfterValidator(_share)]
Count = Annotated[Coefficient, AfterValidator(_count)]
