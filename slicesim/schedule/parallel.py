"""A workload on several devices: exchanges before and after the experts, which run side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from slicesim.decide.visits import Visits
from slicesim.policies.slices import IntArray
from slicesim.schedule.workload import EXPERT, OpKind, Workload

#: Bytes of one element of an activation (FP16).
ACTIVATION_BYTES = 2


class Parallel:
    """Gives each MoE layer of a workload its dispatch and its combine, and leaves one device's experts on the clock.

    device: where each expert is, int64 [MoE layers, experts]; hidden: elements of a token between layers.
    """

    def __init__(self, device: IntArray, hidden: int) -> None:
        self.device = device
        self.token_bytes = hidden * ACTIVATION_BYTES

    def __call__(self, work: Workload, visits: Visits) -> Workload:
        """Return the workload for several devices. Every expert is resident, so it has no reads."""
        if len(work.read_kind):
            raise ValueError("experts on several devices are all resident: nothing can be read from flash")
        batch_of_op = np.repeat(np.arange(len(work.batch_layer)), np.diff(work.batch_op))
        kind, is_expert = self._beside(work, batch_of_op)
        starts, ends, exchange = self._exchanges(work, visits, batch_of_op[is_expert], np.flatnonzero(is_expert))
        at = np.concatenate((starts, ends))
        order = np.argsort(at, kind="stable")
        added = np.concatenate((exchange, exchange))[order]
        before = np.searchsorted(at[order], work.batch_op, side="left")
        # A combine stands at the end of its batch, so it comes before the batch that begins there.
        before += np.isin(work.batch_op, ends)
        seen = np.stack((visits.devices.sum(axis=1), visits.remote.sum(axis=1)), axis=1)
        return replace(
            work,
            kinds=work.kinds.family.table(),
            op_kind=np.insert(kind, at[order], added).astype(np.int32),
            op_expert=np.insert(work.op_expert, at[order], -1).astype(np.int32),
            batch_op=work.batch_op + before,
            visits=seen,
        )

    def _beside(self, work: Workload, batch_of_op: IntArray) -> tuple[IntArray, Any]:
        """Return the kind of each operation, those beside the busiest device marked, and which ones are experts."""
        columns: Any = work.kinds.columns
        is_expert = columns.cause[work.op_kind] == EXPERT
        batch, expert = batch_of_op[is_expert], work.op_expert[is_expert]
        own = self.device[np.searchsorted(work.moe_layers, work.batch_layer[batch]), expert]
        load = np.zeros((len(work.batch_layer), int(self.device.max()) + 1), dtype=np.int64)
        np.add.at(load, (batch, own), columns.tokens[work.op_kind[is_expert]])
        beside = own != load.argmax(axis=1)[batch]
        kind = work.op_kind.astype(np.int64)
        places = np.flatnonzero(is_expert)[beside]
        kinds, where = np.unique(kind[places], return_inverse=True)
        marked = [OpKind(*(int(column[number]) for column in columns))._replace(beside=1) for number in kinds.tolist()]
        kind[places] = np.array(work.kinds.family.numbers(marked), dtype=np.int64)[where]
        return kind, is_expert

    def _exchanges(
        self, work: Workload, visits: Visits, batch: IntArray, place: IntArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Return where dispatches and combines go, and their kind; none where no token leaves its home.

        batch, place: of each expert operation.
        """
        batches, first = np.unique(batch, return_index=True)
        layer = np.searchsorted(work.moe_layers, work.batch_layer[batches])
        step = np.searchsorted(work.step_batch, batches, side="right") - 1
        remote, busiest = visits.remote[step, layer], visits.busiest[step, layer]
        leaves = remote > 0
        sizes = self.token_bytes * np.stack((remote, busiest), axis=1)[leaves]
        kinds = [
            OpKind(0, cause=EXPERT, exchanged_bytes=all_links, link_bytes=one) for all_links, one in sizes.tolist()
        ]
        numbers = np.array(work.kinds.family.numbers(kinds), dtype=np.int64)
        return place[first[leaves]], work.batch_op[batches[leaves] + 1], numbers
