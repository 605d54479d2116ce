"""Demand tables into workloads: decode tables in compiled code, prompts one by one."""

from __future__ import annotations

import numpy as np

from slicesim.compiled import jit
from slicesim.decide.demand import (
    DROPPED,
    LSB_AHEAD,
    LSB_FETCHED,
    LSB_HIT,
    MSB_AHEAD,
    MSB_FETCHED,
    SUBSTITUTED,
    DecodeDemand,
    Demand,
    PrefillDemand,
)
from slicesim.schedule.workload import DEMAND, NO_OP, PREFETCH, IntArray, OpKind, OpKinds, Shapes, Workload

#: ``op_expert`` of all other operations.
NO_EXPERT = -1

#: Context lengths whose attention is worked out at once.
CONTEXTS = 256


class Lowering:
    """Turns the demand tables of one run into workloads. The kinds of decode operations are shared by all tables."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.kinds = OpKinds()
        self.layers = shapes.layers()
        self.read_sizes = shapes.read_sizes()
        self.moe_layers = np.array(shapes.moe_layers, dtype=np.int64)
        feed_forward = [shapes.feed_forward(layer, 1) for layer in self.layers]
        self.feed_forward = np.array([NO_OP if kind is None else self.kinds.number(kind) for kind in feed_forward])
        self.moe_index = np.array([shapes.moe_layers.index(n) if n in shapes.moe_layers else -1 for n in self.layers])
        self.expert = self._expert_kinds()
        self.head = self.kinds.number(shapes.head())
        self.attention = np.zeros((len(self.layers), 1), dtype=np.int64)  # [layers, context]
        self.reads = 0  # of all workloads so far
        self.issued = np.full(2 * len(shapes.moe_layers) * shapes.model.experts, -1, dtype=np.int64)

    def __call__(self, demand: Demand) -> Workload:
        """Turn one demand table into operations and reads."""
        work = self._decode(demand) if isinstance(demand, DecodeDemand) else self._prefill(demand)
        self.reads += len(work.read_kind)
        return work

    def _expert_kinds(self) -> IntArray:
        """Kinds of one expert for one token: [MoE layers, runs full, fetched (1: MSB, 2: LSB), first fetched one]."""
        shape = (len(self.shapes.moe_layers), 2, 4, 2)
        numbers = np.empty(shape, dtype=np.int64)
        for index, full, fetched, first in np.ndindex(shape):
            kind = self.shapes.expert(index, 1, full, has_lsb=bool(full))
            size = self._fetched_bytes(index, bool(fetched & 1), bool(fetched & 2))
            numbers[index, full, fetched, first] = self.kinds.number(
                kind._replace(inserts=int(first and fetched > 0), inserted_bytes=size)
            )
        return numbers

    def _fetched_bytes(self, index: int, msb: bool, lsb: bool) -> int:
        """Bytes of the slices that are read for one expert."""
        sizes = self.shapes.sizes
        return int(msb * sizes.msb_bytes[index] + lsb * sizes.lsb_bytes[index])

    def _decode(self, demand: DecodeDemand) -> Workload:
        self._reach(int(demand.context.max()))
        tokens, _, top_k = demand.expert.shape
        batches, matrices = tokens * (len(self.layers) + 1), self.read_sizes.shape[2]
        slots = _count(demand.outcome.reshape(-1), demand.prefetched.reshape(-1))
        ops = tokens * (len(self.layers) + int((self.feed_forward != NO_OP).sum()) + 1) + int(slots[0])
        reads, claims = matrices * int(slots[1]), matrices * int(slots[2])
        work = Workload(
            self.kinds.table(),
            self.read_sizes,
            self.moe_layers,
            self.reads,
            step_batch=np.arange(tokens + 1, dtype=np.int64) * (len(self.layers) + 1),
            batch_op=np.zeros(batches + 1, dtype=np.int64),
            batch_read=np.zeros(batches + 1, dtype=np.int64),
            batch_claim=np.zeros(batches + 1, dtype=np.int64),
            batch_layer=np.tile([*self.layers, -1], tokens),
            op_kind=np.empty(ops, dtype=np.int32),
            op_expert=np.empty(ops, dtype=np.int32),
            read_op=np.empty(reads, dtype=np.int32),
            read_kind=np.empty(reads, dtype=np.int32),
            read_expert=np.empty(reads, dtype=np.int32),
            read_priority=np.empty(reads, dtype=np.int8),
            claim_op=np.empty(claims, dtype=np.int32),
            claim_read=np.empty(claims, dtype=np.int64),
        )
        _lower(
            demand.expert, demand.outcome, demand.served_gate, demand.context, demand.prefetched, self.moe_index,
            self.attention, self.feed_forward, self.expert, self.head, matrices, self.shapes.model.experts, self.reads,
            self.issued, np.zeros(top_k, dtype=np.int64), work.batch_op, work.batch_read, work.batch_claim,
            work.op_kind, work.op_expert, work.read_op, work.read_kind, work.read_expert, work.read_priority,
            work.claim_op, work.claim_read,
        )  # fmt: skip
        return work

    def _reach(self, context: int) -> None:
        """Add the kinds of attention up to a context length; layers that are alike share them."""
        known = self.attention.shape[1]
        if context < known:
            return
        longest = (context // CONTEXTS + 1) * CONTEXTS
        more = np.empty((len(self.layers), longest - known), dtype=np.int64)
        alike: dict[tuple[OpKind, OpKind], int] = {}
        for row, layer in enumerate(self.layers):
            ends = (self.shapes.attention(layer, 1, 1), self.shapes.attention(layer, longest, 1))
            if ends in alike:
                more[row] = more[alike[ends]]
                continue
            alike[ends] = row
            more[row] = len(self.kinds) + np.arange(longest - known)
            self.kinds.extend(self.shapes.decode_attention(layer, np.arange(known, longest)))
        self.attention = np.concatenate((self.attention, more), axis=1)

    def _prefill(self, demand: PrefillDemand) -> Workload:
        """One step: the prompt's layers, the top-up's reads, and the LM head for the last token."""
        prompt, shapes = demand.prompt_tokens, self.shapes
        ops: list[OpKind] = []
        experts: list[int] = []
        reads: list[tuple[int, int, int, int]] = []  # operation, MoE layer index, expert, is LSB
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
                inserts = 1
                for row in sorted(rows, key=lambda row: outcome[row] & (MSB_FETCHED | LSB_FETCHED) != 0):
                    has_lsb = outcome[row] & (LSB_HIT | LSB_FETCHED) != 0
                    kind = shapes.expert(index, tokens[row], full[row], has_lsb=has_lsb)
                    size = self._fetched_bytes(index, *(outcome[row] & bit != 0 for bit in (MSB_FETCHED, LSB_FETCHED)))
                    if size:
                        kind = kind._replace(inserts=inserts, inserted_bytes=size)
                        inserts = 0
                    op_of_row[row] = add(kind, expert[row])
                for row in rows:
                    wanted = ((MSB_FETCHED, 0), (LSB_FETCHED, 1))
                    reads += [(op_of_row[row], index, expert[row], lsb) for bit, lsb in wanted if outcome[row] & bit]
            end_batch()
        topup = (demand.topup_layer, demand.topup_expert, demand.topup_is_lsb)
        for index, number, is_lsb in zip(*(column.tolist() for column in topup), strict=True):
            reads.append((NO_OP, index, number, int(is_lsb)))
        end_batch()
        add(shapes.head())
        end_batch()
        kinds = OpKinds()
        kinds.extend(np.array(ops, dtype=np.int64).T)
        matrices = self.read_sizes.shape[2]
        read_op, read_index, read_expert, is_lsb_of_read = np.array(reads, dtype=np.int32).reshape(-1, 4).T
        first = (2 * read_index + is_lsb_of_read) * matrices
        batches = len(batch_op) - 1
        return Workload(
            kinds.table(),
            self.read_sizes,
            self.moe_layers,
            self.reads,
            step_batch=np.array([0, batches], dtype=np.int64),
            batch_op=np.array(batch_op, dtype=np.int64),
            batch_read=np.array(batch_read, dtype=np.int64) * matrices,
            batch_claim=np.zeros(batches + 1, dtype=np.int64),
            batch_layer=np.array([*self.layers, -1, -1], dtype=np.int64),
            op_kind=np.arange(len(ops), dtype=np.int32),
            op_expert=np.array(experts, dtype=np.int32),
            read_op=np.repeat(read_op, matrices),
            read_kind=(first[:, None] + np.arange(matrices, dtype=np.int32)).reshape(-1),
            read_expert=np.repeat(read_expert, matrices),
            read_priority=np.full(len(reads) * matrices, DEMAND, dtype=np.int8),
            claim_op=np.zeros(0, dtype=np.int32),
            claim_read=np.zeros(0, dtype=np.int64),
        )


@jit
def _count(outcome, prefetched):
    """Return how many experts run, slices are read, and prefetched slices are claimed."""
    ops = reads = claims = 0
    for what in outcome:
        ops += what & DROPPED == 0
        reads += (what & MSB_FETCHED != 0) + (what & LSB_FETCHED != 0)
        claims += (what & MSB_AHEAD != 0) + (what & LSB_AHEAD != 0)
    for entry in prefetched:
        reads += entry >= 0
    return ops, reads, claims


@jit
def _lower(
    expert, outcome, served_gate, context, prefetched, moe_index, attention, feed_forward, expert_kind, head,
    matrices, experts, first_read, issued, rank, batch_op, batch_read, batch_claim, op_kind, op_expert, read_op,
    read_kind, read_expert, read_priority, claim_op, claim_read,
):  # fmt: skip
    """Write the operations, reads and claims of decode tokens.

    issued [slices]: number of the first read of each slice's last prefetch; rank: scratch [top_k].
    """
    tokens, _, top_k = expert.shape
    op = read = batch = claim = 0
    late = MSB_FETCHED | LSB_FETCHED | MSB_AHEAD | LSB_AHEAD
    for token in range(tokens):
        for layer in range(len(moe_index)):
            batch_op[batch], batch_read[batch], batch_claim[batch] = op, read, claim
            batch += 1
            op_kind[op], op_expert[op] = attention[layer, context[token]], NO_EXPERT
            op += 1
            if feed_forward[layer] != NO_OP:
                op_kind[op], op_expert[op] = feed_forward[layer], NO_EXPERT
                op += 1
            index = moe_index[layer]
            if index < 0:
                continue
            first, what = op, 0
            for slot in range(top_k):
                rank[slot] = slot
                what |= outcome[token, index, slot]
            if what & SUBSTITUTED:  # a substitute may stand out of the falling gate order
                for slot in range(1, top_k):
                    place = slot
                    while place > 0 and served_gate[token, index, rank[place - 1]] < served_gate[token, index, slot]:
                        rank[place] = rank[place - 1]
                        place -= 1
                    rank[place] = slot
            fetched_before, some_wait = 0, what & late != 0
            for waits in range(2 if some_wait else 1):  # those with nothing to wait for go first
                for place in range(top_k):
                    what = outcome[token, index, rank[place]]
                    if what & DROPPED or (what & late != 0) != waits:
                        continue
                    full = 1 if what & (LSB_HIT | LSB_FETCHED) else 0
                    fetched = (1 if what & MSB_FETCHED else 0) + (2 if what & LSB_FETCHED else 0)
                    opens = 1 if fetched > 0 and fetched_before == 0 else 0
                    fetched_before += fetched
                    op_kind[op] = expert_kind[index, full, fetched, opens]
                    op_expert[op] = expert[token, index, rank[place]]
                    op += 1
            for slot in range(top_k if some_wait else 0):
                what = outcome[token, index, slot]
                if what & late == 0:
                    continue
                number = expert[token, index, slot]
                waiting = first
                while op_expert[waiting] != number:
                    waiting += 1
                for is_lsb in range(2):
                    if what & (LSB_FETCHED if is_lsb else MSB_FETCHED):
                        for matrix in range(matrices):
                            read_op[read], read_expert[read], read_priority[read] = waiting, number, DEMAND
                            read_kind[read] = (2 * index + is_lsb) * matrices + matrix
                            read += 1
                    elif what & (LSB_AHEAD if is_lsb else MSB_AHEAD):
                        for matrix in range(matrices):
                            claim_op[claim] = waiting
                            claim_read[claim] = issued[2 * (experts * index + number) + is_lsb] + matrix
                            claim += 1
            for entry in prefetched[token, index]:
                if entry < 0:
                    break
                issued[entry] = first_read + read
                for matrix in range(matrices):
                    read_op[read], read_priority[read] = NO_OP, PREFETCH
                    read_expert[read] = entry // 2 % experts
                    read_kind[read] = (2 * (entry // 2 // experts) + entry % 2) * matrices + matrix
                    read += 1
        batch_op[batch], batch_read[batch], batch_claim[batch] = op, read, claim
        batch += 1
        op_kind[op], op_expert[op] = head, NO_EXPERT
        op += 1
    batch_op[batch], batch_read[batch], batch_claim[batch] = op, read, claim
