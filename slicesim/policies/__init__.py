"""Policies: small strategies (routing, precision, eviction, fetch, prefetch, warm-up, constraint) and their presets."""

from slicesim.policies.compose import Policy, build_policy, load_preset, presets
from slicesim.policies.constraint import Constraint
from slicesim.policies.eviction import Eviction
from slicesim.policies.fetch import Fetch
from slicesim.policies.precision import Precision
from slicesim.policies.prefetch import Prefetch
from slicesim.policies.routing import Routing
from slicesim.policies.slices import LSB, MSB, SliceState
from slicesim.policies.warmup import Warmup

__all__ = [
    "LSB",
    "MSB",
    "Constraint",
    "Eviction",
    "Fetch",
    "Policy",
    "Precision",
    "Prefetch",
    "Routing",
    "SliceState",
    "Warmup",
    "build_policy",
    "load_preset",
    "presets",
]
