"""The arrays that strategies see: one entry per cacheable slice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

#: Kinds of slice. A whole-expert cache has MSB entries only, as large as the expert.
MSB, LSB = 0, 1

#: ``next_use`` of a slice that is not requested again.
NEVER = np.iinfo(np.int64).max


@dataclass
class SliceState:
    """Cache state as columns. Entry ``(layer * experts + expert) * 2 + kind`` is one slice; layers count from 0.

    Fixed: ``size_bytes``, ``layer``, ``kind``, ``group`` (the cache that holds it: one, or one per layer).
    Changing: ``resident``; ``last_use`` and ``inserted`` (stamps that rise with every look-up, -1 for never);
    ``count`` (look-ups ever) and ``count_since_insert``; ``gate_mass`` (sum of gate scores looked up with).
    Of the running request's prompt: ``prompt_count`` (selections of an MSB, critical selections of an LSB) and
    ``prompt_score`` (sum of gate scores). Offline, where a strategy asks for them: ``next_use`` (batch number of
    the next request) and ``total_count`` (requests in the whole trace). ``priority`` is drawn anew, uniformly,
    for every prefill.
    """

    experts: int
    size_bytes: IntArray
    group: IntArray
    capacity_bytes: int
    rng: np.random.Generator
    layer: IntArray = field(init=False)
    kind: IntArray = field(init=False)
    resident: BoolArray = field(init=False)
    last_use: IntArray = field(init=False)
    inserted: IntArray = field(init=False)
    count: IntArray = field(init=False)
    count_since_insert: IntArray = field(init=False)
    gate_mass: FloatArray = field(init=False)
    prompt_count: IntArray = field(init=False)
    prompt_score: FloatArray = field(init=False)
    next_use: IntArray = field(init=False)
    total_count: IntArray = field(init=False)
    priority: FloatArray = field(init=False)
    used_bytes: IntArray = field(init=False)
    stamp: int = 0

    def __post_init__(self) -> None:
        entries = len(self.size_bytes)
        numbers = np.arange(entries, dtype=np.int64)
        self.layer = numbers // (2 * self.experts)
        self.kind = numbers % 2
        self.resident = np.zeros(entries, dtype=np.bool_)
        self.last_use = np.full(entries, -1, dtype=np.int64)
        self.inserted = np.full(entries, -1, dtype=np.int64)
        self.count = np.zeros(entries, dtype=np.int64)
        self.count_since_insert = np.zeros(entries, dtype=np.int64)
        self.gate_mass = np.zeros(entries)
        self.prompt_count = np.zeros(entries, dtype=np.int64)
        self.prompt_score = np.zeros(entries)
        self.next_use = np.full(entries, NEVER, dtype=np.int64)
        self.total_count = np.zeros(entries, dtype=np.int64)
        self.priority = np.zeros(entries)
        self.used_bytes = np.zeros(int(self.group.max()) + 1, dtype=np.int64)

    def insert(self, entry: int) -> None:
        """Make a slice resident."""
        self.resident[entry] = True
        self.inserted[entry] = self.stamp
        self.count_since_insert[entry] = 0
        self.used_bytes[self.group[entry]] += self.size_bytes[entry]

    def evict(self, entry: int) -> None:
        """Drop a slice; an LSB never outlives its MSB."""
        self._drop(entry)
        if self.kind[entry] == MSB and self.resident[entry + 1]:
            self._drop(entry + 1)

    def touch(self, entry: int, gate: float) -> None:
        """Record one look-up."""
        self.stamp += 1
        self.last_use[entry] = self.stamp
        self.count[entry] += 1
        self.count_since_insert[entry] += 1
        self.gate_mass[entry] += gate

    def _drop(self, entry: int) -> None:
        self.resident[entry] = False
        self.used_bytes[self.group[entry]] -= self.size_bytes[entry]
