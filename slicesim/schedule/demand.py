"""Demand traces into workloads: recorded bytes become operations and reads, without a decision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from slicesim.decide.demand import SliceSizes
from slicesim.models import ModelGeometry, int8_bytes
from slicesim.schedule.products import ROUTED_EXPERT
from slicesim.schedule.workload import DEMAND, EXPERT, NO_OP, IntArray, OpKind, OpKinds, Shapes, Workload
from slicesim.trace.demand import DemandTrace

#: Tokens lowered at a time; enough for every array to be worth its overhead.
TOKENS_PER_TABLE = 256


class Read(NamedTuple):
    """One flash read: the operation of its batch that waits for it, its kind, the missed expert that it is part of."""

    op: int
    kind: int
    expert: int


def spread(amount: int, places: int) -> list[int]:
    """Divide a whole amount evenly over places, in order: the parts differ by at most 1 and add up."""
    ends = [amount * (place + 1) // places for place in range(places)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


class DemandLowering:
    """Spreads each token's reads and hits evenly over the MoE layers (semantics, section 10).

    A token that read F bytes issues ceil(F / read size) reads, the last one with what is left. A layer is attention and
    router, shared experts, the hits, then its missed experts, each of ``reads_per_expert`` reads. Where
    the trace was recorded with a cache, the engine puts a missed expert into it before it is computed.
    A recorded computing time is shared out over the token's operations by their bytes.
    """

    def __init__(self, trace: DemandTrace, model: ModelGeometry) -> None:
        self.trace, self.model = trace, model
        self.header = trace.header
        none = np.zeros(len(model.moe_layers), dtype=np.int64)
        self.shapes = Shapes(model, SliceSizes(none, none, 8, 0), list(model.moe_layers))
        self.kinds = OpKinds()
        self.layers = self.shapes.layers()
        self.read_sizes, self.read_layer, self.rest_kind = self._read_kinds()
        self.non_expert_scale = self._non_expert_scale()
        self.reads = 0

    def workloads(self) -> Iterator[tuple[range, Workload]]:
        """Yield the tokens (places in the trace) of each table with their operations and reads."""
        for start in range(0, len(self.trace), TOKENS_PER_TABLE):
            tokens = range(start, min(start + TOKENS_PER_TABLE, len(self.trace)))
            table = _Table()
            for place in tokens:
                self._token(table, place)
            yield tokens, self._workload(table)

    def _read_kinds(self) -> tuple[IntArray, IntArray, dict[tuple[int, int], int]]:
        """Sizes [kinds, MSB and LSB, 1], the model layer of each, and the kind of a rest by (layer, size).

        Kinds come in pairs (MSB, LSB), the LSB unused; the first ones are whole reads, one for each layer.
        """
        moe, size = list(self.model.moe_layers), self.header.read_bytes
        rests: dict[tuple[int, int], int] = {}
        for total in self.trace.flash_read_bytes.tolist():
            if total % size:
                reads = spread(-(-total // size), len(moe))
                last = max(place for place, count in enumerate(reads) if count)
                rests.setdefault((moe[last], total % size), 2 * (len(moe) + len(rests)))
        sizes = np.zeros((len(moe) + len(rests), 2, 1), dtype=np.int64)
        sizes[:, 0, 0] = [size] * len(moe) + [rest for _, rest in rests]
        return sizes, np.array(moe + [layer for layer, _ in rests], dtype=np.int64), rests

    def _non_expert_scale(self) -> tuple[int, int]:
        """Numerator and denominator of what non-expert weights really weigh over the model's INT8 bytes."""
        model = self.model
        moe = len(self.shapes.moe_layers)
        weights = [model.attention_weights] * model.layers + [model.head_weights]
        weights += [model.router_weights] * moe + [model.shared_weights] * moe
        weights += [model.dense_weights] * model.dense_layers
        whole = sum(int8_bytes(count) for count in weights)
        return self.header.non_expert_bytes or whole, whole

    def _token(self, table: _Table, place: int) -> None:
        trace, header = self.trace, self.header
        moe = self.shapes.moe_layers
        flash, size = int(trace.flash_read_bytes[place]), header.read_bytes
        counts = dict(zip(moe, spread(-(-flash // size), len(moe)), strict=True))
        hits = dict(zip(moe, spread(int(trace.hit_bytes[place]), len(moe)), strict=True))
        last = max((layer for layer in moe if counts[layer]), default=-1)
        first_op = len(table.ops)
        for layer in self.layers:
            context = header.context + place + 1
            cached = self.model.attended_tokens(layer, context) * self.model.attention.kv_bytes_per_token()
            table.ops.append(self._non_expert(self.shapes.attention(layer, context, 1), cached))
            feed_forward = self.shapes.feed_forward(layer, 1)
            if feed_forward is not None:
                table.ops.append(self._non_expert(feed_forward))
            table.ops += [self._expert(part) for part in _parts(hits.get(layer, 0), header.expert_size)]
            rest = flash % size if layer == last else 0
            self._missed(table, layer, counts.get(layer, 0), rest)
            table.end_batch(layer)
        table.ops.append(self._non_expert(self.shapes.head()))
        table.end_batch(-1)
        if trace.compute_ps is not None:
            table.ops[first_op:] = _recorded(table.ops[first_op:], int(trace.compute_ps[place]))
        table.step_batch.append(len(table.batch_op) - 1)

    def _missed(self, table: _Table, layer: int, reads: int, rest: int) -> None:
        """Missed experts of one layer: their reads, their way into the cache, their work."""
        header = self.header
        index = self.shapes.moe_layers.index(layer) if reads else 0
        kinds = [2 * index] * (reads - 1 if rest else reads) + ([self.rest_kind[layer, rest]] if rest else [])
        flat = self.read_sizes.reshape(-1)
        for expert, start in enumerate(range(0, reads, header.reads_per_expert)):
            own = kinds[start : start + header.reads_per_expert]
            moved = int(flat[own].sum())
            waiting = len(table.ops)
            table.reads += [Read(waiting, kind, expert) for kind in own]
            kind = self._expert(min(moved, header.expert_size))
            if header.kept and self.trace.compute_ps is None:  # a recorded time holds it already
                kind = kind._replace(inserts=int(expert == 0), inserted_bytes=moved)
            table.ops.append(kind)

    def _non_expert(self, kind: OpKind, cached_bytes: int = 0) -> OpKind:
        """Weigh non-expert weights as the trace says; what is read of the KV cache stays as it is."""
        real, whole = self.non_expert_scale
        weights = kind.read_bytes - cached_bytes
        return kind._replace(read_bytes=-(-weights * real // whole) + cached_bytes)

    def _expert(self, size: int) -> OpKind:
        """Bytes of routed experts; MACs in proportion, on INT8 (a demand trace knows no bit slices)."""
        macs = self.model.expert_weights * size // self.header.expert_size
        return OpKind(size, macs_int8=macs, weights=macs, cause=EXPERT, role=ROUTED_EXPERT)

    def _workload(self, table: _Table) -> Workload:
        first, self.reads = self.reads, self.reads + len(table.reads)
        op, kind, expert = np.array(table.reads, dtype=np.int32).reshape(-1, 3).T
        batches = len(table.batch_op) - 1
        op_kind = np.array(self.kinds.numbers(table.ops), dtype=np.int32)
        return Workload(
            self.kinds.table(),
            self.read_sizes,
            self.read_layer,
            first,
            step_batch=np.array(table.step_batch, dtype=np.int64),
            batch_op=np.array(table.batch_op, dtype=np.int64),
            batch_read=np.array(table.batch_read, dtype=np.int64),
            batch_claim=np.zeros(batches + 1, dtype=np.int64),
            batch_layer=np.array(table.batch_layer, dtype=np.int64),
            op_kind=op_kind,
            op_expert=np.full(len(table.ops), NO_OP, dtype=np.int32),
            read_op=op,
            read_kind=kind,
            read_expert=expert,
            read_priority=np.full(len(table.reads), DEMAND, dtype=np.int8),
            claim_op=np.zeros(0, dtype=np.int32),
            claim_read=np.zeros(0, dtype=np.int64),
        )


@dataclass
class _Table:
    """Columns that grow, token by token."""

    ops: list[OpKind] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    step_batch: list[int] = field(default_factory=lambda: [0])
    batch_op: list[int] = field(default_factory=lambda: [0])
    batch_read: list[int] = field(default_factory=lambda: [0])
    batch_layer: list[int] = field(default_factory=list)

    def end_batch(self, layer: int) -> None:
        """Close the batch of a layer."""
        self.batch_op.append(len(self.ops))
        self.batch_read.append(len(self.reads))
        self.batch_layer.append(layer)


def _parts(size: int, whole: int) -> list[int]:
    """Cut bytes into experts; the last one may be a part of one."""
    return [whole] * (size // whole) + ([size % whole] if size % whole else [])


def _recorded(ops: list[OpKind], compute_ps: int) -> list[OpKind]:
    """Put a recorded time in the place of MACs, shared out by bytes, so that it adds up."""
    sizes = np.cumsum([op.read_bytes + op.write_bytes for op in ops]).tolist()
    ends = [compute_ps * size // max(1, sizes[-1]) for size in sizes]
    shares = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return [op._replace(macs_int8=0, recorded_ps=share) for op, share in zip(ops, shares, strict=True)]
