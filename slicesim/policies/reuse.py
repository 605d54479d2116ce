"""Eviction by a reuse distance that is learnt online."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from slicesim.compiled import inlined, jit
from slicesim.policies.linked import NEWER, NOBODY, Lists, is_end, layer_of, move, oldest, push
from slicesim.policies.listed import Listed
from slicesim.policies.slices import LAYER, TOKEN

_AGES, _CLASSES = 24, 14  # half octaves of an interval, octaves of a mean interval; both in tokens
_EVENTS, _WAITS = 1, 1 + _AGES * _CLASSES
_LOOKUPS = 0
_LAST, _MEAN = 0, 1


@inlined
def _start_of(age):
    """Return the shortest interval of an age: 1, 2, 3, 4, 6, 8, 12 ..."""
    return 1 if age == 0 else (2 + (age - 1) % 2) << ((age - 1) // 2)


@jit
def _class_of(mean):
    """Return the class of a mean interval; the last one is that of slices looked up once at most."""
    if mean == 0:
        return _CLASSES - 1
    return min(int(math.log2(mean)), _CLASSES - 2)


@jit
def _learn(lists, cache, entry, period):
    """Count the interval that has just ended, and class the slice anew."""
    own, notes, token = lists.numbers[cache], lists.notes[entry], lists.clock[TOKEN]
    interval = token - notes[_LAST]
    if notes[_LAST] > 0 and interval > 0:
        age = 0
        while age < _AGES - 1 and interval >= _start_of(age + 1):
            age += 1
        own[_EVENTS + _AGES * _class_of(notes[_MEAN]) + age] += 1
        notes[_MEAN] += (interval - notes[_MEAN]) / 4 if notes[_MEAN] > 0 else interval
    notes[_LAST] = token
    lists.mark[entry] = _class_of(notes[_MEAN])
    own[_LOOKUPS] += 1
    if own[_LOOKUPS] % period == 0:
        _expect(own)


@jit
def _expect(own):
    """Learn how long slices of each class and age wait from the intervals, which count for half from then on."""
    for kind in range(_CLASSES):
        events = length = 0.0
        for age in range(_AGES - 1, -1, -1):
            place, start = _AGES * kind + age, _start_of(age)
            length += own[_EVENTS + place] * (start + _start_of(age + 1) - 1) / 2
            events += own[_EVENTS + place]
            own[_WAITS + place] = length / events - start if events >= 1 else start
    for place in range(_EVENTS, _WAITS):
        own[place] *= 0.5


class ReuseDistance(Listed):
    """Longest predicted reuse distance first: a table learnt online tells how long a slice of its kind still waits.

    Slices are classed by their mean interval between look-ups, in tokens (each new interval counts 1/4), by octaves.
    For every class the intervals that end are counted by length, in half octaves. A slice of class c that its layer has
    passed by a times since its last look-up is expected to let it pass by w = E[interval of c | interval > a] - (a + 1)
    times more; where no interval of c was as long, a + 1 times, as LRU would have it. Its distance is w x layers + the
    layers until its own one comes next. The table is made anew every ``period`` look-ups, and older intervals then
    count for half. It learns from look-ups of slices that are resident or not, and knows nothing of those to come. A
    slice that was read ahead is judged by its past.
    Equal distances: least recently used first.
    Source: our own small stand-in for learnt replacement; FlashMoE (arXiv 2601.17063) trains a network on recency and
    frequency to the same end, offline and with Belady's choices as labels.
    Checked by: tests/parity/test_list_strategies.py, against a plain replay.
    """

    name: ClassVar[str] = "reuse-distance"
    numbers: ClassVar[int] = 1 + 2 * _AGES * _CLASSES
    period: int = Field(2048, ge=1, description="look-ups after which the table is made anew")

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Learn, and count as recent."""
        _learn(lists, cache, entry, self.period)
        move(lists, cache, 0, entry)

    def miss(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Learn from what is not resident too."""
        _learn(lists, cache, entry, self.period)

    def insert(self, lists: Lists, cache: int, entry: int) -> None:
        """As the last one used."""
        lists.mark[entry] = _class_of(lists.notes[entry, _MEAN])
        push(lists, cache, 0, entry)

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """Ask the table about every slice, oldest first: ages hardly ever rise on the way."""
        own, token, layer = lists.numbers[cache], lists.clock[TOKEN], lists.clock[LAYER]
        best, longest, age = NOBODY, -1.0, 0
        node = oldest(lists, cache, 0)
        while not is_end(lists, node):
            if lists.used[node] <= begun:
                ahead = layer_of(lists, node) - layer
                interval = token - lists.notes[node, _LAST]
                if ahead <= 0:  # its layer comes with the next token
                    ahead, interval = ahead + lists.layers, interval + 1
                while age < _AGES - 1 and interval >= _start_of(age + 1):
                    age += 1
                while age > 0 and interval < _start_of(age):
                    age -= 1
                distance = own[_WAITS + _AGES * lists.mark[node] + age] * lists.layers + ahead
                if distance > longest:
                    best, longest = node, distance
            node = lists.links[node, NEWER]
        return best
