"""Bayesian search by optuna, in rounds of a settled size: what is drawn depends on the file alone.

A round is drawn before any of its points has run, and told in the order in which it was drawn, so neither the number of
workers nor a kill in between changes a later point: a search that goes on draws the same points again, and finds those
that were finished in the store.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from slicesim.sweeps.goals import Goals, Score
from slicesim.sweeps.space import Domain, Range

if TYPE_CHECKING:
    from slicesim.sweeps.search import BayesianSearch, Values

_VIOLATIONS = "violations"


class Study:
    """A search under way. Infeasible points are told as such; those without figures count as failed."""

    def __init__(self, search: BayesianSearch, goals: Goals) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._domains = search.domains
        self._distributions = {key: _distribution(own) for key, own in self._domains.items()}
        self._left, self._batch = search.points, search.batch
        self._asked: list[Trial] = []
        with warnings.catch_warnings():  # several of these options are still called experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=search.seed, n_startup_trials=search.start, multivariate=True, constant_liar=True,
                constraints_func=_violations if goals.constraints else None,
            )  # fmt: skip
            self._study = optuna.create_study(directions=["minimize"] * len(goals.objectives), sampler=sampler)

    def ask(self) -> list[Values]:
        """Draw the next batch."""
        count = min(self._batch, self._left)
        self._left -= count
        self._asked = [self._study.ask(self._distributions) for _ in range(count)]
        return [{key: _value(own, trial.params[key]) for key, own in self._domains.items()} for trial in self._asked]

    def tell(self, scores: Iterable[Score | None]) -> None:
        """Learn from what the batch gave."""
        for trial, score in zip(self._asked, scores, strict=True):
            if score is None or score.values is None:
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            trial.set_user_attr(_VIOLATIONS, list(score.violations))
            self._study.tell(trial, list(score.values))


def _violations(trial: FrozenTrial) -> Sequence[float]:
    violations: list[float] = trial.user_attrs[_VIOLATIONS]
    return violations


def _distribution(own: Domain) -> BaseDistribution:
    """Return what optuna draws: numbers of a range; places of its steps, or of the values of a list."""
    if not isinstance(own, Range):
        return CategoricalDistribution(range(len(own.levels)))
    if own.levels is not None:
        return IntDistribution(0, len(own.levels) - 1)
    return FloatDistribution(float(own.low), float(own.high), log=own.log)


def _value(own: Domain, drawn: Any) -> Any:
    return drawn if own.levels is None else own.levels[drawn]
