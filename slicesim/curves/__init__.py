"""Miss-ratio curves: miss rates and flash bytes over cache sizes, in one pass for LRU, by replays for the rest."""

from slicesim.curves.cliff import cliff_bytes
from slicesim.curves.curve import Counts, Curve
from slicesim.curves.one_pass import lru_curve, why_not_one_pass
from slicesim.curves.replay import replayed_curve
from slicesim.curves.study import Study, miss_rate_curves

__all__ = [
    "Counts",
    "Curve",
    "Study",
    "cliff_bytes",
    "lru_curve",
    "miss_rate_curves",
    "replayed_curve",
    "why_not_one_pass",
]
