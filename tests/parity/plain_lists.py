"""List strategies in plain Python, from the papers: slow and short. They share no code with ``slicesim``.

A strategy serves one cache. An item is anything that can be a key; lists are dicts in order of entry, oldest first.
"""

from __future__ import annotations

import math
from collections import Counter

from tests.parity.naive_replay import LSB, Replay


class Plain:
    """One list, oldest first out. size: of an item; capacity: of the cache, both in bytes."""

    names = ("main",)
    ghosts = ()

    def __init__(self, replay, capacity):
        self.replay, self.size, self.capacity = replay, replay.size, capacity
        self.begin([])

    def begin(self, items):
        """Start anew with these residents, oldest first; what was learnt stays."""
        self.lists = {name: {} for name in (*self.names, *self.ghosts)}
        self.mark = Counter()
        for item in items:
            self.insert(item)

    def where(self, item):
        return next((name for name, items in self.lists.items() if item in items), None)

    def holds(self, item):
        return self.where(item) in self.names

    def bytes(self, name):
        return sum(map(self.size, self.lists[name]))

    def take(self, item):
        del self.lists[self.where(item)][item]

    def push(self, name, item):
        self.lists[name][item] = None

    def move(self, name, item):
        self.take(item)
        self.push(name, item)

    def trim(self, name, most):
        while self.bytes(name) > most:
            self.take(next(iter(self.lists[name])))

    def free(self, name, spared):
        return [item for item in self.lists[name] if item not in spared]

    def first(self, names, spared):
        return next((item for name in names for item in self.free(name, spared)), None)

    # ------------------------------------------------------------------ what a strategy does

    def hit(self, item):
        pass

    def miss(self, item):
        self.mark[item] = 0

    def insert(self, item):
        self.push("main", item)

    def victim(self, spared):
        return self.first(["main"], spared)

    def leave(self, item):
        self.take(item)


class Clock(Plain):
    def hit(self, item):
        self.mark[item] = 1

    def victim(self, spared):
        while (free := self.free("main", spared)) and self.mark[free[0]]:
            self.mark[free[0]] = 0
            self.move("main", free[0])
        return free[0] if free else None


class Sieve(Plain):
    """hand: the item that it points at, or None for the oldest one."""

    def begin(self, items):
        self.hand = None
        super().begin(items)

    def hit(self, item):
        self.mark[item] = 1

    def take(self, item):
        order = [*self.lists["main"], None]
        if self.hand == item:
            self.hand = order[order.index(item) + 1]
        super().take(item)

    def victim(self, spared):
        order = list(self.lists["main"])
        if not self.free("main", spared):
            return None
        place = order.index(self.hand) if self.hand is not None else 0
        while order[place] in spared or self.mark[order[place]]:
            if order[place] not in spared:
                self.mark[order[place]] = 0
            place = (place + 1) % len(order)
        self.hand = order[place]
        return self.hand


class Slru(Plain):
    names = ("0", "1", "2", "3")

    def hit(self, item):
        level = min(int(self.where(item)) + 1, 3)
        self.move(str(level), item)
        for full in range(level, 0, -1):
            while self.bytes(str(full)) > self.capacity / 4:
                self.move(str(full - 1), next(iter(self.lists[str(full)])))

    def insert(self, item):
        room = [name for name in self.names if self.bytes(name) + self.size(item) <= self.capacity / 4]
        self.push(room[0] if room else "0", item)

    def victim(self, spared):
        return self.first(self.names, spared)


