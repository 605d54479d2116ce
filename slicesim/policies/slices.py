"""The arrays that strategies see: one entry per cacheable slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

#: Kinds of slice. A whole-expert cache has MSB entries only, as large as the expert.
MSB, LSB = 0, 1

#: ``next_use`` of a slice that is not requested again.
NEVER = np.iinfo(np.int64).max


#: One cacheable slice. See ``SliceState`` for what the fields mean. What every look-up needs comes first.
SLICE = np.dtype(
    [
        ("last_use", np.int64),
        ("size_bytes", np.int64),
        ("number", np.int32),
        ("layer", np.int32),
        ("group", np.int32),
        ("kind", np.int8),
        ("resident", np.bool_),
        ("ahead", np.bool_),
        ("count", np.int64),
        ("count_since_insert", np.int64),
        ("gate_mass", np.float64),
        ("inserted", np.int64),
        ("prompt_count", np.int64),
        ("prompt_score", np.float64),
        ("next_use", np.int64),
        ("total_count", np.int64),
        ("priority", np.float64),
        ("last_token", np.int64),
        ("floor", np.float64),
        ("memory", np.float64),
    ],
    align=True,
)

#: One cache: the bytes in it, those that it may hold, and the key of the slice that left it last.
CACHE = np.dtype([("used_bytes", np.int64), ("capacity_bytes", np.int64), ("floor", np.float64)])

#: Places of ``SliceState.clock``.
STAMP, BEGUN, LAYER, TOKEN, REQUEST = range(5)


class When(NamedTuple):
    """Where the replay stands, for keys that ask for it.

    now: the last stamp; layer: whose batch is in hand; layers: how many there are; token: the token in hand, counted
    from 1 over all requests (a prompt is one); request: the last token before the request in hand.
    """

    now: int
    layer: int
    layers: int
    token: int
    request: int


@dataclass(frozen=True)
class SliceState:
    """All slices as records. Entry ``(layer * experts + expert) * 2 + kind`` is one slice; layers count from 0.

    Fields, each also a column of this object. Fixed: ``size_bytes``, ``number`` (the entry itself), ``layer``,
    ``kind``, ``group`` (the cache that holds it: one, or one per layer).
    Changing: ``resident``; ``ahead`` (read ahead of its request, and not looked up since); ``last_use`` and
    ``inserted`` (stamps that rise with every look-up, -1 for never); ``count`` (look-ups ever) and
    ``count_since_insert``; ``gate_mass`` (sum of gate scores looked up with); ``last_token`` (the token of the last
    look-up, see ``When``); ``floor`` (at the last look-up, the key of the slice that had left its cache last in
    decode); ``memory`` (the eviction strategy's own, see ``Eviction.remember``). Counts, gate mass, ``inserted`` and
    these three are kept in decode only where the eviction strategy may read them; all outlive eviction.
    Of the running request's prompt: ``prompt_count`` (selections of an MSB, critical selections of an LSB) and
    ``prompt_score`` (sum of gate scores). Offline, where a strategy asks for them: ``next_use`` (batch number of
    the next request) and ``total_count`` (requests in the whole trace). ``priority`` is drawn anew, uniformly,
    for every prefill.
    ``clock`` holds the last stamp (STAMP), the one when the batch in hand began (BEGUN), the LAYER in hand, the TOKEN
    and the REQUEST (see ``When``); ``caches`` one record for each cache.
    """

    experts: int
    slices: Any
    caches: Any
    clock: IntArray

    @classmethod
    def empty(cls, size_bytes: IntArray, capacity_bytes: int, *, per_layer: bool = False) -> SliceState:
        """Return an empty cache. size_bytes: [layers, experts, 2]; capacity_bytes: of each cache."""
        layers, experts, _ = size_bytes.shape
        slices = np.zeros(size_bytes.size, dtype=SLICE)
        numbers = np.arange(size_bytes.size)
        slices["size_bytes"] = size_bytes.reshape(-1)
        slices["number"], slices["kind"] = numbers, numbers % 2
        slices["layer"] = numbers // (2 * experts)
        slices["group"] = slices["layer"] if per_layer else 0
        slices["last_use"] = slices["inserted"] = -1
        slices["next_use"] = NEVER
        caches = np.zeros(layers if per_layer else 1, dtype=CACHE)
        caches["capacity_bytes"] = capacity_bytes
        return cls(experts, slices, caches, np.zeros(REQUEST + 1, dtype=np.int64))

    def __getattr__(self, name: str) -> NDArray[Any]:
        """Return a field of all slices as a column."""
        if name in SLICE.fields:  # type: ignore[operator]
            return self.slices[name]  # type: ignore[no-any-return]
        raise AttributeError(f"slices have no field {name!r}")

    @property
    def when(self) -> When:
        """Where the replay stands."""
        layers = len(self.slices) // (2 * self.experts)
        now, _, layer, token, request = self.clock
        return When(int(now), int(layer), layers, int(token), int(request))

    @property
    def used_bytes(self) -> IntArray:
        """Bytes in each cache."""
        return self.caches["used_bytes"]  # type: ignore[no-any-return]
