"""A profile: published statistics of a model's routing, each with its source, and a generator's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from slicesim.scenario.coefficient import Coefficient
from slicesim.scenario.document import read_document
from slicesim.scenario.scenario import validate
from slicesim.scenario.section import Section

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class ProfiledModel(Section):
    """The geometry that the statistics belong to."""

    name: str
    layers: Annotated[list[int], Field(min_length=1)]
    experts: Count
    top_k: Count
    source: str

    @model_validator(mode="after")
    def _consistent(self) -> ProfiledModel:
        if self.top_k >= self.experts:
            raise ValueError(f"top_k ({self.top_k}) must be below the number of experts ({self.experts})")
        if self.layers != sorted(set(self.layers)):
            raise ValueError("layers must rise")
        return self


class Figures(Section):
    """Fractions along an axis that the key names: layers, or ranks."""

    values: Annotated[list[Fraction], Field(min_length=1)]
    source: str


class Curve(Section):
    """A figure measured at several points: lags or windows in tokens, shares of a layer's experts."""

    at: Annotated[list[float], Field(min_length=1)]
    values: Annotated[list[float], Field(min_length=1)]
    source: str

    @model_validator(mode="after")
    def _same_length(self) -> Curve:
        if len(self.at) != len(self.values):
            raise ValueError(f"{len(self.at)} points but {len(self.values)} values")
        return self


class Published(Section):
    """Statistics of real routing."""

    reuse_lag_1_by_layer: Figures = Field(description="P(an expert of token t is used at t + 1)")
    reuse_by_lag_tokens: Curve
    score_mean_by_rank: Figures = Field(description="softmax probability, not renormalised")
    critical_experts_per_token_and_layer: Coefficient = Field(description="with a score of at least 0.1")
    popularity_gini: Coefficient
    popularity_max_over_mean: Coefficient
    distinct_experts_by_window_tokens: Curve
    lru_hit_rate_by_cached_share: Curve = Field(description="one cache per layer, from cold")


class Generator(Section):
    """What the statistics do not settle; see ``slicesim.trace.synth`` for the parts."""

    popularity_share: Fraction = Field(description="part of the variance that is the same in all requests")
    slow_correlation: Fraction = Field(description="of the slow part, from one token to the next")
    fast_correlation: Fraction = Field(description="of the fast part, from one token to the next")
    sharpness_spread: float = Field(ge=0, description="standard deviation of the logarithm of a token's sharpness")
    top_steepness: float = Field(ge=0, description="extra slope of the logits above an ordinary top-k's")
    found_by: str = Field(min_length=1)


class Profile(Section):
    """A model's routing in figures."""

    name: str
    model: ProfiledModel
    published: Published
    generator: Generator

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        for label, figures, expected in (
            ("reuse_lag_1_by_layer", self.published.reuse_lag_1_by_layer, len(self.model.layers)),
            ("score_mean_by_rank", self.published.score_mean_by_rank, self.model.top_k),
        ):
            if len(figures.values) != expected:
                raise ValueError(f"published.{label} needs {expected} values, has {len(figures.values)}")
        return self


def read_profile(path: Path) -> Profile:
    """Read a profile; raises UserError, with file and line, for what is not valid."""
    return validate(Profile, read_document(path))
