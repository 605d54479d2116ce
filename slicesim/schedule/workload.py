"""From a demand table to a list of operations and flash reads: bytes and MACs, still without device or clock.

A step is one decode token or one prompt. A step is a list of batches (dense layers, MoE layers, the LM head); a batch
is a list of operations in order of execution, and of flash reads: those in demand, in look-up order, then prefetches.
The first operation of a batch is attention and router; the batch's reads are issued when it ends (semantics, section 5,
rules 5 and 6).
Many operations are alike, so each one is the number of its kind in a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.decide.demand import SliceSizes
from slicesim.models import ModelGeometry, int8_bytes
from slicesim.schedule.products import (
    ATTENTION,
    DENSE,
    EXPERT_IN,
    EXPERT_OUT,
    HEAD,
    ROUTED_ATTENTION,
    ROUTED_EXPERT,
    SHARED,
)

IntArray = NDArray[np.int64]
SmallArray = NDArray[np.int32]

#: What an operation is for.
NON_EXPERT, EXPERT = 0, 1

#: ``read_op`` of a read that no operation of its batch waits for (a top-up, a prefetch).
NO_OP = -1

#: Priorities of reads: the lower number is served first.
DEMAND, PREFETCH = 0, 1


class OpKind(NamedTuple):
    """What one operation moves and computes.

    read_bytes, write_bytes: DRAM traffic; macs_int8, macs_msb, macs_full: MACs with INT8 weights, with the MSB object
    alone, with both slices; weights: expert weights dequantised; tokens: tokens at once; role: which matrices
    (``products.py``); pairs: of a token and a cached one that it attends to; inserts, inserted_bytes: work of the
    inference engine (SoftwareCosts): batches of reads put into the cache, and their bytes; recorded_ps: computing time
    that a demand trace recorded, instead of MACs. exchanged_bytes, link_bytes: of an exchange between devices, all
    links together, and over the busiest one; beside: 1 where another device does it meanwhile (``parallel.py``).
    """

    read_bytes: int
    write_bytes: int = 0
    macs_int8: int = 0
    macs_msb: int = 0
    macs_full: int = 0
    weights: int = 0
    tokens: int = 1
    cause: int = NON_EXPERT
    role: int = ATTENTION
    pairs: int = 0
    inserts: int = 0
    inserted_bytes: int = 0
    recorded_ps: int = 0
    exchanged_bytes: int = 0
    link_bytes: int = 0
    beside: int = 0


class OpKinds:
    """Kinds of operations, numbered in order of arrival; it only grows. ``columns``: fields of OpKind, int64 each."""

    def __init__(self) -> None:
        self.columns = OpKind(*(np.zeros(0, dtype=np.int64) for _ in OpKind._fields))  # type: ignore[arg-type]
        self._number: dict[OpKind, int] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.columns.read_bytes)  # type: ignore[arg-type]

    def extend(self, kinds: Any) -> None:
        """Add kinds at the end: an OpKind of columns."""
        self.columns = OpKind(*(np.concatenate(pair) for pair in zip(self.columns, kinds, strict=True)))  # type: ignore[arg-type]

    def numbers(self, kinds: list[OpKind]) -> list[int]:
        """Return the numbers of many kinds, those that are new added at once."""
        new = [kind for kind in dict.fromkeys(kinds) if kind not in self._number]
        self._number |= {kind: len(self) + place for place, kind in enumerate(new)}
        if new:
            self.extend(np.array(new, dtype=np.int64).T)
        return [self._number[kind] for kind in kinds]

    def number(self, kind: OpKind) -> int:
        """Return the number of a kind that is met again and again."""
        if kind not in self._number:
            self._number[kind] = len(self)
            self.extend(np.array([kind], dtype=np.int64).T)
        return self._number[kind]

    def table(self) -> KindTable:
        """Return the kinds as they are now."""
        return KindTable(self, self.columns)


@dataclass(frozen=True)
class KindTable:
    """Kinds at one moment: those of a workload do not change while more are added for the next one."""

    family: OpKinds
    columns: OpKind

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.columns.read_bytes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Workload:
    """Columns, flat, in order.

    step_batch [steps + 1], batch_op, batch_read, batch_claim [batches + 1], int64: where each one's part begins.
    batch_layer: model layer, -1 for the LM head and a top-up; op_kind: number in ``kinds``; op_expert: expert id, -1
    for others. read_op: the operation that waits for the read, or NO_OP; read_kind: flat index of ``read_sizes``, bytes
    of each kind of read [MoE layers, MSB and LSB, reads of a slice]; read_expert: id; read_priority: DEMAND, PREFETCH.
    A claim is an operation's wait for a read that was issued ahead of it: claim_op and the read's number counted over
    all workloads of the run (claim_read); ``first_read`` is the number of this workload's first read. moe_layers: model
    layer of each MoE layer that is replayed. visits: int64 [steps, 2], devices that the tokens' experts are on, and
    those of them away from the token's home, over all layers; none on one device.
    """

    kinds: KindTable
    read_sizes: IntArray
    moe_layers: IntArray
    first_read: int
    step_batch: IntArray
    batch_op: IntArray
    batch_read: IntArray
    batch_claim: IntArray
    batch_layer: IntArray
    op_kind: SmallArray
    op_expert: SmallArray
    read_op: SmallArray
    read_kind: SmallArray
    read_expert: SmallArray
    read_priority: NDArray[np.int8]
    claim_op: SmallArray
    claim_read: IntArray
    visits: IntArray | None = None

    @property
    def steps(self) -> int:
        """Tokens, or prompts."""
        return len(self.step_batch) - 1

    def step_op(self) -> IntArray:
        """Where each step's operations begin, [steps + 1]."""
        return self.batch_op[self.step_batch]

    def step_read(self) -> IntArray:
        """Where each step's reads begin, [steps + 1]."""
        return self.batch_read[self.step_batch]

    def step_of_op(self) -> IntArray:
        """Step of each operation."""
        return np.repeat(np.arange(self.steps), np.diff(self.step_op()))

    def step_of_read(self) -> IntArray:
        """Step of each read."""
        return np.repeat(np.arange(self.steps), np.diff(self.step_read()))

    def layer_of_op(self) -> IntArray:
        """Model layer of each operation."""
        return np.repeat(self.batch_layer, np.diff(self.batch_op))

    def slice_of_read(self) -> tuple[IntArray, IntArray]:
        """Model layer of each read, and 1 where it is of an LSB slice."""
        index, is_lsb = np.divmod(self.read_kind // self.read_sizes.shape[2], 2)
        return self.moe_layers[index], is_lsb.astype(np.int64)


@dataclass(frozen=True)
class Shapes:
    """What a model asks of the device, whatever the trace: geometry, slice sizes and the layers that are replayed."""

    model: ModelGeometry
    sizes: SliceSizes
    moe_layers: list[int]

    def attention(self, layer: int, context: int, tokens: int) -> OpKind:
        """Attention (and router, in a MoE layer) of ``tokens`` tokens at once, the last one at this context length.

        Decode: one token, which reads the KV cache. Prefill: the whole prompt, causal.
        """
        model = self.model
        routed = layer in self.moe_layers
        weights = model.attention_weights + (model.router_weights if routed else 0)
        kv = model.attention.kv_bytes_per_token()
        reach = model.attended_tokens(layer, context)
        pairs = reach
        if tokens > 1:
            pairs = sum(model.attended_tokens(layer, position + 1) for position in range(tokens))
        return OpKind(
            read_bytes=int8_bytes(weights) + reach * kv,
            write_bytes=tokens * kv,
            macs_int8=weights * tokens + pairs * model.attention.score_macs_per_token(),
            tokens=tokens,
            role=ROUTED_ATTENTION if routed else ATTENTION,
            pairs=pairs,
        )

    def decode_attention(self, layer: int, contexts: IntArray) -> OpKind:
        """Return the columns of one token's attention at each of these context lengths."""
        one, two = (self.attention(layer, length, 1) for length in (1, 2))  # the KV cache's part grows token by token
        reach = np.array([self.model.attended_tokens(layer, length) for length in contexts.tolist()])
        columns = zip(one, two, strict=True)
        return OpKind(*(first + (reach - 1) * (second - first) for first, second in columns))  # type: ignore[arg-type]

    def feed_forward(self, layer: int, tokens: int) -> OpKind | None:
        """Shared experts of a MoE layer, or the block of a dense one; None where there is nothing."""
        routed = layer in self.moe_layers
        weights = self.model.shared_weights if routed else self.model.dense_weights
        role = SHARED if routed else DENSE
        return OpKind(int8_bytes(weights), macs_int8=weights * tokens, tokens=tokens, role=role) if weights else None

    def expert(self, index: int, tokens: int, full_tokens: int, *, has_lsb: bool) -> OpKind:
        """One routed expert of MoE layer number ``index``, for ``tokens`` tokens, ``full_tokens`` of them full."""
        weights, sizes = self.model.expert_weights, self.sizes
        return OpKind(
            read_bytes=int(sizes.msb_bytes[index] + has_lsb * sizes.lsb_bytes[index]),
            macs_msb=weights * (tokens - full_tokens),
            macs_full=weights * full_tokens,
            weights=weights,
            tokens=tokens,
            cause=EXPERT,
            role=ROUTED_EXPERT,
        )

    def expert_matrices(self, index: int, tokens: int, full_tokens: int, *, has_lsb: bool) -> list[OpKind]:
        """The same expert matrix by matrix: gate, up, down. Bytes, MACs and weights add up to those of ``expert``."""
        matrices = self.model.expert_matrices
        whole = self.expert(index, tokens, full_tokens, has_lsb=has_lsb)
        msb, lsb = self.matrix_bytes()[index].tolist()
        weights = self.model.expert_weights // matrices
        return [
            whole._replace(
                read_bytes=msb[matrix] + has_lsb * lsb[matrix],
                macs_msb=weights * (tokens - full_tokens),
                macs_full=weights * full_tokens,
                weights=weights,
                role=EXPERT_OUT if matrix == matrices - 1 else EXPERT_IN,
            )
            for matrix in range(matrices)
        ]

    def head(self) -> OpKind:
        """The LM head, for one token."""
        return OpKind(int8_bytes(self.model.head_weights), macs_int8=self.model.head_weights, role=HEAD)

    def layers(self) -> list[int]:
        """Model layers that are replayed: dense ones, and the MoE layers that the trace covers."""
        return [n for n in range(self.model.layers) if n in self.moe_layers or n < self.model.dense_layers]

    def matrix_bytes(self) -> IntArray:
        """Bytes of each slice in each weight matrix of an expert, [MoE layers, MSB and LSB, matrices]."""
        matrices = self.model.expert_matrices
        size = np.stack((self.sizes.msb_bytes, self.sizes.lsb_bytes), axis=1)
        whole, rest = np.divmod(size[:, :, None], matrices)
        return np.asarray(whole + (np.arange(matrices) < rest), dtype=np.int64)
