"""Demand tables into workloads: decode tables in compiled code, prompts one by one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

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
from slicesim.scenario.schema import Schedule
from slicesim.schedule.pieces import Pieces
from slicesim.schedule.workload import DEMAND, NO_OP, PREFETCH, IntArray, OpKind, OpKinds, Shapes, Workload

#: ``op_expert`` of all other operations.
NO_EXPERT = -1

#: Context lengths whose attention is worked out at once.
CONTEXTS = 256


#: Keys of the schedule that change what is asked of a device, not only when.
LOWERING_KEYS = ("pipeline", "prefill", "read_kib")


class Group(NamedTuple):
    """Flash reads of one slice in a prompt that one operation waits for (NO_OP: none does).

    slice_kind: 2 x index of the MoE layer, + 1 for an LSB; first, stop: which of the slice's reads.
    """

    op: int
    slice_kind: int
    expert: int
    first: int
    stop: int


class Lowering:
    """Turns the demand tables of one run into workloads. The kinds of decode operations are shared by all tables.

    schedule: how experts and reads are cut, and when a prompt's reads go out.
    """

    def __init__(self, shapes: Shapes, schedule: Schedule | None = None) -> None:
        schedule = schedule or Schedule()
        longest = None if schedule.read_kib is None else round(schedule.read_kib * 1024)
        self.pieces = Pieces.of(shapes.matrix_bytes(), by_matrix=schedule.pipeline == "matrix", longest_bytes=longest)
        self.streams_prefill = schedule.prefill == "stream"
        self.shapes = shapes
        self.kinds = OpKinds()
        self.layers = shapes.layers()
        self.read_sizes = self.pieces.sizes
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
        """Kinds of one expert's parts for one token.

        [MoE layers, runs full, fetched (1: MSB, 2: LSB), first fetched one, parts]
        """
        shape = (len(self.shapes.moe_layers), 2, 4, 2)
        numbers = np.empty((*shape, self.pieces.parts), dtype=np.int64)
        for index, full, fetched, first in np.ndindex(shape):
            kinds = self._expert(index, 1, full, bool(full), (bool(fetched & 1), bool(fetched & 2)), first)
            numbers[index, full, fetched, first] = [self.kinds.number(kind) for kind in kinds]
        return numbers

    def _expert(
        self, index: int, tokens: int, full_tokens: int, has_lsb: bool, fetched: tuple[bool, bool], first: int
    ) -> list[OpKind]:
        """Return the operations of one expert. fetched: its MSB, its LSB; first: 1 for a batch's first fetched one."""
        if self.pieces.by_matrix:
            kinds = self.shapes.expert_matrices(index, tokens, full_tokens, has_lsb=has_lsb)
        else:
            kinds = [self.shapes.expert(index, tokens, full_tokens, has_lsb=has_lsb)]
        moved = (np.array(fetched) @ self.pieces.part_bytes(index)).tolist()
        inserts = [int(first and any(fetched)), *[0] * (len(kinds) - 1)]
        return [
            kind._replace(inserts=count, inserted_bytes=size)
            for kind, count, size in zip(kinds, inserts, moved, strict=True)
        ]

    def _decode(self, demand: DecodeDemand) -> Workload:
        self._reach(int(demand.context.max()))
        tokens, _, top_k = demand.expert.shape
        batches, pieces = tokens * (len(self.layers) + 1), self.pieces
        running, reads, claims = _count(
            demand.outcome, demand.prefetched.reshape(-1), self.shapes.model.experts, pieces.starts[:, -1]
        )
        ops = tokens * (len(self.layers) + int((self.feed_forward != NO_OP).sum()) + 1) + pieces.parts * int(running)
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
            self.attention, self.feed_forward, self.expert, self.head, pieces.starts, pieces.most,
            self.shapes.model.experts, self.reads,
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
        groups: list[list[Group]] = []  # by MoE layer
        batch_op = [0]
        first_row = np.searchsorted(demand.layer, np.arange(len(shapes.moe_layers) + 1)).tolist()
        expert, tokens, full = (column.tolist() for column in (demand.expert, demand.tokens, demand.full_tokens))
        outcome = demand.outcome.tolist()
        for layer, index in zip(self.layers, self.moe_index.tolist(), strict=True):
            feed_forward = shapes.feed_forward(layer, prompt)
            own = [shapes.attention(layer, prompt, prompt), *([] if feed_forward is None else [feed_forward])]
            ops += own
            experts += [NO_EXPERT] * len(own)
            if index >= 0:
                rows = range(first_row[index], first_row[index + 1])
                op_of_row = {}
                first = 1
                for row in sorted(rows, key=lambda row: outcome[row] & (MSB_FETCHED | LSB_FETCHED) != 0):
                    has_lsb = outcome[row] & (LSB_HIT | LSB_FETCHED) != 0
                    fetched = (outcome[row] & MSB_FETCHED != 0, outcome[row] & LSB_FETCHED != 0)
                    op_of_row[row] = len(ops)
                    ops += self._expert(index, tokens[row], full[row], has_lsb, fetched, first)
                    experts += [expert[row]] * self.pieces.parts
                    first = 0 if any(fetched) else first
                groups.append([])
                for row in rows:
                    groups[-1] += self._groups(index, expert[row], outcome[row], op_of_row[row])
            batch_op.append(len(ops))
        topup = (demand.topup_layer, demand.topup_expert, demand.topup_is_lsb)
        last_reads = [
            Group(NO_OP, kind, number, 0, int(self.pieces.starts[kind, -1]))
            for kind, number in ((2 * i + lsb, e) for i, e, lsb in zip(*(c.tolist() for c in topup), strict=True))
        ]
        ops.append(shapes.head())
        experts.append(NO_EXPERT)
        batch_op += [len(ops) - 1, len(ops)]
        kinds = OpKinds()
        kinds.extend(np.array(ops, dtype=np.int64).T)
        return Workload(
            kinds.table(),
            self.read_sizes,
            self.moe_layers,
            self.reads,
            step_batch=np.array([0, len(batch_op) - 1], dtype=np.int64),
            batch_op=np.array(batch_op, dtype=np.int64),
            batch_layer=np.array([*self.layers, -1, -1], dtype=np.int64),
            op_kind=np.arange(len(ops), dtype=np.int32),
            op_expert=np.array(experts, dtype=np.int32),
            **self._prompt_reads(groups, last_reads),
        )

    def _groups(self, index: int, expert: int, outcome: int, op: int) -> list[Group]:
        """Return the reads of one expert of a prompt, part by part, an MSB before its LSB."""
        kinds = [2 * index + lsb for bit, lsb in ((MSB_FETCHED, 0), (LSB_FETCHED, 1)) if outcome & bit]
        starts = {kind: self.pieces.starts[kind].tolist() for kind in kinds}
        bounds = {kind: list(pairwise(starts[kind])) for kind in kinds}
        return [
            Group(op + part, kind, expert, *bounds[kind][part]) for part in range(self.pieces.parts) for kind in kinds
        ]

    def _prompt_reads(self, groups: list[list[Group]], topup: list[Group]) -> dict[str, Any]:
        """Return the columns of a prompt's reads and claims.

        groups: of each MoE layer. Streamed, those of all layers but the first go out with the layer before, and are
        claimed by the experts of their own.
        """
        reads: list[Group] = []
        priority: list[int] = []
        claims: list[tuple[int, int]] = []  # operation, number of a group
        batch_read, batch_claim = [0], [0]
        own_number = 0  # of the first group of this layer, where it was read ahead
        for index in self.moe_index.tolist():
            if index >= 0:
                own = groups[index]
                if self.streams_prefill and index > 0:
                    claims += [(group.op, own_number + place) for place, group in enumerate(own)]
                else:
                    reads += own
                    priority += [DEMAND] * len(own)
                if self.streams_prefill and index + 1 < len(groups):
                    own_number = len(reads)
                    reads += [group._replace(op=NO_OP) for group in groups[index + 1]]
                    priority += [PREFETCH] * len(groups[index + 1])
            batch_read.append(len(reads))
            batch_claim.append(len(claims))
        reads += topup
        priority += [DEMAND] * len(topup)
        batch_read += [len(reads)] * 2
        batch_claim += [len(claims)] * 2
        op, kind, expert, first, stop = np.array(reads, dtype=np.int64).reshape(-1, 5).T
        starts = np.concatenate(([0], np.cumsum(stop - first)))
        claim_op, claimed = np.array(claims, dtype=np.int64).reshape(-1, 2).T
        claim_length = (stop - first)[claimed]
        return {
            "batch_read": starts[batch_read],
            "batch_claim": np.concatenate(([0], np.cumsum(claim_length)))[batch_claim],
            "read_op": np.repeat(op, stop - first).astype(np.int32),
            "read_kind": (np.repeat(kind * self.pieces.most + first, stop - first) + _count_up(stop - first)).astype(
                np.int32
            ),
            "read_expert": np.repeat(expert, stop - first).astype(np.int32),
            "read_priority": np.repeat(np.array(priority, dtype=np.int8), stop - first),
            "claim_op": np.repeat(claim_op, claim_length).astype(np.int32),
            "claim_read": self.reads + np.repeat(starts[claimed], claim_length) + _count_up(claim_length),
        }