class TwoQ(Plain):
    names, ghosts = ("in", "main"), ("out",)

    def hit(self, item):
        if item in self.lists["main"]:
            self.move("main", item)

    def miss(self, item):
        self.mark[item] = item in self.lists["out"]
        if self.mark[item]:
            self.take(item)

    def insert(self, item):
        self.push("main" if self.mark[item] else "in", item)

    def victim(self, spared):
        names = ("in", "main") if self.bytes("in") > self.capacity // 4 else ("main", "in")
        return self.first(names, spared)

    def leave(self, item):
        if item in self.lists["in"]:
            self.move("out", item)
            self.trim("out", self.capacity // 2)
        else:
            self.take(item)


class Arc(Plain):
    names, ghosts = ("t1", "t2"), ("b1", "b2")
    target = 0.0
    asked_b2 = -1  # the last batch with a miss that b2 remembered

    def hit(self, item):
        self.move("t2", item)

    def miss(self, item):
        b1, b2, size, where = self.bytes("b1"), self.bytes("b2"), self.size(item), self.where(item)
        if where == "b1":
            self.target = min(self.capacity, self.target + size * max(1, b2 / b1))
        if where == "b2":
            self.target = max(0, self.target - size * max(1, b1 / b2))
            self.asked_b2 = self.replay.position
        self.mark[item] = where is not None
        if where:
            self.take(item)

    def insert(self, item):
        self.push("t2" if self.mark[item] else "t1", item)
        self.trim("b1", max(0, self.capacity - self.bytes("t1")))
        self.trim("b2", max(0, 2 * self.capacity - self.bytes("t1") - self.bytes("t2") - self.bytes("b1")))

    def victim(self, spared):
        t1 = self.bytes("t1")
        first = t1 > self.target or (t1 == self.target and self.asked_b2 == self.replay.position)
        return self.first(("t1", "t2") if first else ("t2", "t1"), spared)

    def leave(self, item):
        self.move("b1" if item in self.lists["t1"] else "b2", item)


class S3Fifo(Plain):
    names, ghosts = ("small", "main"), ("ghost",)
    evicted = False

    def hit(self, item):
        self.mark[item] = min(self.mark[item] + 1, 3)

    def miss(self, item):
        self.mark[item] = -1 if item in self.lists["ghost"] else 0
        if self.mark[item]:
            self.take(item)

    def insert(self, item):
        filled = self.bytes("small") >= int(0.1 * self.capacity)
        name = "main" if self.mark[item] == -1 or (filled and not self.evicted) else "small"
        self.mark[item] = 0
        self.push(name, item)

    def victim(self, spared):
        self.evicted = True
        while True:
            if self.bytes("main") > self.capacity - int(0.1 * self.capacity) or not self.free("small", spared):
                while free := self.free("main", spared):
                    if not self.mark[free[0]]:
                        return free[0]
                    self.mark[free[0]] -= 1
                    self.move("main", free[0])
                if not self.free("small", spared):
                    return None
            while free := self.free("small", spared):
                if self.mark[free[0]] < 2:
                    return free[0]
                self.mark[free[0]] = 0
                self.move("main", free[0])

    def leave(self, item):
        if item in self.lists["small"]:
            self.move("ghost", item)
            self.trim("ghost", int(0.9 * self.capacity))
        else:
            self.take(item)


class LeCar(Plain):
    names, ghosts = ("main",), ("lru", "lfu")

    def __init__(self, replay, capacity):
        self.lean, self.time, self.draws, self.left = 0.0, 0, 0, {}
        super().__init__(replay, capacity)

    def hit(self, item):
        self.time += 1
        self.mark[item] += 1
        self.move("main", item)

    def miss(self, item):
        self.time += 1
        where = self.where(item)
        if where is None:
            self.mark[item] = 1
            return
        regret = 0.45 * 0.005 ** ((self.time - self.left[item]) * self.size(item) / self.capacity)
        self.lean += regret if where == "lru" else -regret  # ln (weight of LFU / weight of LRU)
        self.mark[item] += 1
        self.take(item)

    def victim(self, spared):
        self.draws += 1
        cache, prime = self.replay.number_of(self), 2**31 - 1
        number = int(self.replay.drawn * prime) + self.draws * 16807 + cache
        for _ in range(3):
            number = (number * number % prime + cache + 1) * 48271 % prime
        self.choice = "lru" if number / prime < 1 / (1 + math.exp(self.lean)) else "lfu"
        free = self.free("main", spared)
        if not free:
            return None
        return free[0] if self.choice == "lru" else min(free, key=lambda item: self.mark[item])

    def leave(self, item):
        self.left[item] = self.time
        self.move(self.choice, item)
        self.trim(self.choice, self.capacity)


class ReuseDistance(Plain):
    """Intervals and waits by (class, age), as dicts."""

    starts = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)

    def __init__(self, replay, capacity):
        self.events, self.waits, self.lookups, self.last, self.mean = Counter(), {}, 0, {}, {}
        super().__init__(replay, capacity)

    def kind(self, item):
        return int(math.log2(self.mean[item])) if item in self.mean else None

    def age(self, interval):
        return max(place for place, start in enumerate(self.starts) if start <= interval)

    def learn(self, item):
        token = self.replay.token
        if item in self.last and token > self.last[item]:
            interval = token - self.last[item]
            self.events[self.kind(item), self.age(interval)] += 1.0
            mean = self.mean.get(item)
            self.mean[item] = interval if mean is None else mean + (interval - mean) / 4
        self.last[item] = token
        self.lookups += 1
        if self.lookups % self.replay.period == 0:
            for kind in (None, *range(13)):
                count = length = 0.0
                for age in range(len(self.starts) - 2, -1, -1):
                    length += self.events[kind, age] * (self.starts[age] + self.starts[age + 1] - 1) / 2
                    count += self.events[kind, age]
                    self.waits[kind, age] = length / count - self.starts[age] if count >= 1 else self.starts[age]
            self.events = Counter({key: value / 2 for key, value in self.events.items()})

    def hit(self, item):
        self.learn(item)
        self.move("main", item)

    def miss(self, item):
        self.learn(item)

    def victim(self, spared):
        def distance(item):
            layers = self.replay.setup.layers
            ahead = (item[0] - self.replay.layer - 1) % layers + 1
            passed = item[0] <= self.replay.layer
            age = self.age(self.replay.token - self.last.get(item, 0) + passed)
            return self.waits.get((self.kind(item), age), 0.0) * layers + ahead

        return max(self.free("main", spared), key=distance, default=None)


