"""Policies: small strategies (routing, precision, eviction, fetch, prefetch, warm-up, constraint) and their presets."""

from slicesim.policies.compose import Policy, build_policy, load_preset, presets
from slicesim.policies.constraint import Constraint
from slicesim.policies.eviction import Eviction
from slicesim.policies.fetch import Fetch
from slicesim.policies.matching import ActivationMatching
from slicesim.policies.precision import Precision
from slicesim.policies.prediction import Adaptive, CoActivation, Path, Popularity
from slicesim.policies.prefetch import Prefetch, ReadAhead
from slicesim.policies.routing import Routing
from slicesim.policies.slices import LSB, MSB, SliceState
from slicesim.policies.warmup import Warmup

__all__ = [
    "LSB",
    "MSB",
    "ActivationMatching",
    "Adaptive",
    "CoActivation",
    "Constraint",
    "Eviction",
    "Fetch",
    "Path",
    "Policy",
    "Popularity",
    "Precision",
    "Prefetch",
    "ReadAhead",
    "Routing",
    "SliceState",
    "Warmup",
    "build_policy",
    "load_preset",
    "presets",
]