def _count_up(lengths: IntArray) -> IntArray:
    """Count from 0 within each of these runs."""
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)


@jit
def _count(outcome, prefetched, experts, reads_of):
    """Return how many experts run, how many reads there are, and how many of those ahead are claimed.

    outcome: [tokens, layers, top_k]; reads_of: reads of each slice [2 * layers].
    """
    running = reads = claims = 0
    for token in range(outcome.shape[0]):
        for index in range(outcome.shape[1]):
            for slot in range(outcome.shape[2]):
                what = outcome[token, index, slot]
                running += what & DROPPED == 0
                msb, lsb = reads_of[2 * index], reads_of[2 * index + 1]
                reads += (msb if what & MSB_FETCHED else 0) + (lsb if what & LSB_FETCHED else 0)
                claims += (msb if what & MSB_AHEAD else 0) + (lsb if what & LSB_AHEAD else 0)
    for entry in prefetched:
        if entry >= 0:
            reads += reads_of[2 * (entry // 2 // experts) + entry % 2]
    return running, reads, claims


@jit
def _lower(
    expert, outcome, served_gate, context, prefetched, moe_index, attention, feed_forward, expert_kind, head,
    starts, most, experts, first_read, issued, rank, batch_op, batch_read, batch_claim, op_kind, op_expert, read_op,
    read_kind, read_expert, read_priority, claim_op, claim_read,
):  # fmt: skip
    """Write the operations, reads and claims of decode tokens.

    starts, most: of Pieces; issued [slices]: number of the first read of each slice's last prefetch; rank: scratch
    [top_k].
    """
    tokens, _, top_k = expert.shape
    op = read = batch = claim = 0
    parts = starts.shape[1] - 1
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
                    for part in range(parts):
                        op_kind[op] = expert_kind[index, full, fetched, opens, part]
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
                for part in range(parts):
                    for is_lsb in range(2):
                        kind = 2 * index + is_lsb
                        if what & (LSB_FETCHED if is_lsb else MSB_FETCHED):
                            for piece in range(starts[kind, part], starts[kind, part + 1]):
                                read_op[read], read_expert[read], read_priority[read] = waiting + part, number, DEMAND
                                read_kind[read] = kind * most + piece
                                read += 1
                        elif what & (LSB_AHEAD if is_lsb else MSB_AHEAD):
                            for piece in range(starts[kind, part], starts[kind, part + 1]):
                                claim_op[claim] = waiting + part
                                claim_read[claim] = issued[2 * (experts * index + number) + is_lsb] + piece
                                claim += 1
            for entry in prefetched[token, index]:
                if entry < 0:
                    break
                issued[entry] = first_read + read
                kind = 2 * (entry // 2 // experts) + entry % 2
                for piece in range(starts[kind, parts]):
                    read_op[read], read_priority[read] = NO_OP, PREFETCH
                    read_expert[read] = entry // 2 % experts
                    read_kind[read] = kind * most + piece
                    read += 1
        batch_op[batch], batch_read[batch], batch_claim[batch] = op, read, claim
        batch += 1
        op_kind[op], op_expert[op] = head, NO_EXPERT
        op += 1
    batch_op[batch], batch_read[batch], batch_claim[batch] = op, read, claim
