"""How sure a mean is: bootstrap intervals over the requests of a run.

Tokens of one request depend on each other (they share a prompt and a cache), requests much less so: whole requests are
drawn again, with replacement, and each figure is worked out anew as a sum over a sum. Bias-corrected and accelerated
percentiles (BCa): B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987), 171-185. That the requests at hand
stand for others is the only thing assumed; a simulated figure's error against a real phone is another matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slicesim.hardware.units import PS_PER_S

LEVEL = 0.95
DRAWS = 4000
SEED = 0
#: Numbers held at once while requests are drawn.
_AT_ONCE = 1 << 22


class Ratio(NamedTuple):
    """A figure: sums of columns over sums of columns, times a factor."""

    above: tuple[str, ...]
    below: tuple[str, ...]
    factor: float = 1.0


#: Column that counts rows: decode tokens, or prompts.
STEPS = "steps"

_LOOKUPS = ("msb_misses", "lsb_misses", "msb_hits", "lsb_hits")
_EACH_TIER = ("total", "flash", "dram", "sram", "npu", "background", "expert")
_ENERGY = {name: (f"{name}_energy_pj",) for name in _EACH_TIER}
_MASSES = {"expected_rel_mse": "error_mass"} | {
    f"{name}_mass": f"{name}_mass" for name in ("high", "low", "substituted", "dropped")
}


def _ratios(tokens: str) -> dict[tuple[str, ...], Ratio]:
    return {
        ("tokens_per_s",): Ratio((tokens,), ("latency_ps",), PS_PER_S),
        **{("energy_pj_per_token", name): Ratio(column, (tokens,)) for name, column in _ENERGY.items()},
        ("miss_rate", "slices"): Ratio(_LOOKUPS[:2], _LOOKUPS),
        ("miss_rate", "msb"): Ratio(("msb_misses",), ("msb_misses", "msb_hits")),
        ("miss_rate", "lsb"): Ratio(("lsb_misses",), ("lsb_misses", "lsb_hits")),
        ("miss_rate", "bytes"): Ratio(("missed_bytes",), ("lookup_bytes",)),
        ("flash_bytes_per_token",): Ratio(("flash_read_bytes",), (tokens,)),
        **{("quality", name): Ratio((column,), ("total_mass",)) for name, column in _MASSES.items()},
    }


#: By phase: a figure's path in the summary, and what it is. The flash bytes of a token are the tables' own figure.
RATIOS: Mapping[str, Mapping[tuple[str, ...], Ratio]] = {
    "prefill": {("ttft_ps", "mean"): Ratio(("latency_ps",), (STEPS,)), **_ratios("prompt_tokens")},
    "decode": {("latency_ps", "mean"): Ratio(("latency_ps",), (STEPS,)), **_ratios(STEPS)},
}

#: Columns of ``tokens.parquet`` that the figures are made of.
COLUMNS = tuple(
    dict.fromkeys(
        name for ratios in RATIOS.values() for one in ratios.values() for name in one.above + one.below if name != STEPS
    )
)

Interval = tuple[float, float]


class Intervals(NamedTuple):
    """requests: how many were drawn from, by phase; of: (phase, path) -> low and high end; none for one request."""

    requests: Mapping[str, int]
    of: Mapping[tuple[str, ...], Interval]

    def get(self, *path: str) -> Interval | None:
        """Return the interval of a figure, where it has one."""
        return self.of.get(path)


def sum_by_request(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Add up rows. frames: columns phase, request and COLUMNS; returns one row per phase and request, with STEPS."""
    parts = [
        frame.assign(**{STEPS: 1}).groupby(["phase", "request"], sort=False, observed=True)[[STEPS, *COLUMNS]].sum()
        for frame in frames
    ]
    return pd.concat(parts).groupby(level=[0, 1], sort=False).sum()


def intervals(sums: pd.DataFrame) -> Intervals:
    """Work out the interval of every figure. sums: of ``sum_by_request``."""
    found: dict[tuple[str, ...], Interval] = {}
    requests = {}
    for phase, ratios in RATIOS.items():
        own = sums[sums.index.get_level_values("phase") == phase]
        requests[phase] = len(own)
        if len(own) < 2:
            continue
        above = np.stack([own[list(one.above)].sum(axis=1).to_numpy(float) for one in ratios.values()], axis=1)
        below = np.stack([own[list(one.below)].sum(axis=1).to_numpy(float) for one in ratios.values()], axis=1)
        for (path, ratio), ends in zip(ratios.items(), bootstrap_ratios(above, below), strict=True):
            if ends is not None:
                found[(phase, *path)] = (ends[0] * ratio.factor, ends[1] * ratio.factor)
    return Intervals(requests, found)


def bootstrap_ratios(
    above: NDArray[np.float64], below: NDArray[np.float64], level: float = LEVEL, draws: int = DRAWS, seed: int = SEED
) -> list[Interval | None]:
    """Return the BCa interval of sum(above) / sum(below) for each column; None where the ratio does not exist.

    above, below: [requests, figures], at least two requests. The same requests are drawn for all figures.
    """
    count = len(above)
    rng = np.random.default_rng(seed)
    parts = []
    step = max(1, _AT_ONCE // count)
    for start in range(0, draws, step):
        times = rng.multinomial(count, np.full(count, 1 / count), size=min(step, draws - start)).astype(float)
        parts.append(_ratio(times @ above, times @ below))
    drawn = np.concatenate(parts)
    own = _ratio(above.sum(axis=0), below.sum(axis=0))
    without = _ratio(above.sum(axis=0) - above, below.sum(axis=0) - below)
    return [_bca(own[place], drawn[:, place], without[:, place], level) for place in range(above.shape[1])]


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _bca(own: float, drawn: NDArray[np.float64], without: NDArray[np.float64], level: float) -> Interval | None:
    """Efron's interval. drawn: the figure of each draw; without: the figure with one request left out."""
    if np.isnan(own):
        return None
    drawn, without = drawn[~np.isnan(drawn)], without[~np.isnan(without)]
    if np.ptp(drawn) <= 1e-12 * abs(own):  # all requests agree
        return float(own), float(own)
    tails = ((1 - level) / 2, (1 + level) / 2)
    below = ((drawn < own).mean() + (drawn <= own).mean()) / 2
    if 0 < below < 1:
        normal = NormalDist()
        shift = normal.inv_cdf(float(below))
        far = without.mean() - without
        spread = (far**2).sum() ** 1.5
        acceleration = (far**3).sum() / (6 * spread) if spread > 0 else 0.0
        scores = [shift + normal.inv_cdf(tail) for tail in tails]
        if all(acceleration * score < 1 for score in scores):
            low_tail, high_tail = (normal.cdf(shift + score / (1 - acceleration * score)) for score in scores)
            tails = (low_tail, high_tail)
    low, high = np.quantile(drawn, tails)
    return float(low), float(high)
