"""From routes as a text file lists them, in any order and with their lines, to a trace block."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.trace.fault_list import FaultList
from slicesim.trace.importers.table_file import TableFile
from slicesim.trace.order import OrderCheck
from slicesim.trace.table import ABSENT, TraceBlock, TraceHeader, faults, route_checks


class Routes(NamedTuple):
    """One entry per token and layer, in the order of the file.

    request, token, layer: int64 [routes]; phase: int8 [routes]; ids: int64, scores: float64, line: int64, all
    [routes, top_k]; logits: float32 [routes, experts] or None.
    """

    request: NDArray[np.int64]
    token: NDArray[np.int64]
    phase: NDArray[np.int8]
    layer: NDArray[np.int64]
    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    line: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None


def collect_slots(
    table: TableFile, token: NDArray[np.int64], phase: NDArray[np.int8], score_column: str, top_k: int
) -> Routes:
    """Gather the slots of each (request, token, layer) into one route.

    ``table`` holds the columns request, layer, slot, expert and the scores; ``token`` and ``phase`` are given
    per row. Raises FaultyTraceError where a slot is missing or given twice.
    """
    columns, line = table.columns, table.lines
    keys = (columns["request"], token, columns["layer"])
    order = np.lexsort((columns["slot"], *reversed(keys)))
    begins = np.ones(len(order), np.bool_)
    begins[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    starts = np.flatnonzero(begins)
    slot = columns["slot"][order]
    expected = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))

    found = FaultList()
    counts = np.diff(starts, append=len(order))
    route = np.cumsum(begins) - 1
    odd = np.unique(np.concatenate((route[slot != expected], np.flatnonzero(counts != top_k))))
    for start, count in zip(starts[odd], counts[odd], strict=True):
        here = order[start : start + count]
        request, number, layer = (int(key[here[0]]) for key in keys)
        slots = sorted(columns["slot"][here].tolist())
        message = f"slots {slots} where 0 to {top_k - 1} should stand, each once"
        where = f"{table.path}: line {line[here].max()}"
        found.add(f"{where}: request {request}, token {number}, layer {layer}: {message}")
    found.refuse()

    by_file = np.argsort(line[order].reshape(-1, top_k).min(axis=1))
    rows = order.reshape(-1, top_k)[by_file]
    first = rows[:, 0]
    return Routes(
        request=columns["request"][first],
        token=token[first],
        phase=phase[first],
        layer=columns["layer"][first],
        ids=columns["expert"][rows],
        scores=columns[score_column][rows],
        line=line[rows],
    )


def assemble(path: Path, header: TraceHeader, routes: Routes) -> TraceBlock:
    """Put routes into a block: requests by first appearance, tokens by number, layers as in the header.

    Raises FaultyTraceError, by line, for a layer the header lacks, a second route for a place, a missing
    layer or token, a faulty expert or score, and phases out of order.
    """
    found = FaultList()

    def report(index: int, line: int, message: str) -> None:
        request, token, layer = routes.request[index], routes.token[index], routes.layer[index]
        found.add(f"{path}: line {line}: request {request}, token {token}, layer {layer}: {message}")

    for wrong, message in route_checks(header, routes.ids, routes.scores):
        for index, slot in np.argwhere(wrong).tolist():
            report(index, routes.line[index, slot], message)
    known = np.isin(routes.layer, header.layers)
    for index in np.flatnonzero(~known).tolist():
        report(index, routes.line[index, 0], f"{header.model} has no routed experts in this layer")
    found.refuse()

    token_of, first_of_token = _number_tokens(routes)
    for index in np.flatnonzero(routes.phase != routes.phase[first_of_token][token_of]).tolist():
        other = routes.line[first_of_token[token_of[index]], 0]
        report(index, routes.line[index, 0], f"another phase than in line {other}, the same token")
    layer_of = np.searchsorted(header.layers, routes.layer)
    shape = (len(first_of_token), len(header.layers))
    place = token_of * shape[1] + layer_of
    _, first_at_place = np.unique(place, return_index=True)
    for index in np.setdiff1d(np.arange(len(place)), first_at_place).tolist():
        other = routes.line[first_at_place[np.searchsorted(place[first_at_place], place[index])], 0]
        report(index, routes.line[index, 0], f"given a second time, first in line {other}")
    found.refuse()

    def spread(values: NDArray[Any], kind: Any, fill: float) -> NDArray[Any]:
        full = np.full((*shape, values.shape[1]), fill, dtype=kind)
        full[token_of, layer_of] = values
        return full

    block = TraceBlock(
        request=routes.request[first_of_token],
        token=routes.token[first_of_token],
        phase=routes.phase[first_of_token],
        ids=spread(routes.ids, np.int32, ABSENT),
        scores=spread(routes.scores, np.float64, 0.0),
        logits=None if routes.logits is None else spread(routes.logits, np.float32, 0.0),
    )
    for index, slot, message in faults(header, block):
        where = f"{path}: line {routes.line[first_of_token[index], 0]}"
        layer = header.layers[slot]
        found.add(f"{where}: request {block.request[index]}, token {block.token[index]}, layer {layer}: {message}")
    for index, message in OrderCheck().faults(block):
        where = f"{path}: line {routes.line[first_of_token[index], 0]}"
        found.add(f"{where}: request {block.request[index]}, token {block.token[index]}: {message}")
    found.refuse()
    return block


def _number_tokens(routes: Routes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place of each route's token in the block [routes], and each token's first route [tokens]."""
    _, appearance, request_of = np.unique(routes.request, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(appearance))[request_of]
    order = np.lexsort((routes.token, rank))  # stable: routes of one token stay in the order of the file
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (np.diff(rank[order]) != 0) | (np.diff(routes.token[order]) != 0)
    token_of = np.empty(len(order), np.int64)
    token_of[order] = np.cumsum(begins) - 1
    return token_of, order[begins].astype(np.int64)
