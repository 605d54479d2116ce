"""What is drawn of one demand table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.decide import DecodeDemand, Demand
from slicesim.schedule import Plan, Timeline

IntArray = NDArray[np.int64]


class Part(NamedTuple):
    """A demand table with its plan and timeline; its first ``steps`` steps are shown."""

    demand: Demand
    plan: Plan
    timeline: Timeline
    steps: int

    @property
    def phase(self) -> str:
        """``decode`` or ``prefill``."""
        return "decode" if isinstance(self.demand, DecodeDemand) else "prefill"

    @property
    def ops(self) -> int:
        """How many operations are shown."""
        return int(self.plan.workload.step_op()[self.steps])

    @property
    def reads(self) -> int:
        """How many flash reads are shown."""
        return int(self.plan.workload.step_read()[self.steps])

    def step_names(self) -> list[str]:
        """Return what each step is called."""
        demand = self.demand
        if isinstance(demand, DecodeDemand):
            pairs = zip(demand.request.tolist(), demand.token.tolist(), strict=True)
            return [f"request {request} token {token}" for request, token in pairs]
        return [f"request {demand.request} prefill ({demand.prompt_tokens} tokens)"]

    def read_bytes(self) -> IntArray:
        """Return the bytes of each flash read that is shown."""
        work = self.plan.workload
        return np.asarray(work.read_sizes.reshape(-1)[work.read_kind[: self.reads]])

    def op_bytes(self) -> IntArray:
        """Return the bytes that each operation shown moves over the DRAM pipe."""
        work = self.plan.workload
        kinds: Any = work.kinds.columns
        return np.asarray((kinds.read_bytes + kinds.write_bytes)[work.op_kind[: self.ops]])

    def is_exchange(self) -> NDArray[np.bool_]:
        """Return which of the operations shown are exchanges between devices."""
        return np.asarray(self.plan.ops.exchange_ps[self.plan.workload.op_kind[: self.ops]] > 0)

    def is_beside(self) -> NDArray[np.bool_]:
        """Return which of the operations shown another device does meanwhile, on its own DRAM."""
        kinds: Any = self.plan.workload.kinds.columns
        return np.asarray(kinds.beside[self.plan.workload.op_kind[: self.ops]] > 0)
