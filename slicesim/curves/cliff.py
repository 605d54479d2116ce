"""The LRU cliff: the cache size below which a global LRU hits nothing in decode (semantics, section 4)."""

from __future__ import annotations

from slicesim.decide import Request
from slicesim.policies.constraint import NoConstraint
from slicesim.policies.eviction import Dbsc, Lru
from slicesim.policies.routing import Stock
from slicesim.policies.warmup import Empty, LastLayer, NoWarmup


def cliff_bytes(request: Request) -> int | None:
    """Return the smallest cache in which a slice can survive until the next token, or None where there is no cliff.

    Between two uses of an expert lie top_k other ones in every other layer, so (layers - 1) x top_k + 1 objects must
    fit; where layers differ in size, those of the layer with the largest ones. LSB slices, which leave earlier, do
    not count. DBSC keeps its MSB slices by LRU, and has the same cliff. Where the hand-over chooses by hotness, the
    first tokens can hit; where requests are denied or rerouted, any token can.
    """
    policy, msb = request.policy, request.sizes.msb_bytes
    by_recency = type(policy.eviction) in (Lru, Dbsc) and type(policy.warmup) in (LastLayer, NoWarmup, Empty)
    as_recorded = type(policy.routing) is Stock and type(policy.constraint) is NoConstraint
    if not by_recency or not as_recorded or request.per_layer:
        return None
    top_k = request.trace.header.top_k
    return int(top_k * msb.sum() - (top_k - 1) * msb.max())
