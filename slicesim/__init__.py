"""slicesim: cycle-approximate simulation of Mixture-of-Experts inference from flash on a phone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from slicesim.errors import UserError
from slicesim.version import __version__

if TYPE_CHECKING:
    from slicesim.result import Result
    from slicesim.scenario import Scenario
    from slicesim.simulation import compare, simulate
    from slicesim.sweeps import sweep
    from slicesim.trace import load_trace

__all__ = ["Result", "Scenario", "UserError", "__version__", "compare", "load_trace", "simulate", "sweep"]

#: Loaded on first use, so that ``import slicesim`` costs nothing.
_HOME = {
    "Result": "slicesim.result",
    "Scenario": "slicesim.scenario",
    "compare": "slicesim.simulation",
    "load_trace": "slicesim.trace",
    "simulate": "slicesim.simulation",
    "sweep": "slicesim.sweeps",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'slicesim' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
