"""Methods of a search: which points are run, and in what order. The same seed draws the same points."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from slicesim.errors import UserError
from slicesim.scenario.schema import Section
from slicesim.sweeps.space import Choices, Domain, Range, Varied, domain

if TYPE_CHECKING:
    from slicesim.sweeps.goals import Goals, Score

#: Beyond this a sweep is a slip, and its points alone would fill the memory.
MOST_POINTS = 1_000_000

#: What the keys are at a point.
Values = dict[str, Any]


class Rounds(Protocol):
    """Points in rounds: those of one round know nothing of each other."""

    def ask(self) -> list[Values]:
        """Return the points of the next round, none when the search is over."""

    def tell(self, scores: Iterable[Score | None]) -> None:
        """Take what the round gave, in its order; None for a point that is no valid scenario."""


class AllAtOnce:
    """One round of points that were settled beforehand."""

    def __init__(self, points: list[Values]) -> None:
        self._points = points

    def ask(self) -> list[Values]:
        """Return all, then nothing."""
        points, self._points = self._points, []
        return points

    def tell(self, scores: Iterable[Score | None]) -> None:
        """Nothing is learnt."""


class SearchSection(Section):
    """What every method has. is_drawn: its points are drawn, and may fall where no scenario is valid."""

    is_drawn: ClassVar[bool] = True

    keys: dict[str, Varied] = Field(description="scenario keys, dotted, with a range or a list of values")

    @field_validator("keys")
    @classmethod
    def _some_keys(cls, keys: dict[str, Range | list[Any]]) -> dict[str, Range | list[Any]]:
        if not keys:
            raise ValueError("is empty: give at least one key, for example cache.capacity_gb: {low: 1.2, high: 3.6}")
        return keys

    @property
    def domains(self) -> dict[str, Domain]:
        """Key -> what its values are drawn from."""
        return {key: domain(varied) for key, varied in self.keys.items()}

    @property
    def size(self) -> int:
        """Points of the whole search."""
        raise NotImplementedError

    def rounds(self, goals: Goals) -> Rounds:
        """Begin the search."""
        raise NotImplementedError


class GridSearch(SearchSection):
    """Every combination; the last key varies fastest."""

    is_drawn: ClassVar[bool] = False

    method: Literal["grid"] = "grid"

    @field_validator("keys")
    @classmethod
    def _listed(cls, keys: dict[str, Range | list[Any]]) -> dict[str, Range | list[Any]]:
        for key, varied in keys.items():
            if domain(varied).levels is None:
                raise ValueError(f"{key}: a grid needs a step, or a list of values")
        return keys

    @property
    def size(self) -> int:
        """Combinations."""
        size = 1
        for own in self.domains.values():
            size *= len(own.levels or ())
        return size

    def rounds(self, goals: Goals) -> Rounds:
        """Return all combinations."""
        levels = [own.levels or () for own in self.domains.values()]
        return AllAtOnce([dict(zip(self.keys, point, strict=True)) for point in itertools.product(*levels)])


class DrawnSearch(SearchSection):
    """Points drawn from the ranges."""

    points: int = Field(ge=1, le=MOST_POINTS, description="points to draw")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="the same seed draws the same points")

    @property
    def size(self) -> int:
        """Points asked for."""
        return self.points

    def _placed(self, shares: NDArray[np.float64]) -> Rounds:
        """Return the points at the given shares, [points, keys], of the ranges."""
        domains = self.domains
        return AllAtOnce(
            [{key: own.at(at) for (key, own), at in zip(domains.items(), row, strict=True)} for row in shares.tolist()]
        )


class RandomSearch(DrawnSearch):
    """Independent points; more of them keep those of before."""

    method: Literal["random"]

    def rounds(self, goals: Goals) -> Rounds:
        """Return the points."""
        return self._placed(np.random.default_rng(self.seed).random((self.points, len(self.keys))))


class LatinHypercubeSearch(DrawnSearch):
    """Points of which each n-th part of every key's range holds exactly one (McKay et al. 1979)."""

    method: Literal["latin-hypercube"]

    def rounds(self, goals: Goals) -> Rounds:
        """Return the points."""
        try:
            from scipy.stats import qmc
        except ImportError:
            raise _missing("scipy", self.method) from None
        sampler = qmc.LatinHypercube(len(self.keys), seed=np.random.default_rng(self.seed))
        return self._placed(sampler.random(self.points))


class BayesianSearch(DrawnSearch):
    """Points drawn near the best so far (optuna's tree-structured Parzen estimator, multivariate)."""

    method: Literal["bayesian"]
    batch: int = Field(8, ge=1, description="points drawn at once, each from what earlier batches gave")
    start: int = Field(10, ge=1, description="points drawn at random before anything is learnt")

    @model_validator(mode="after")
    def _batch_fits(self) -> BayesianSearch:
        if self.batch > self.points:
            raise ValueError(f"batch ({self.batch}) must not be above points ({self.points})")
        return self

    def rounds(self, goals: Goals) -> Rounds:
        """Begin a study."""
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise _missing("optuna", self.method) from None
        from slicesim.sweeps.bayesian import Study

        return Study(self, goals)


#: The section ``search`` of a sweep file.
Search = Annotated[
    GridSearch | RandomSearch | LatinHypercubeSearch | BayesianSearch,
    Field(discriminator="method"),
]


def listed(grid: Mapping[str, list[Any]]) -> GridSearch:
    """Return the search that the section ``grid`` stands for."""
    return GridSearch.model_construct(method="grid", keys=dict(grid))


def _missing(package: str, method: str) -> UserError:
    return UserError(f"search.method {method} needs {package}: pip install 'slicesim[search]'")


__all__ = ["Choices", "GridSearch", "Rounds", "Search", "SearchSection", "Values", "listed"]
