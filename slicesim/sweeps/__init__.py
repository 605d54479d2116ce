"""Sweeps: many scenarios from one file, run on all cores, resumable, collected in one table.

The room is not called ``sweep``: that name is the function ``slicesim.sweep``.
"""

from slicesim.sweeps.run import Outcome, prepare_sweep, sweep

__all__ = ["Outcome", "prepare_sweep", "sweep"]
