"""Conversions between the units of the YAML and those of the model: picoseconds, bytes, picojoules."""

from __future__ import annotations

from slicesim.scenario.coefficient import Coefficient

PS_PER_S = 10**12


def bytes_per_second(gbs: float) -> int:
    """Decimal gigabytes per second to bytes per second."""
    return max(1, round(gbs * 1e9))


def duration_ps(amount: int, per_second: int) -> int:
    """Whole picoseconds, rounded up, at least 1; in Python integers, since bytes x 1e12 overflows int64."""
    return max(1, -(-int(amount) * PS_PER_S // per_second))


def mw_to_pj(power_mw: float, elapsed_ps: float) -> float:
    """Milliwatts over picoseconds: 1 mW is 1e-3 pJ per ps."""
    return power_mw * elapsed_ps * 1e-3


def value_or_zero(coefficient: Coefficient | None) -> float:
    """An absent coefficient is part of the NPU's all-in figure."""
    return 0.0 if coefficient is None else coefficient.value
