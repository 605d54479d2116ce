"""From a demand table to a list of operations and flash reads: bytes and MACs, still without device or clock.

A step is one decode token or one prompt. A step is a list of batches (dense layers, MoE layers, the LM head); a batch
is a list of operations in order of execution, and of flash reads in look-up order. The first operation of a batch is
attention and router; the batch's reads are issued when it ends (semantics, section 5, rules 5 and 6).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.decide.demand import (
    DROPPED,
    LSB_FETCHED,
    LSB_HIT,
    MSB_FETCHED,
    DecodeDemand,
    Demand,
    PrefillDemand,
    SliceSizes,
    has,
)
from slicesim.models import ModelGeometry, int8_bytes

IntArray = NDArray[np.int64]

#: What an operation or read is for.
NON_EXPERT, EXPERT = 0, 1

#: ``read_op`` of a read that no operation waits for (a top-up).
NO_OP = -1


@dataclass(frozen=True)
class Workload:
    """Columns of int64, flat, in order.

    step_batch [steps + 1], batch_op [batches + 1], batch_read [batches + 1]: where each one's part begins.
    op_cause: NON_EXPERT or EXPERT; op_layer: model layer, -1 for the LM head; op_expert: expert id, -1 for others;
    op_read_bytes, op_write_bytes: DRAM traffic; op_macs_int8, op_macs_msb, op_macs_full: MACs with INT8 weights, with
    the MSB object alone, with both slices; op_weights: expert weights dequantised; op_tokens: tokens at once.
    read_op: the operation that waits for the read, or NO_OP; read_bytes: size; read_is_lsb: 0 or 1.
    """

    step_batch: IntArray
    batch_op: IntArray
    batch_read: IntArray
    op_cause: IntArray
    op_layer: IntArray
    op_expert: IntArray
    op_read_bytes: IntArray
    op_write_bytes: IntArray
    op_macs_int8: IntArray
    op_macs_msb: IntArray
    op_macs_full: IntArray
    op_weights: IntArray
    op_tokens: IntArray
    read_op: IntArray
    read_bytes: IntArray
    read_is_lsb: IntArray

    @property
    def steps(self) -> int:
        """Tokens, or prompts."""
        return len(self.step_batch) - 1

    def step_of_op(self) -> IntArray:
        """Step of each operation."""
        return np.repeat(np.arange(self.steps), np.diff(self.batch_op[self.step_batch]))

    def step_of_read(self) -> IntArray:
        """Step of each read."""
        return np.repeat(np.arange(self.steps), np.diff(self.batch_read[self.step_batch]))


@dataclass(frozen=True)
class Shapes:
    """What a model asks of the device, whatever the trace: geometry, slice sizes and the layers that are replayed."""

    model: ModelGeometry
    sizes: SliceSizes
    moe_layers: list[int]

    def attention(self, layer: int, contexts: IntArray, tokens: int) -> dict[str, IntArray]:
        """Attention (and router, in a MoE layer) of ``tokens`` tokens at once, for each context length.

        Decode: one token, which reads the KV cache. Prefill: the whole prompt, causal.
        """
        model = self.model
        weights = model.attention_weights + (model.router_weights if layer in self.moe_layers else 0)
        kv = model.attention.kv_bytes_per_token()
        reach = np.array([model.attended_tokens(layer, int(c)) for c in contexts], dtype=np.int64)
        pairs = reach
        if tokens > 1:
            rows = [model.attended_tokens(layer, position + 1) for position in range(tokens)]
            pairs = np.full(len(contexts), sum(rows), dtype=np.int64)
        return {
            "read_bytes": int8_bytes(weights) + reach * kv,
            "write_bytes": np.full(len(contexts), tokens * kv, dtype=np.int64),
            "macs_int8": weights * tokens + pairs * model.attention.score_macs_per_token(),
        }

    def matrix_bytes(self, slice_bytes: IntArray) -> IntArray:
        """Bytes of each flash read of a slice, [len(slice_bytes), matrices]: one read per weight matrix."""
        matrices = self.model.expert_matrices
        whole, rest = np.divmod(np.asarray(slice_bytes, dtype=np.int64), matrices)
        return np.asarray(whole[:, None] + (np.arange(matrices)[None, :] < rest[:, None]))


def build_workload(demand: Demand, shapes: Shapes) -> Workload:
    """Turn one demand table into operations and reads."""
    if isinstance(demand, DecodeDemand):
        return _decode(demand, shapes)
    return _prefill(demand, shapes)


#: What an operation is unless it says otherwise: the LM head, of one token.
_DEFAULT = {"layer": -1, "expert": -1, "tokens": 1}
_OP_COLUMNS = [f.name.removeprefix("op_") for f in fields(Workload) if f.name.startswith("op_")]


def _decode(demand: DecodeDemand, shapes: Shapes) -> Workload:
    """All tokens have the same operations, but for experts that were dropped: build [tokens, ops] and mask."""
    model, sizes = shapes.model, shapes.sizes
    tokens, _, top_k = demand.expert.shape
    contexts, which = np.unique(demand.context, return_inverse=True)
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _OP_COLUMNS}
    batch_of_op: list[int] = []
    masks: list[NDArray[np.bool_]] = []
    expert_op_start: list[int] = []
    ones = np.ones((tokens, 1), dtype=np.int64)

    def add(batch: int, values: dict[str, Any], mask: NDArray[np.bool_] | None = None) -> None:
        width = 1 if mask is None else mask.shape[1]
        for name in _OP_COLUMNS:
            value = np.asarray(values.get(name, _DEFAULT.get(name, 0)), dtype=np.int64)
            columns[name].append(np.broadcast_to(value, (tokens, width)))
        masks.append(ones.astype(np.bool_) if mask is None else mask)
        batch_of_op.extend([batch] * width)

    def add_fixed(batch: int, layer: int) -> None:
        attention = shapes.attention(layer, contexts, 1)
        add(batch, {"layer": layer, **{name: value[which][:, None] for name, value in attention.items()}})
        ffn = model.shared_weights if layer in shapes.moe_layers else model.dense_weights
        if ffn:
            add(batch, {"layer": layer, "read_bytes": int8_bytes(ffn), "macs_int8": ffn})

    rank = np.argsort(-demand.served_gate, axis=2, kind="stable")
    fetched = has(demand.outcome, MSB_FETCHED, LSB_FETCHED)
    order = np.take_along_axis(rank, np.argsort(np.take_along_axis(fetched, rank, 2), axis=2, kind="stable"), 2)
    outcome = np.take_along_axis(demand.outcome, order, axis=2)
    expert = np.take_along_axis(demand.expert, order, axis=2)
    full = has(outcome, LSB_HIT, LSB_FETCHED)
    batches = 0
    moe_batch: list[int] = []
    for layer in range(model.layers):
        if layer in shapes.moe_layers:
            index = shapes.moe_layers.index(layer)
            add_fixed(batches, layer)
            expert_op_start.append(len(batch_of_op))
            moe_batch.append(batches)
            runs_full, weights = full[:, index], model.expert_weights
            add(
                batches,
                {
                    "cause": EXPERT,
                    "layer": layer,
                    "expert": expert[:, index],
                    "read_bytes": sizes.msb_bytes[index] + runs_full * sizes.lsb_bytes[index],
                    "macs_msb": weights * ~runs_full,
                    "macs_full": weights * runs_full,
                    "weights": weights,
                },
                mask=~has(outcome[:, index], DROPPED),
            )
            batches += 1
        elif layer < model.dense_layers:
            add_fixed(batches, layer)
            batches += 1
    add(batches, {"read_bytes": int8_bytes(model.head_weights), "macs_int8": model.head_weights})
    batches += 1

    mask = np.concatenate(masks, axis=1)
    flat = {name: np.concatenate(parts, axis=1)[mask] for name, parts in columns.items()}
    op_index = np.cumsum(mask.reshape(-1)).reshape(mask.shape) - 1
    global_batch = (np.arange(tokens)[:, None] * batches + np.array(batch_of_op)[None, :])[mask]

    place = np.empty_like(order)  # where a look-up slot stands in the order of execution
    np.put_along_axis(place, order, np.broadcast_to(np.arange(top_k), order.shape), axis=2)
    wanted = np.stack((has(demand.outcome, MSB_FETCHED), has(demand.outcome, LSB_FETCHED)), axis=3)
    token, layer_index, slot, kind = np.nonzero(wanted)
    waiting = op_index[token, np.array(expert_op_start)[layer_index] + place[token, layer_index, slot]]
    size = np.where(kind == 0, sizes.msb_bytes[layer_index], sizes.lsb_bytes[layer_index])
    reads = shapes.matrix_bytes(size)
    read_batch = np.repeat(token * batches + np.array(moe_batch)[layer_index], reads.shape[1])
    return Workload(
        step_batch=np.arange(tokens + 1, dtype=np.int64) * batches,
        batch_op=_starts(global_batch, tokens * batches),
        batch_read=_starts(read_batch, tokens * batches),
        read_op=np.repeat(waiting, reads.shape[1]),
        read_bytes=reads.reshape(-1),
        read_is_lsb=np.repeat(kind, reads.shape[1]).astype(np.int64),
        **{f"op_{name}": flat[name] for name in _OP_COLUMNS},
    )


def _prefill(demand: PrefillDemand, shapes: Shapes) -> Workload:
    """One step: the prompt's layers, the top-up's reads, and the LM head for the last token."""
    model, sizes = shapes.model, shapes.sizes
    prompt = demand.prompt_tokens
    context = np.array([prompt], dtype=np.int64)
    ops: list[dict[str, int]] = []
    reads: list[tuple[int, int, int]] = []  # operation, bytes, is LSB
    batch_op, batch_read = [0], [0]

    def end_batch() -> None:
        batch_op.append(len(ops))
        batch_read.append(len(reads))

    def read_slice(op: int, size: int, is_lsb: int) -> None:
        reads.extend((op, part, is_lsb) for part in shapes.matrix_bytes(np.array([size]))[0].tolist())

    for layer in range(model.layers):
        is_moe = layer in shapes.moe_layers
        if not is_moe and layer >= model.dense_layers:
            continue
        attention = {name: int(value[0]) for name, value in shapes.attention(layer, context, prompt).items()}
        ops.append({"layer": layer, "tokens": prompt, **attention})
        ffn = model.shared_weights if is_moe else model.dense_weights
        if ffn:
            ops.append({"layer": layer, "tokens": prompt, "read_bytes": int8_bytes(ffn), "macs_int8": ffn * prompt})
        if is_moe:
            index = shapes.moe_layers.index(layer)
            rows = np.flatnonzero(demand.layer == index)
            fetched = has(demand.outcome[rows], MSB_FETCHED, LSB_FETCHED)
            op_of_row = {}
            for row in rows[np.argsort(fetched, kind="stable")].tolist():
                op_of_row[row] = len(ops)
                ops.append(_prefill_expert(demand, row, layer, index, shapes))
            for row in rows.tolist():
                if demand.outcome[row] & MSB_FETCHED:
                    read_slice(op_of_row[row], int(sizes.msb_bytes[index]), 0)
                if demand.outcome[row] & LSB_FETCHED:
                    read_slice(op_of_row[row], int(sizes.lsb_bytes[index]), 1)
        end_batch()
    for index, is_lsb in zip(demand.topup_layer.tolist(), demand.topup_is_lsb.tolist(), strict=True):
        read_slice(NO_OP, int((sizes.lsb_bytes if is_lsb else sizes.msb_bytes)[index]), int(is_lsb))
    end_batch()
    ops.append({"read_bytes": int8_bytes(model.head_weights), "macs_int8": model.head_weights})
    end_batch()

    def column(name: str) -> IntArray:
        return np.array([op.get(name, _DEFAULT.get(name, 0)) for op in ops], dtype=np.int64)

    read_columns = np.array(reads, dtype=np.int64).reshape(-1, 3)
    return Workload(
        step_batch=np.array([0, len(batch_op) - 1], dtype=np.int64),
        batch_op=np.array(batch_op, dtype=np.int64),
        batch_read=np.array(batch_read, dtype=np.int64),
        read_op=read_columns[:, 0],
        read_bytes=read_columns[:, 1],
        read_is_lsb=read_columns[:, 2],
        **{f"op_{name}": column(name) for name in _OP_COLUMNS},
    )


def _prefill_expert(demand: PrefillDemand, row: int, layer: int, index: int, shapes: Shapes) -> dict[str, int]:
    """One expert over all prompt tokens routed to it."""
    sizes, weights = shapes.sizes, shapes.model.expert_weights
    tokens, full = int(demand.tokens[row]), int(demand.full_tokens[row])
    has_lsb = bool(has(demand.outcome[row], LSB_HIT, LSB_FETCHED))
    return {
        "cause": EXPERT,
        "layer": layer,
        "expert": int(demand.expert[row]),
        "tokens": tokens,
        "read_bytes": int(sizes.msb_bytes[index] + has_lsb * sizes.lsb_bytes[index]),
        "macs_msb": weights * (tokens - full),
        "macs_full": weights * full,
        "weights": weights,
    }


def _starts(batch: IntArray, batches: int) -> IntArray:
    """Where each batch's part begins, from the (rising) batch number of every row."""
    return np.searchsorted(batch, np.arange(batches + 1)).astype(np.int64)
