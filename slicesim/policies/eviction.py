"""Eviction: a key for every slice; the lowest goes first.

A strategy says ``key(entry, now)``: one number from the fields of one slice (``entry.count``, see ``SliceState``) and
the last stamp. It is compiled into the batch loop where it can be, and interpreted where it cannot (same results,
slower). A key may change only when its own slice is looked up; a strategy whose keys change by themselves says
``volatile``. Equal keys go by last use, then by entry number.
Where the state's fields do not tell enough, ``remember`` keeps a number of its own for each slice (``entry.memory``);
``observe`` sees each batch whole, keeps tables, and may set that number for all slices of the layer.
A strategy may instead order all candidates at once with numpy: ``score(state, entries)``; or keep lists (``listed``).
To use your own, subclass ``Eviction`` in a file and name it ``file.py:Class``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from slicesim.policies.base import Keys, Strategy
from slicesim.policies.slices import MSB, IntArray, SliceState, When


class Eviction(Strategy):
    """Base of all eviction strategies.

    needs_future: reads ``next_use`` or ``total_count``. volatile: keys change without a look-up.
    by_kind: the key depends on the kind of slice alone. partitioned: each layer has an equal share of the cache to
    itself, whatever ``cache.scope`` says. keeps_all: everything is resident from the start, whatever the capacity.
    per_request: counts, gate mass and memory of all slices start at 0 with each request.
    """

    kind: ClassVar[str] = "eviction"
    needs_future: ClassVar[bool] = False
    volatile: ClassVar[bool] = False
    by_kind: ClassVar[bool] = False
    partitioned: ClassVar[bool] = False
    keeps_all: ClassVar[bool] = False
    per_request: ClassVar[bool] = False

    def key(self, entry: Any, now: int) -> float:
        """Return a number for one slice; the smallest leaves first."""
        raise NotImplementedError

    def tie(self, entry: Any) -> int:
        """Return what decides between equal keys, before the entry number."""
        return entry.last_use  # type: ignore[no-any-return]

    def remember(self, entry: Any, fetched: bool, now: int, gate: float) -> None:
        """Note something in ``entry.memory`` (a float, 0 at first) at a look-up of ``entry``; by default nothing.

        Called at every look-up, of prompts too, when the entry's own fields have been brought up to date: ``count`` is
        1 at the first one. fetched: whether it missed; now: the look-up's stamp; gate: the gate score that it is looked
        up with (of a prompt: their sum). The memory outlives eviction. It is compiled, with or without ``key``.
        """

    def tables(self, layers: int, experts: int) -> Any:
        """Return what ``observe`` learns in, float64 [layers, ...] of three dimensions; it outlives requests."""
        return np.zeros((layers, 0, 0))

    def observe(self, table: Any, slots: Any, slices: Any, base: int) -> None:
        """Learn from a batch, when it has been routed and before room is made; by default nothing. Compiled.

        table: ``tables(...)`` of the layer; slots: what is asked for, by falling gate score (``expert``, ``gate``,
        ``critical``: its LSB too), before anything is denied; slices: all slices, the layer's being those from ``base``
        on: 2 x expert, + 1 for the LSB. It may set their ``memory``, and so change their ``key``. Prompts are observed
        too, token by token, before they stream.
        """

    def layer_key(self, entry: Any, when: When) -> float:
        """Return a number that goes before ``key``, and may change with time: the smallest leaves first. Optional.

        Among the slices of one layer it must rise with ``key`` (or be equal): the first to leave of each layer is found
        by ``key`` and ``tie``, and only these are asked. See ``When`` for what it is told.
        """
        raise NotImplementedError

    def score(self, state: SliceState, entries: IntArray) -> Keys:
        """Return sort keys for the slices ``entries``, arrays as long as ``entries``; smallest leaves first."""
        records, when = state.slices.view(np.recarray)[entries], state.when
        rows = [(self.key(entry, when.now), self.tie(entry)) for entry in records]
        keys, ties = zip(*rows, strict=True) if rows else ((), ())
        own = (np.asarray(keys, dtype=np.float64), np.asarray(ties, dtype=np.int64), entries)
        if not self.overrides("layer_key"):
            return own
        return (np.array([self.layer_key(entry, when) for entry in records], dtype=np.float64), *own)

    @classmethod
    def overrides(cls, method: str) -> bool:
        """Whether the class has such a method of its own."""
        return getattr(cls, method) is not getattr(Eviction, method)


class Lru(Eviction):
    """Least recently used.

    Source: standard.
    Checked by: libcachesim (tests/parity/test_list_strategies.py), and a second replay in plain Python
    (tests/parity/test_decisions.py).
    """

    name: ClassVar[str] = "lru"
    by_kind: ClassVar[bool] = True

    def key(self, entry: Any, now: int) -> float:
        """One for all: equal keys go by last use."""
        return 0.0


class Dbsc(Eviction):
    """SliceMoE's dynamic bit-sliced caching: LSB slices first, LRU among them; then MSB slices by LRU (1.4).

    Source: SliceMoE, arXiv 2512.12990, section 4.1.
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py).
    """

    name: ClassVar[str] = "dbsc"
    by_kind: ClassVar[bool] = True

    def key(self, entry: Any, now: int) -> float:
        """LSB before MSB; equal keys go by last use."""
        return 1.0 if entry.kind == MSB else 0.0


class LfuKeep(Eviction):
    """Least frequently used; counts outlive eviction.

    Source: standard; CECAR and phone engines count so.
    Checked by: a second replay in plain Python (tests/parity/test_decisions.py).
    """

    name: ClassVar[str] = "lfu-keep"

    def key(self, entry: Any, now: int) -> float:
        """Look-ups ever."""
        return entry.count  # type: ignore[no-any-return]


class LfuForget(Eviction):
    """Least frequently used; a count starts anew when the slice is fetched again.

    Source: standard.
    Checked by: libcachesim (tests/parity/test_list_strategies.py), and a second replay in plain Python
    (tests/parity/test_decisions.py).
    """

    name: ClassVar[str] = "lfu-forget"

    def key(self, entry: Any, now: int) -> float:
        """Look-ups since the slice came in."""
        return entry.count_since_insert  # type: ignore[no-any-return]


class Fifo(Eviction):
    """First in, first out.

    Source: standard.
    Checked by: libcachesim (tests/parity/test_list_strategies.py), and a second replay in plain Python
    (tests/parity/test_decisions.py).
    """

    name: ClassVar[str] = "fifo"

    def key(self, entry: Any, now: int) -> float:
        """Time of insertion."""
        return entry.inserted  # type: ignore[no-any-return]


class Random(Eviction):
    """A victim drawn uniformly.

    Source: standard.
    Checked by: same victims compiled and in Python (tests/decide/test_order.py).
    """

    name: ClassVar[str] = "random"
    volatile: ClassVar[bool] = True

    def key(self, entry: Any, now: int) -> float:
        """A number that time, slice and what was drawn decide: squares modulo the prime 2^31 - 1 mix them."""
        prime, number = 2147483647, int(entry.number)
        mixed = (int(entry.priority * prime) + now % prime * 16807 + number * 69621) % prime
        for _ in range(3):
            mixed = (mixed * mixed % prime + number + 1) * 48271 % prime
        return mixed


class Static(Eviction):
    """Offline hot list: the slices that the whole trace requests most stay. Knows the future; a baseline only.

    Source: standard.
    Checked by: laws (tests/laws), and the golden counts of real routing where they are at hand.
    """

    name: ClassVar[str] = "static"
    needs_future: ClassVar[bool] = True

    def key(self, entry: Any, now: int) -> float:
        """Requests in the whole trace."""
        return entry.total_count  # type: ignore[no-any-return]


class Belady(Eviction):
    """Farthest next use goes first. Optimal for equal sizes with forced insertion; ties by entry number.

    Source: Belady, IBM Systems Journal 5(2), 1966.
    Checked by: libcachesim (tests/parity/test_list_strategies.py), and a second replay in plain Python
    (tests/parity/test_decisions.py); the bound (tests/bound).
    """

    name: ClassVar[str] = "belady"
    needs_future: ClassVar[bool] = True

    def key(self, entry: Any, now: int) -> float:
        """Next use, farthest first."""
        return -entry.next_use  # type: ignore[no-any-return]

    def tie(self, entry: Any) -> int:
        """None: the entry number decides."""
        return 0
