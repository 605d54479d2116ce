"""The decision plane: what is routed, at which precision, what hits, what is fetched, what is evicted. No clock."""

from slicesim.decide.decide import decide
from slicesim.decide.demand import DecodeDemand, Demand, PrefillDemand, SliceSizes
from slicesim.decide.plane import Request

__all__ = ["DecodeDemand", "Demand", "PrefillDemand", "Request", "SliceSizes", "decide"]
