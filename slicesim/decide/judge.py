"""Ask a precision strategy, and check what it answers: it may be a user's."""

from __future__ import annotations

import numpy as np

from slicesim.decide.faults import faults_of
from slicesim.errors import UserError
from slicesim.policies import Precision
from slicesim.policies.precision import Asked
from slicesim.policies.slices import BoolArray


def critical(precision: Precision, asked: Asked) -> BoolArray:
    """Return which experts request their LSB too, shaped as ``asked.ids``. Raises UserError for a faulty strategy."""
    with faults_of(precision, "critical"):
        answer = precision.critical(asked)
    return _checked(precision, "critical", answer, asked)


def skipped(precision: Precision, asked: Asked) -> BoolArray:
    """Return which experts are not run, shaped as ``asked.ids``. Raises UserError for a faulty strategy."""
    with faults_of(precision, "skipped"):
        answer = precision.skipped(asked)
    return _checked(precision, "skipped", answer, asked)


def _checked(precision: Precision, method: str, answer: object, asked: Asked) -> BoolArray:
    if not isinstance(answer, np.ndarray) or answer.dtype != np.bool_ or answer.shape != asked.ids.shape:
        raise UserError(f"{type(precision).__name__}.{method} must return an array of booleans shaped as asked.ids")
    return answer
