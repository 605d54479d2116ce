"""The decision plane: what is routed, at which precision, what hits, what is fetched, what is evicted. No clock."""

from slicesim.decide.decide import Request, decide
from slicesim.decide.demand import DecodeDemand, Demand, PrefillDemand, SliceSizes

__all__ = ["DecodeDemand", "Demand", "PrefillDemand", "Request", "SliceSizes", "decide"]
