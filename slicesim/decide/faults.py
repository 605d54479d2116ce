"""What goes wrong in a strategy that a user wrote becomes one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slicesim.errors import UserError
from slicesim.policies.base import Strategy

_OWN_CODE = str(Path(__file__).parents[1])


@contextmanager
def faults_of(strategy: Strategy, method: str) -> Iterator[None]:
    """Turn a failure of the user's code into a UserError that names the method and the place; let others pass."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if strategy.is_shipped():
            raise
        frames = traceback.extract_tb(error.__traceback__)
        frame = next((f for f in reversed(frames) if not f.filename.startswith(_OWN_CODE)), frames[-1])
        place = f"{frame.filename}:{frame.lineno}"
        raise UserError(
            f"{type(strategy).__name__}.{method} failed at {place}: {type(error).__name__}: {error}"
        ) from None