STRATEGIES = {
    "clock": Clock, "sieve": Sieve, "slru": Slru, "two-q": TwoQ, "arc": Arc, "s3-fifo": S3Fifo, "lecar": LeCar,
    "reuse-distance": ReuseDistance,
}  # fmt: skip


class ListedReplay(Replay):
    """The naive replay with a list strategy in decode. draws: a number for the start, and one for every prompt."""

    def __init__(self, setup, tokens, strategy, draws, period=2048):
        self.setup, self.drawn, self.draws, self.period = setup, draws[0], list(draws[1:]), period
        self.token, self.layer, self.decoding = 0, 0, False
        caches = setup.layers if setup.scope == "layer" else 1
        self.caches = [STRATEGIES[strategy](self, setup.capacity // caches) for _ in range(caches)]
        super().__init__(setup, tokens)

    def cache_for(self, layer):
        return self.caches[layer if self.setup.scope == "layer" else 0]

    def number_of(self, cache):
        return self.caches.index(cache)

    def begin_lists(self):
        for number, cache in enumerate(self.caches):
            mine = [item for item in self.resident if self.setup.scope != "layer" or item[0] == number]
            cache.begin(sorted(mine, key=self.by_use))

    def replay_request(self, prompt, answer):
        if self.setup.reset == "request":
            self.resident.clear()
            self.begin_lists()
        super().replay_request(prompt, answer)

    def stream(self, layer, prompt):
        self.decoding = False
        super().stream(layer, prompt)

    def hand_over(self):
        self.token += 1
        super().hand_over()
        self.drawn = self.draws.pop(0)
        self.begin_lists()

    def decode_batch(self, layer, row, budget):
        self.decoding, self.layer = True, layer
        self.token += layer == 0
        super().decode_batch(layer, row, budget)

    def look_up(self, batch, counts):
        before = set(self.resident)
        super().look_up(batch, counts)
        for item in batch if self.decoding else []:
            cache = self.cache_for(item[0])
            (cache.hit if item in before else cache.miss)(item)

    def evict(self, layer, protected, order):
        if not self.decoding:
            super().evict(layer, protected, order)
            return
        cache = self.cache_for(layer)
        while sum(map(self.size, self.cache_of(layer)[0])) > cache.capacity:
            item = cache.victim(protected)
            if item is None:
                break
            cache.leave(item)
            lsb = (item[0], item[1], LSB)
            if item != lsb and cache.holds(lsb):
                cache.take(lsb)
                cache.mark[lsb] = 0
            self.remove(item)
        for item in protected:
            if not cache.holds(item):
                cache.insert(item)
