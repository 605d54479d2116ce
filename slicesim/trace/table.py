"""The routing trace in memory: a header, and blocks of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from slicesim.errors import UserError
from slicesim.scenario.section import Section

SCHEMA_VERSION = 1

#: What the file's columns, and arrays by layer and expert, can hold.
MOST_LAYER, MOST_EXPERTS = 2**15 - 1, 65_536

#: Phase codes of a token.
PREFILL, DECODE = 0, 1

#: The expert id that stands where a token has no row for a layer.
ABSENT = -1


class TraceHeader(Section):
    """What a trace says of itself (the ``slicesim`` entry of the Parquet file's metadata)."""

    schema_version: int = SCHEMA_VERSION
    model: str = Field(description="model that was recorded")
    layers: Annotated[list[Annotated[int, Field(ge=0, le=MOST_LAYER)]], Field(min_length=1)]
    experts: int = Field(ge=1, le=MOST_EXPERTS)
    top_k: int = Field(ge=1)
    score_kind: Literal["softmax", "renormalised", "logits"] = Field(
        description="softmax: raw probability over all experts; renormalised: scaled to 1 over the top-k"
    )
    has_logits: bool = False
    imputed_logits: bool = Field(
        default=False, description="the logits beyond the recorded top-k were made up by a twin"
    )
    synthetic: bool = False
    micro_model: bool = Field(
        False,
        description="captured from a micro model: a tiny model trained for slicesim, with the routing geometry of "
        "the one it is named after",
    )
    source: str
    licence: str
    tool_version: str
    notes: str = ""
    expert_bytes: list[int] | None = Field(default=None, description="bytes of one expert, per layer, as recorded")
    partial_prefill_layers: list[int] = Field(
        default_factory=list,
        description="layers that the recording engine computed for a prompt's last token only",
    )

    @model_validator(mode="after")
    def _consistent(self) -> TraceHeader:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema version {self.schema_version} is not {SCHEMA_VERSION}: import the trace anew")
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is above the number of experts {self.experts}")
        if any(b <= a for a, b in zip(self.layers, self.layers[1:], strict=False)):
            raise ValueError("layers must rise")
        if self.expert_bytes is not None and len(self.expert_bytes) != len(self.layers):
            raise ValueError("expert_bytes needs one entry per layer")
        return self


class TraceBlock(NamedTuple):
    """Consecutive tokens of a trace.

    request, token: int64 [tokens]; phase: int8 [tokens]; ids: int32 [tokens, layers, top_k], ABSENT where a
    layer has no row; scores: float64, same shape; logits: float32 [tokens, layers, experts] or None.
    """

    request: NDArray[np.int64]
    token: NDArray[np.int64]
    phase: NDArray[np.int8]
    ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    logits: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.request)

    def part(self, start: int, stop: int) -> TraceBlock:
        """Return the tokens from ``start`` up to ``stop``."""
        return TraceBlock(*(None if column is None else column[start:stop] for column in self))  # type: ignore[arg-type]


class Trace(Protocol):
    """Anything that can be replayed: a header and blocks of tokens, requests one after another."""

    @property
    def header(self) -> TraceHeader:
        """Geometry and provenance."""

    @property
    def name(self) -> str:
        """File name, or a word for a trace made in memory."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file, or of the arrays of a trace in memory."""

    def request_lengths(self) -> dict[int, int]:
        """Tokens of each request, in order of appearance."""

    def blocks(self) -> Iterator[TraceBlock]:
        """Yield the tokens in order; a new iteration starts at the first token again."""


