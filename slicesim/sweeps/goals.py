"""What a sweep is after: figures to bring down or up, limits that others must keep, and the points that are best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from slicesim.scenario.schema import Section
from slicesim.sweeps.figures import Figure
from slicesim.sweeps.space import Number

Direction = Literal["minimise", "maximise"]

#: Violation of a limit by a point that does not have the figure: larger than any that a figure makes.
NO_FIGURE = 1e12

FEASIBLE, PARETO = "feasible", "pareto"


class Limit(Section):
    """What a figure may be."""

    max: Number | None = Field(None, description="largest value allowed, in the unit of the figure's name")
    min: Number | None = Field(None, description="least value allowed")

    @model_validator(mode="after")
    def _something(self) -> Limit:
        if self.max is None and self.min is None:
            raise ValueError("give max, min or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) must not be above max ({self.max})")
        return self

    def violation(self, value: float | None) -> float:
        """Return by how much of the limit a value is beyond it; 0 or less where it is kept."""
        if value is None:
            return NO_FIGURE
        over = [] if self.max is None else [(value - self.max) / (abs(self.max) or 1.0)]
        under = [] if self.min is None else [(self.min - value) / (abs(self.min) or 1.0)]
        return float(np.clip(max(over + under), -NO_FIGURE, NO_FIGURE))


@dataclass(frozen=True)
class Score:
    """A point against the goals. values: of the objectives, less is better, or None where it lacks one;
    violations: of the constraints, as ``Limit.violation`` has them.
    """

    values: tuple[float, ...] | None
    violations: tuple[float, ...]

    @property
    def is_feasible(self) -> bool:
        """Whether every constraint is kept."""
        return all(violation <= 0 for violation in self.violations)


@dataclass(frozen=True)
class Goals:
    """Objectives, each with its direction, and constraints, each with its limit. Both may be empty."""

    objectives: tuple[tuple[Figure, Direction], ...] = ()
    constraints: tuple[tuple[Figure, Limit], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.objectives or self.constraints)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures that count, each once."""
        return tuple(dict.fromkeys(figure for figure, _ in (*self.objectives, *self.constraints)))

    def score(self, figures: Mapping[str, Any]) -> Score:
        """Judge a point. figures: by column."""
        values = [(figure.value(figures), direction) for figure, direction in self.objectives]
        whole = [-value if direction == "maximise" else value for value, direction in values if value is not None]
        return Score(
            tuple(whole) if len(whole) == len(values) else None,
            tuple(limit.violation(figure.value(figures)) for figure, limit in self.constraints),
        )

    def columns(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Return for each row whether it is ``feasible``, and whether it is on the front (``pareto``).

        The front: feasible points that no other feasible one beats; of one objective, the best points.
        """
        scores = [self.score(row) for row in rows]
        feasible = [score.is_feasible for score in scores]
        columns = {FEASIBLE: np.array(feasible, dtype=bool)} if self else {}
        if self.objectives:
            front = np.zeros(len(rows), dtype=bool)
            able = [(place, score.values) for place, score in enumerate(scores) if feasible[place] and score.values]
            if able:
                front[[place for place, _ in able]] = pareto_front(np.array([values for _, values in able]))
            columns[PARETO] = front
        return pd.DataFrame(columns, index=range(len(rows)))


NO_GOALS = Goals()


def pareto_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which rows no other one beats. values: [points, objectives], less is better.

    One row beats another if it is no worse in any objective and better in one; equal rows do not beat each other.
    """
    points, objectives = values.shape
    mask = np.zeros(points, dtype=bool)
    front, size = np.empty((points, objectives)), 0
    for place in np.lexsort(values.T[::-1]):  # none is beaten by a later one
        row, kept = values[place], front[:size]
        if not (np.all(kept <= row, axis=1) & np.any(kept < row, axis=1)).any():
            front[size], mask[place] = row, True
            size += 1
    return mask
