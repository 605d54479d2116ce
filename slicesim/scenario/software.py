"""What the inference engine costs beside the hardware: the ``software`` section of a scenario."""

from __future__ import annotations

from pydantic import Field

from slicesim.scenario.coefficient import NotNegative, Positive
from slicesim.scenario.section import Section


class Software(Section):
    """What the inference engine costs the processor beside computing; left out: nothing.

    An engine that keeps experts commits pages, takes the page faults of the copy, and gives the pages of what it evicts
    back: so much for each batch of reads (a layer that misses), and so much for each byte.
    """

    insert_latency_us: NotNegative = Field(description="once for each layer that reads into the cache")
    insert_bandwidth_gbs: Positive = Field(description="rate at which missed bytes are put into the cache")