@dataclass(frozen=True)
class MemoryTrace:
    """A trace that lies in memory as one block."""

    header: TraceHeader
    block: TraceBlock
    name: str = "memory"

    @classmethod
    def empty(cls, header: TraceHeader, name: str = "memory") -> MemoryTrace:
        """Return a trace without tokens: what a run that is still to be recorded is prepared with."""
        routes = (0, len(header.layers), header.top_k)
        logits = np.zeros((*routes[:2], header.experts), dtype=np.float32) if header.has_logits else None
        number = np.zeros(0, dtype=np.int64)
        ids, scores = np.zeros(routes, dtype=np.int32), np.zeros(routes)
        return cls(header, TraceBlock(number, number, number.astype(np.int8), ids, scores, logits), name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over header and arrays."""
        import hashlib

        state = hashlib.sha256(self.header.model_dump_json().encode())
        for column in self.block:
            if column is not None:
                state.update(np.ascontiguousarray(column).tobytes())
        return state.hexdigest()

    @cached_property
    def is_faultless(self) -> bool:
        """Looked at once, however often the trace is replayed; raises UserError naming the first faulty place."""
        require_faultless(self.header, self.block, self.name)
        return True

    def request_lengths(self) -> dict[int, int]:
        """Tokens of each request, in order of appearance."""
        return count_in_order(self.block.request)

    def blocks(self) -> Iterator[TraceBlock]:
        """Yield the whole trace."""
        yield self.block


def count_in_order(values: NDArray[np.int64]) -> dict[int, int]:
    """Count values, keyed in order of first appearance."""
    unique, first, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.argsort(first)
    return {int(unique[i]): int(counts[i]) for i in order}


def group_requests(block: TraceBlock) -> TraceBlock:
    """Put each request's tokens together: by first appearance, prompt before decode, else in given order."""
    appearance = {request: rank for rank, request in enumerate(count_in_order(block.request))}
    rank = np.array([appearance[int(r)] for r in block.request], dtype=np.int64)
    order = np.lexsort((np.arange(len(block)), block.phase, rank))
    return TraceBlock(*(None if column is None else column[order] for column in block))  # type: ignore[arg-type]


def route_checks(
    header: TraceHeader, ids: NDArray[np.integer[Any]], scores: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.bool_], str]]:
    """Yield (where it is wrong, what is wrong) for each rule of one route; all arrays are [..., top_k]."""
    yield (ids < 0) | (ids >= header.experts), f"expert id outside 0 to {header.experts - 1}"
    earlier = np.tri(ids.shape[-1], k=-1, dtype=np.bool_)
    repeated = ((ids[..., :, None] == ids[..., None, :]) & earlier).any(axis=-1)
    yield repeated, "the same expert twice in one token"
    yield ~np.isfinite(scores), "score is not a finite number"
    if header.score_kind != "logits":
        yield scores < 0, "negative score"


def first_fault(header: TraceHeader, block: TraceBlock) -> tuple[int, int, str] | None:
    """Return (token, layer index, what is wrong) of the first fault in a block, or None."""
    return next(iter(faults(header, block)), None)


def faults(header: TraceHeader, block: TraceBlock) -> Iterator[tuple[int, int, str]]:
    """Yield every fault of a block as (token index, layer index, what is wrong), kind by kind."""
    absent = (block.ids == ABSENT).all(axis=2)
    partial = np.isin(header.layers, header.partial_prefill_layers)
    allowed = partial[None, :] & (block.phase == PREFILL)[:, None]
    for token, layer in np.argwhere(absent & ~allowed):
        yield int(token), int(layer), "no row for this layer"
    for wrong, message in route_checks(header, block.ids, block.scores):
        for token, layer in np.argwhere(wrong.any(axis=2) & ~absent):
            yield int(token), int(layer), message
    if block.logits is not None:
        for token, layer in np.argwhere(~np.isfinite(block.logits).all(axis=2) & ~absent):
            yield int(token), int(layer), "logit is not a finite number"


def require_faultless(header: TraceHeader, block: TraceBlock, name: str) -> None:
    """Raise UserError naming the first faulty place of a block."""
    from slicesim.trace.sound import is_sound  # compiled: loaded only where a trace is replayed

    if is_sound(block.ids, block.scores, header.experts, header.score_kind == "logits") and block.logits is None:
        return
    fault = first_fault(header, block)
    if fault is not None:
        token, layer, message = fault
        raise UserError(
            f"{name}: request {block.request[token]}, token {block.token[token]}, "
            f"layer {header.layers[layer]}: {message}"
        )
