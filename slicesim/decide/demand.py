"""The demand table: what every token asked for and what became of it. It knows no clock and no device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# What happened to one routed expert, as bits.
MSB_HIT = 1
MSB_FETCHED = 2
LSB_REQUESTED = 4
LSB_HIT = 8
LSB_FETCHED = 16
LSB_DENIED = 32
DROPPED = 64
SUBSTITUTED = 128
REROUTED = 256
MSB_AHEAD = 512  # hit, at the first look-up since a prefetch brought it
LSB_AHEAD = 1024


class SliceSizes(NamedTuple):
    """Bytes of the two objects of an expert, per covered layer (int64 [layers]), and the weight bits in each.

    A cache of whole experts or of MSB slices alone has one object: its LSB has 0 bytes and 0 bits.
    """

    msb_bytes: NDArray[np.int64]
    lsb_bytes: NDArray[np.int64]
    msb_bits: int
    lsb_bits: int


class DecodeDemand(NamedTuple):
    """Decode tokens. Slots of a layer stand in look-up order: falling gate score.

    request, token, context: int64 [tokens] (context: tokens in the KV cache, this one included);
    expert: int32, outcome: uint16, gate, served_gate: float64, all [tokens, layers, top_k]: gate is the score of the
    slot's original expert, served_gate that of the expert that runs; resident_bytes: int64 [tokens, layers] after each
    batch; strength: float64 [tokens], lambda of cache-aware routing; step: int64 [tokens], decode step in the request;
    prefetched: int32 [tokens, layers, most prefetches of a batch], slices (entries of SliceState) in order, then -1.
    """

    request: NDArray[np.int64]
    token: NDArray[np.int64]
    context: NDArray[np.int64]
    expert: NDArray[np.int32]
    outcome: NDArray[np.uint16]
    gate: NDArray[np.float64]
    served_gate: NDArray[np.float64]
    resident_bytes: NDArray[np.int64]
    strength: NDArray[np.float64]
    step: NDArray[np.int64]
    prefetched: NDArray[np.int32]

    @classmethod
    def empty(
        cls,
        request: NDArray[np.int64],
        token: NDArray[np.int64],
        context: NDArray[np.int64],
        shape: tuple[int, ...],
        most_prefetches: int,
    ) -> DecodeDemand:
        """Return a table to be filled in. shape: (tokens, layers, top_k)."""
        return cls(
            request,
            token,
            context,
            expert=np.empty(shape, dtype=np.int32),
            outcome=np.empty(shape, dtype=np.uint16),
            gate=np.empty(shape),
            served_gate=np.empty(shape),
            resident_bytes=np.empty(shape[:2], dtype=np.int64),
            strength=np.empty(shape[0]),
            step=np.empty(shape[0], dtype=np.int64),
            prefetched=np.full((*shape[:2], most_prefetches), -1, dtype=np.int32),
        )


class PrefillDemand(NamedTuple):
    """One request's prompt. Rows: one per streamed expert, layer by layer, in look-up order (falling score sum).

    layer (index), expert, tokens, full_tokens (those that use the LSB too): int64 [rows]; outcome: uint16
    [rows]; gate_mass, full_mass: float64 [rows], sums of gate scores over tokens and full_tokens; topup_layer,
    topup_expert, topup_is_lsb: one entry per slice read at the hand-over; resident_bytes: after the hand-over;
    dropped_mass: gate scores of selections that precision leaves out.
    """

    request: int
    prompt_tokens: int
    layer: NDArray[np.int64]
    expert: NDArray[np.int64]
    tokens: NDArray[np.int64]
    full_tokens: NDArray[np.int64]
    outcome: NDArray[np.uint16]
    gate_mass: NDArray[np.float64]
    full_mass: NDArray[np.float64]
    topup_layer: NDArray[np.int64]
    topup_expert: NDArray[np.int64]
    topup_is_lsb: NDArray[np.bool_]
    resident_bytes: int
    dropped_mass: float = 0.0


Demand = DecodeDemand | PrefillDemand


def has(outcome: NDArray[np.uint16], *bits: int) -> NDArray[np.bool_]:
    """Return where any of the bits is set."""
    mask = 0
    for bit in bits:
        mask |= bit
    return np.asarray((outcome & mask) != 0)
