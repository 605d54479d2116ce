"""Demand tables into workloads: decode tables in compiled code, prompts one by one."""

from __future__ import annotations

import numpy as np

from slicesim.compiled import jit
from slicesim.decide.demand import (
    DROPPED,
    LSB_FETCHED,
    LSB_HIT,
    MSB_FETCHED,
    DecodeDemand,
    Demand,
    PrefillDemand,
    has,
)
from slicesim.schedule.workload import NO_OP, OpKind, OpKinds, Shapes, Workload


class Lowering:
    """Turns the demand tables of one run into workloads. The kinds of decode operations are shared by all tables."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.kinds = OpKinds()
        self.layers = shapes.layers()
        self.read_sizes = shapes.read_sizes()
        feed_forward = [shapes.feed_forward(layer, 1) for layer in self.layers]
        self.feed_forward = np.array([NO_OP if kind is None else self.kinds.number(kind) for kind in feed_forward])
        self.moe_index = np.array([shapes.moe_layers.index(n) if n in shapes.moe_layers else -1 for n in self.layers])
        self.expert = np.array(
            [
                [self.kinds.number(shapes.expert(index, 1, int(full), has_lsb=full)) for full in (False, True)]
                for index in range(len(shapes.moe_layers))
            ]
        )
        self.head = self.kinds.number(shapes.head())
        self.attention = np.zeros((len(self.layers), 1), dtype=np.int64)  # [layers, context]

    def __call__(self, demand: Demand) -> Workload:
        """Turn one demand table into operations and reads."""
        return self._decode(demand) if isinstance(demand, DecodeDemand) else self._prefill(demand)

    def _decode(self, demand: DecodeDemand) -> Workload:
        self._reach(int(demand.context.max()))
        tokens, _, top_k = demand.expert.shape
        batches, matrices = tokens * (len(self.layers) + 1), self.read_sizes.shape[2]
        ops = tokens * (len(self.layers) + int((self.feed_forward != NO_OP).sum()) + 1)
        ops += demand.outcome.size - int(has(demand.outcome, DROPPED).sum())
        reads = matrices * sum(int(has(demand.outcome, bit).sum()) for bit in (MSB_FETCHED, LSB_FETCHED))
        work = Workload(
            self.kinds,
            self.read_sizes.reshape(-1),
            step_batch=np.arange(tokens + 1, dtype=np.int64) * (len(self.layers) + 1),
            batch_op=np.zeros(batches + 1, dtype=np.int64),
            batch_read=np.zeros(batches + 1, dtype=np.int64),
            batch_layer=np.tile([*self.layers, -1], tokens),
            op_kind=np.empty(ops, dtype=np.int64),
            op_expert=np.full(ops, -1, dtype=np.int64),
            read_op=np.empty(reads, dtype=np.int64),
            read_kind=np.empty(reads, dtype=np.int64),
            read_is_lsb=np.empty(reads, dtype=np.int64),
        )
        _lower(
            demand.expert, demand.outcome, demand.served_gate, demand.context, self.moe_index, self.attention,
            self.feed_forward, self.expert, self.head, matrices, np.zeros(top_k, dtype=np.int64),
            work.batch_op, work.batch_read, work.op_kind, work.op_expert, work.read_op, work.read_kind,
            work.read_is_lsb,
        )  # fmt: skip
        return work

    def _reach(self, context: int) -> None:
        """Add the kinds of attention up to a context length; layers that are alike share them."""
        known = self.attention.shape[1]
        if context < known:
            return
        longest = max(context + 1, 2 * known)
        more = np.empty((len(self.layers), longest - known), dtype=np.int64)
        alike: dict[tuple[OpKind, OpKind], int] = {}
        for row, layer in enumerate(self.layers):
            ends = (self.shapes.attention(layer, 1, 1), self.shapes.attention(layer, longest, 1))
            if ends in alike:
                more[row] = more[alike[ends]]
                continue
            alike[ends] = row
            more[row] = len(self.kinds) + np.arange(longest - known)
            self.kinds.extend([self.shapes.attention(layer, length, 1) for length in range(known, longest)])
        self.attention = np.concatenate((self.attention, more), axis=1)

    def _prefill(self, demand: PrefillDemand) -> Workload:
        """One step: the prompt's layers, the top-up's reads, and the LM head for the last token."""
        prompt, shapes = demand.prompt_tokens, self.shapes
        ops: list[OpKind] = []
        experts: list[int] = []
        reads: list[tuple[int, int, int]] = []  # operation, MoE layer index, is LSB
        batch_op, batch_read = [0], [0]

        def add(op: OpKind, expert: int = -1) -> int:
            ops.append(op)
            experts.append(expert)
            return len(ops) - 1

        def end_batch() -> None:
            batch_op.append(len(ops))
            batch_read.append(len(reads))

        first_row = np.searchsorted(demand.layer, np.arange(len(shapes.moe_layers) + 1)).tolist()
        expert, tokens, full = (column.tolist() for column in (demand.expert, demand.tokens, demand.full_tokens))
        outcome = demand.outcome.tolist()
        for layer, index in zip(self.layers, self.moe_index.tolist(), strict=True):
            add(shapes.attention(layer, prompt, prompt))
            feed_forward = shapes.feed_forward(layer, prompt)
            if feed_forward is not None:
                add(feed_forward)
            if index >= 0:
                rows = range(first_row[index], first_row[index + 1])
                op_of_row = {}
                for row in sorted(rows, key=lambda row: outcome[row] & (MSB_FETCHED | LSB_FETCHED) != 0):
                    has_lsb = outcome[row] & (LSB_HIT | LSB_FETCHED) != 0
                    op_of_row[row] = add(shapes.expert(index, tokens[row], full[row], has_lsb=has_lsb), expert[row])
                for row in rows:
                    wanted = ((MSB_FETCHED, 0), (LSB_FETCHED, 1))
                    reads += [(op_of_row[row], index, is_lsb) for bit, is_lsb in wanted if outcome[row] & bit]
            end_batch()
        for index, is_lsb in zip(demand.topup_layer.tolist(), demand.topup_is_lsb.tolist(), strict=True):
            reads.append((NO_OP, index, int(is_lsb)))
        end_batch()
        add(shapes.head())
        end_batch()
        kinds = OpKinds()
        kinds.extend(ops)
        matrices = self.read_sizes.shape[2]
        read_op, index_of_read, is_lsb_of_read = np.array(reads, dtype=np.int64).reshape(-1, 3).T
        first = (2 * index_of_read + is_lsb_of_read) * matrices
        return Workload(
            kinds,
            self.read_sizes.reshape(-1),
            step_batch=np.array([0, len(batch_op) - 1], dtype=np.int64),
            batch_op=np.array(batch_op, dtype=np.int64),
            batch_read=np.array(batch_read, dtype=np.int64) * matrices,
            batch_layer=np.array([*self.layers, -1, -1], dtype=np.int64),
            op_kind=np.arange(len(ops), dtype=np.int64),
            op_expert=np.array(experts, dtype=np.int64),
            read_op=np.repeat(read_op, matrices),
            read_kind=(first[:, None] + np.arange(matrices)).reshape(-1),
            read_is_lsb=np.repeat(is_lsb_of_read, matrices),
        )


@jit
def _lower(  # type: ignore[no-untyped-def]  # noqa: ANN202, PLR0913
    expert, outcome, served_gate, context, moe_index, attention, feed_forward, expert_kind, head, matrices, rank,
    batch_op, batch_read, op_kind, op_expert, read_op, read_kind, read_is_lsb,
):  # fmt: skip  # noqa: ANN001
    """Write the operations and reads of decode tokens; rank: scratch [top_k]."""
    tokens, _, top_k = expert.shape
    op = read = batch = 0
    for token in range(tokens):
        for layer in range(len(moe_index)):
            batch_op[batch], batch_read[batch] = op, read
            batch += 1
            op_kind[op] = attention[layer, context[token]]
            op += 1
            if feed_forward[layer] != NO_OP:
                op_kind[op] = feed_forward[layer]
                op += 1
            index = moe_index[layer]
            if index < 0:
                continue
            for slot in range(top_k):  # in falling gate order; a substitute may stand out of it
                place = slot
                while place > 0 and served_gate[token, index, rank[place - 1]] < served_gate[token, index, slot]:
                    rank[place] = rank[place - 1]
                    place -= 1
                rank[place] = slot
            first = op
            for with_fetch in (False, True):  # those with nothing to fetch go first
                for place in range(top_k):
                    what = outcome[token, index, rank[place]]
                    if what & DROPPED or (what & (MSB_FETCHED | LSB_FETCHED) != 0) != with_fetch:
                        continue
                    full = 1 if what & (LSB_HIT | LSB_FETCHED) else 0
                    op_kind[op], op_expert[op] = expert_kind[index, full], expert[token, index, rank[place]]
                    op += 1
            for slot in range(top_k):
                what = outcome[token, index, slot]
                if what & (MSB_FETCHED | LSB_FETCHED) == 0:
                    continue
                waiting = first
                while op_expert[waiting] != expert[token, index, slot]:
                    waiting += 1
                for is_lsb in range(2):
                    if what & (LSB_FETCHED if is_lsb else MSB_FETCHED):
                        for matrix in range(matrices):
                            read_op[read], read_is_lsb[read] = waiting, is_lsb
                            read_kind[read] = (2 * index + is_lsb) * matrices + matrix
                            read += 1
        batch_op[batch], batch_read[batch] = op, read
        batch += 1
        op_kind[op] = head
        op += 1
    batch_op[batch], batch_read[batch] = op, read


