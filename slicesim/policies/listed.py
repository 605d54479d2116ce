"""Eviction strategies that keep lists of their own: CLOCK, SLRU, 2Q, ARC, S3-FIFO, SIEVE, LeCaR.

They are known as caches of equal objects, one request at a time. Here sizes may be unequal, so lists and targets count
bytes; and a batch of requests is served at once: its hits and misses are told in look-up order, then room is made, and
what was fetched enters its list last. With equal sizes and batches of one this is what the papers describe.
Slices that the batch in hand uses are passed over. An LSB that leaves with its MSB is in no list afterwards.
When a prompt has been streamed, the lists begin anew with what is resident, in order of last use; while it streams, a
warm-up that asks the eviction strategy gets the order of last use. What was learnt (``numbers``) stays.
"""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from slicesim.policies.eviction import Eviction
from slicesim.policies.linked import NEWER, NOBODY, Lists, first_free, is_end, move, oldest, push, take, trim


class Listed(Eviction):
    """Base of strategies with lists of their own: say what happens to them at each event.

    lists, numbers: how many lists, and numbers of one's own, each cache has. All methods are compiled; ``lists`` is a
    ``Lists``, ``cache`` the number of the cache, ``entry`` a slice.
    """

    lists: ClassVar[int] = 1
    numbers: ClassVar[int] = 1

    def key(self, entry: object, now: int) -> float:
        """While a prompt streams: one for all, so that last use decides."""
        return 0.0

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """A resident slice is looked up."""

    def miss(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """A slice is looked up that is not resident; it may stand in a ghost list, which it must leave."""
        lists.mark[entry] = 0

    def insert(self, lists: Lists, cache: int, entry: int) -> None:
        """Room has been made for a slice: enter it in a list."""
        push(lists, cache, 0, entry)

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """Return the next slice to leave, or NOBODY; those used after ``begun`` must stay."""
        return first_free(lists, cache, 0, begun)  # type: ignore[no-any-return]

    def leave(self, lists: Lists, cache: int, entry: int) -> None:
        """The victim leaves: take it out of its list, perhaps into a ghost list."""
        take(lists, cache, entry)


class Clock(Listed):
    """CLOCK: first in, first out, but a slice that was hit since its last turn gets another one.

    Each slice has a counter of ``bits`` bits, one up at a hit. The oldest slice leaves if its counter is 0; else it
    counts one down and becomes the newest (second chance; with more bits, FIFO-reinsertion).
    Source: Corbato, "A paging experiment with the Multics system", 1968. Simplified: nothing.
    Checked by: libcachesim Clock (equal counts), tests/parity/test_list_strategies.py.
    """

    name: ClassVar[str] = "clock"
    bits: int = Field(1, ge=1, le=8, description="bits of the counter of hits")

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Count up."""
        lists.mark[entry] = min(lists.mark[entry] + 1, (1 << self.bits) - 1)

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """The first whose counter is 0."""
        entry = first_free(lists, cache, 0, begun)
        while entry != NOBODY and lists.mark[entry] > 0:
            lists.mark[entry] -= 1
            move(lists, cache, 0, entry)
            entry = first_free(lists, cache, 0, begun)
        return entry  # type: ignore[no-any-return]


class Sieve(Listed):
    """SIEVE: a hand goes from old to new slices, evicts the first one not hit since its last visit, and stays there.

    Unlike CLOCK it moves no slice: new ones enter at the head and are reached last, so one-time uses leave soon.
    Source: Zhang et al., "SIEVE is simpler than LRU", NSDI 2024, algorithm 1. Simplified: nothing.
    Checked by: libcachesim Sieve (equal counts), tests/parity/test_list_strategies.py.
    """

    name: ClassVar[str] = "sieve"

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Mark as visited."""
        lists.mark[entry] = 1

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """Move the hand on to a slice without mark."""
        if first_free(lists, cache, 0, begun) == NOBODY:
            return NOBODY
        node = lists.hand[cache]
        while True:
            if node == NOBODY or is_end(lists, node):
                node = oldest(lists, cache, 0)
            if lists.used[node] <= begun:
                if lists.mark[node] == 0:
                    lists.hand[cache] = node  # and on to the next one when it leaves
                    return node  # type: ignore[no-any-return]
                lists.mark[node] = 0
            node = lists.links[node, NEWER]


#: More segments than anyone asks for.
_SEGMENTS = 8


class Slru(Listed):
    """Segmented LRU: a hit lifts a slice into the next of several LRU segments; the lowest segment evicts.

    All ``segments`` have equal shares of the bytes. A segment beyond its share passes its oldest slices down. A new
    slice enters the lowest segment that has room for it, else the lowest of all.
    Source: Karedla et al., "Caching strategies to improve disk system performance", IEEE Computer 1994 (two segments);
    four of them and the filling from below as in libcachesim. Simplified: nothing.
    Checked by: libcachesim SLRU (equal counts), tests/parity/test_list_strategies.py.
    """

    name: ClassVar[str] = "slru"
    lists: ClassVar[int] = _SEGMENTS
    segments: int = Field(4, ge=2, le=_SEGMENTS, description="segments of equal size")

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """One segment up; what is too much goes down."""
        segment = min(lists.place[entry] + 1, self.segments - 1)
        move(lists, cache, segment, entry)
        while segment > 0:
            while lists.bytes[cache, segment] * self.segments > lists.capacity[cache]:
                move(lists, cache, segment - 1, oldest(lists, cache, segment))
            segment -= 1

    def insert(self, lists: Lists, cache: int, entry: int) -> None:
        """Into the lowest segment with room."""
        segment = 0
        for lowest in range(self.segments - 1, -1, -1):
            if (lists.bytes[cache, lowest] + lists.sizes[entry]) * self.segments <= lists.capacity[cache]:
                segment = lowest
        push(lists, cache, segment, entry)

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """Least recently used of the lowest segment that can give one."""
        for segment in range(self.segments):
            entry = first_free(lists, cache, segment, begun)
            if entry != NOBODY:
                return entry  # type: ignore[no-any-return]
        return NOBODY


_IN, _MAIN, _OUT = 0, 1, 2


class TwoQ(Listed):
    """2Q: new slices pass through a short FIFO; only those asked for again after they left it enter the main LRU.

    A1in (FIFO, ``in_share`` of the capacity) holds new slices; a hit there moves nothing. What it evicts is remembered
    in A1out (``out_share``); a miss that is remembered goes into Am, an LRU. A1in evicts while it exceeds its share.
    Source: Johnson and Shasha, "2Q", VLDB 1994, full version. Simplified: nothing.
    Checked by: libcachesim TwoQ (equal counts), tests/parity/test_list_strategies.py.
    """

    name: ClassVar[str] = "two-q"
    lists: ClassVar[int] = 3
    in_share: float = Field(0.25, gt=0, lt=1, description="share of the capacity that new slices pass through")
    out_share: float = Field(0.5, ge=0, le=4, description="bytes of slices remembered after they left, in capacities")

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Recency counts in the main list alone."""
        if lists.place[entry] == _MAIN:
            move(lists, cache, _MAIN, entry)

    def miss(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Look whether it is remembered."""
        lists.mark[entry] = 0
        if lists.place[entry] == _OUT:
            take(lists, cache, entry)
            lists.mark[entry] = 1

    def insert(self, lists: Lists, cache: int, entry: int) -> None:
        """The main list takes what was remembered."""
        push(lists, cache, _MAIN if lists.mark[entry] else _IN, entry)

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """From the FIFO where it is too long."""
        from_in = lists.bytes[cache, _IN] > int(self.in_share * lists.capacity[cache])
        entry = first_free(lists, cache, _IN if from_in else _MAIN, begun)
        if entry == NOBODY:
            entry = first_free(lists, cache, _MAIN if from_in else _IN, begun)
        return entry  # type: ignore[no-any-return]

    def leave(self, lists: Lists, cache: int, entry: int) -> None:
        """The FIFO's are remembered."""
        if lists.place[entry] == _IN:
            move(lists, cache, _OUT, entry)
            trim(lists, cache, _OUT, int(self.out_share * lists.capacity[cache]))
        else:
            take(lists, cache, entry)


_T1, _T2, _B1, _B2 = 0, 1, 2, 3
_TARGET, _FROM_B2 = 0, 1


class Arc(Listed):
    """ARC: an LRU of slices used once and one of slices used more often, whose shares adapt to what is missed.

    T1 holds slices used once, T2 the others; B1 and B2 remember what left them. A miss that B1 remembers raises the
    target p of T1 by its bytes x max(1, B2 / B1), one that B2 remembers lowers it by its bytes x max(1, B1 / B2). The
    victim is T1's oldest where T1 > p (or T1 = p and B2 remembers the miss), else T2's. T1 + B1 hold at most the
    capacity, all four at most twice that.
    Source: Megiddo and Modha, "ARC", FAST 2003, figure 4. Simplified: nothing; ghosts are trimmed at insertion, which
    with equal sizes is the same.
    Checked by: libcachesim ARC (equal counts), tests/parity/test_list_strategies.py.
    """

    name: ClassVar[str] = "arc"
    lists: ClassVar[int] = 4
    numbers: ClassVar[int] = 2

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Used more than once."""
        move(lists, cache, _T2, entry)

    def miss(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Learn from what left too early."""
        own, place = lists.numbers[cache], lists.place[entry]
        once, often = lists.bytes[cache, _B1], lists.bytes[cache, _B2]
        lists.mark[entry] = 0
        if place == _B1:
            own[_TARGET] = min(lists.capacity[cache], own[_TARGET] + lists.sizes[entry] * max(1.0, often / once))
        elif place == _B2:
            own[_TARGET] = max(0.0, own[_TARGET] - lists.sizes[entry] * max(1.0, once / often))
            own[_FROM_B2] = now
        if place != NOBODY:
            take(lists, cache, entry)
            lists.mark[entry] = 1

    def insert(self, lists: Lists, cache: int, entry: int) -> None:
        """T2 takes what was remembered; memory is bounded."""
        push(lists, cache, _T2 if lists.mark[entry] else _T1, entry)
        size, capacity = lists.bytes[cache], lists.capacity[cache]
        trim(lists, cache, _B1, max(0, capacity - size[_T1]))
        trim(lists, cache, _B2, max(0, 2 * capacity - size[_T1] - size[_T2] - size[_B1]))

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """From T1 where it exceeds its target, else from T2."""
        once, target = lists.bytes[cache, _T1], lists.numbers[cache, _TARGET]
        from_once = once > target or (once == target and lists.numbers[cache, _FROM_B2] > begun)
        entry = first_free(lists, cache, _T1 if from_once else _T2, begun)
        if entry == NOBODY:
            entry = first_free(lists, cache, _T2 if from_once else _T1, begun)
        return entry  # type: ignore[no-any-return]

    def leave(self, lists: Lists, cache: int, entry: int) -> None:
        """Remember it."""
        move(lists, cache, _B1 if lists.place[entry] == _T1 else _B2, entry)


_SMALL, _GHOST = 0, 2
_EVICTED = 0
_RETURNS = -1


class S3Fifo(Listed):
    """S3-FIFO: three FIFO queues; slices not hit in the small one leave soon, those that come back enter the main one.

    New slices enter the small queue (``small_share`` of the capacity). At its end a slice with ``threshold`` hits moves
    to the main queue, any other leaves and is remembered (``ghost_share``); a miss that is remembered enters the main
    queue. At its end a slice with hits goes round again with one hit less (3 count at most).
    Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm 1. Simplified: nothing;
    until the first eviction the main queue takes what the small one has no room for, as in libcachesim.
    Checked by: libcachesim S3FIFO (equal counts), tests/parity/test_list_strategies.py.
    """

    name: ClassVar[str] = "s3-fifo"
    lists: ClassVar[int] = 3
    small_share: float = Field(0.1, gt=0, lt=1, description="share of the capacity that new slices pass through")
    ghost_share: float = Field(0.9, ge=0, le=4, description="bytes of slices remembered after they left, in capacities")
    threshold: int = Field(2, ge=1, le=3, description="hits in the small queue that lead to the main one")

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Count to 3."""
        lists.mark[entry] = min(lists.mark[entry] + 1, 3)

    def miss(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Look whether it is remembered."""
        lists.mark[entry] = 0
        if lists.place[entry] == _GHOST:
            take(lists, cache, entry)
            lists.mark[entry] = _RETURNS

    def insert(self, lists: Lists, cache: int, entry: int) -> None:
        """The main queue takes what was remembered."""
        filled = lists.bytes[cache, _SMALL] >= int(self.small_share * lists.capacity[cache])
        to_main = lists.mark[entry] == _RETURNS or (filled and lists.numbers[cache, _EVICTED] == 0)
        lists.mark[entry] = 0
        push(lists, cache, _MAIN if to_main else _SMALL, entry)

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """From the main queue where it exceeds its share, else from the small one."""
        lists.numbers[cache, _EVICTED] = 1
        main_bytes = lists.capacity[cache] - int(self.small_share * lists.capacity[cache])
        while True:
            entry = first_free(lists, cache, _SMALL, begun)
            if lists.bytes[cache, _MAIN] > main_bytes or entry == NOBODY:
                main = first_free(lists, cache, _MAIN, begun)
                while main != NOBODY and lists.mark[main] > 0:
                    lists.mark[main] -= 1
                    move(lists, cache, _MAIN, main)
                    main = first_free(lists, cache, _MAIN, begun)
                if main != NOBODY or entry == NOBODY:
                    return main  # type: ignore[no-any-return]
            while entry != NOBODY and lists.mark[entry] >= self.threshold:
                lists.mark[entry] = 0
                move(lists, cache, _MAIN, entry)
                entry = first_free(lists, cache, _SMALL, begun)
            if entry != NOBODY:
                return entry  # type: ignore[no-any-return]

    def leave(self, lists: Lists, cache: int, entry: int) -> None:
        """The small queue's are remembered."""
        if lists.place[entry] == _SMALL:
            move(lists, cache, _GHOST, entry)
            trim(lists, cache, _GHOST, int(self.ghost_share * lists.capacity[cache]))
        else:
            take(lists, cache, entry)


_RECENT, _BY_LRU, _BY_LFU = 0, 1, 2
_LFU_OVER_LRU, _TIME, _CHOICE, _DRAWS = 0, 1, 2, 3
_PRIME = 2147483647


class LeCar(Listed):
    """LeCaR: every victim is chosen by LRU or by LFU, at random, with weights that learn from regretted evictions.

    A miss that the history of LRU's victims remembers multiplies LFU's weight by exp(``learning_rate`` x d^t), and the
    other way round; the weights sum to 1. t: look-ups since it left; d = ``discount`` ^ (1 / N), N: slices of its size
    that the cache holds. Each history remembers as many bytes as the capacity, and the counts of uses with them.
    Source: Vietri et al., "Driving cache replacement with ML-based LeCaR", HotStorage 2018, algorithm 1. Simplified:
    the draw is a hash of the seed and of how many went before it.
    Checked by: tests/parity/test_list_strategies.py, against a plain replay with the same draws; libcachesim's LeCaR
    draws other numbers, and the gap to it is bounded.
    """

    name: ClassVar[str] = "lecar"
    lists: ClassVar[int] = 3
    numbers: ClassVar[int] = 4
    learning_rate: float = Field(0.45, gt=0, le=10, description="of the weights")
    discount: float = Field(0.005, gt=0, lt=1, description="of a regret, after N look-ups")

    def hit(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Count a use."""
        lists.numbers[cache, _TIME] += 1
        lists.mark[entry] += 1
        move(lists, cache, _RECENT, entry)

    def miss(self, lists: Lists, cache: int, entry: int, now: int) -> None:
        """Regret what left too early."""
        own, place = lists.numbers[cache], lists.place[entry]
        own[_TIME] += 1
        if place == NOBODY:
            lists.mark[entry] = 1
            return
        gone = (own[_TIME] - lists.notes[entry, 0]) * lists.sizes[entry] / lists.capacity[cache]
        regret = self.learning_rate * self.discount**gone
        own[_LFU_OVER_LRU] += regret if place == _BY_LRU else -regret  # logarithm of the ratio of weights
        lists.mark[entry] += 1
        take(lists, cache, entry)

    def insert(self, lists: Lists, cache: int, entry: int) -> None:
        """As the last one used."""
        push(lists, cache, _RECENT, entry)

    def victim(self, lists: Lists, cache: int, begun: int) -> int:
        """Draw who chooses."""
        own = lists.numbers[cache]
        own[_DRAWS] += 1
        number = int(lists.seed[0] * _PRIME) + int(own[_DRAWS]) * 16807 + cache
        for _ in range(3):
            number = (number * number % _PRIME + cache + 1) * 48271 % _PRIME
        by_lru = number / _PRIME < 1.0 / (1.0 + math.exp(own[_LFU_OVER_LRU]))
        own[_CHOICE] = _BY_LRU if by_lru else _BY_LFU
        best = first_free(lists, cache, _RECENT, begun)
        if by_lru or best == NOBODY:
            return best  # type: ignore[no-any-return]
        node = lists.links[best, NEWER]
        while not is_end(lists, node):
            if lists.used[node] <= begun and lists.mark[node] < lists.mark[best]:
                best = node
            node = lists.links[node, NEWER]
        return best  # type: ignore[no-any-return]

    def leave(self, lists: Lists, cache: int, entry: int) -> None:
        """The history of who chose it remembers it."""
        choice = int(lists.numbers[cache, _CHOICE])
        lists.notes[entry, 0] = lists.numbers[cache, _TIME]
        move(lists, cache, choice, entry)
        trim(lists, cache, choice, lists.capacity[cache])
