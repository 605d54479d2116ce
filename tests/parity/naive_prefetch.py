"""Reading ahead on top of the naive replay: predictors in dicts and lists, written from their descriptions.

Stock routing, every miss fetched. It shares no code with ``slicesim``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from tests.parity.naive_replay import LSB, MSB, Replay, Setup


class Predictor:
    """Knows nothing. ``batch`` of a layer: list of (expert, gate, wants its LSB), by falling gate."""

    def __init__(self, depth: int = 1, **parameters: float) -> None:
        self.depth = depth
        self.parameters = parameters

    def begin_request(self) -> None: ...

    def learn(self, layer: int, batch: list, done: list) -> None:
        """done: batches of this token's layers before this one."""

    def count(self, read: int, used: int, missed: int) -> None:
        """Slices so far: read ahead, used of those, missed."""

    def points(self, layer: int, ahead: int, done: list, last: list, coming: list) -> list:
        """Return [((expert, kind), points)] in order. last: the token before; coming: what this one will want."""
        raise NotImplementedError


def requests(batch: list) -> list:
    return [(expert, kind) for expert, _, critical in batch for kind in ((MSB, LSB) if critical else (MSB,))]


def scores(batch: list) -> list:
    return [((expert, kind), gate) for expert, gate, critical in batch for kind in ((MSB, LSB) if critical else (MSB,))]


class PreviousToken(Predictor):
    def points(self, layer, ahead, done, last, coming):
        return scores(last[layer])


class Oracle(Predictor):
    def points(self, layer, ahead, done, last, coming):
        return scores(coming[layer])


class Popularity(Predictor):
    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.counts = defaultdict(lambda: defaultdict(float))

    def learn(self, layer, batch, done):
        decay = self.parameters.get("decay", 1.0)
        if decay < 1:
            for item in self.counts[layer]:
                self.counts[layer][item] *= decay
        for item in requests(batch):
            self.counts[layer][item] += 1

    def points(self, layer, ahead, done, last, coming):
        return sorted(self.counts[layer].items())


class Followers(Predictor):
    """What follows a context (an expert, or a path of two) at a distance."""

    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.table = defaultdict(Counter)

    def contexts(self, layer, done):
        return [expert for expert, _, _ in done[layer]]

    def learn(self, layer, batch, done):
        for distance in range(1, min(self.depth, layer) + 1):
            for context in self.contexts(layer - distance, done):
                self.table[distance, layer, context].update(requests(batch))

    def points(self, layer, ahead, done, last, coming):
        total = defaultdict(float)
        for context in self.contexts(layer - ahead, done):
            row = self.table[ahead, layer, context]
            whole = sum(count for (_, kind), count in row.items() if kind == MSB)
            for item, count in row.items():
                total[item] += count / whole
        return sorted(total.items())


class Path(Followers):
    def contexts(self, layer, done):
        if layer == 0:
            return []
        return [(first, second) for first, _, _ in done[layer - 1] for second, _, _ in done[layer]]


class Adaptive(Followers):
    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.most, self.reach = self.depth, 1
        self.batches, self.seen = 0, (0, 0, 0)

    def count(self, read, used, missed):
        self.batches += 1
        if self.batches == self.parameters["window"]:
            new_read, new_used, new_missed = (a - b for a, b in zip((read, used, missed), self.seen, strict=True))
            if new_used < self.parameters["low"] * new_read:
                self.reach = max(1, self.reach - 1)
            elif new_missed and new_used >= self.parameters["high"] * new_read:
                self.reach = min(self.most, self.reach + 1)
            self.batches, self.seen = 0, (read, used, missed)


class ActivationMatching(Predictor):
    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.filed, self.present, self.tokens = [], Counter(), 0

    def begin_request(self):
        if self.tokens:
            if len(self.filed) < self.parameters["kept"]:
                self.filed.append(self.present)
            else:
                best = self.best()
                self.filed[0 if best is None else best] = self.present
        self.present, self.tokens = Counter(), 0

    def learn(self, layer, batch, done):
        if layer == 0:
            if self.parameters["matrix_tokens"] and self.tokens == self.parameters["matrix_tokens"]:
                self.begin_request()
            self.tokens += 1
        self.present.update((layer, *item) for item in requests(batch))

    def best(self):
        def row(matrix, layer):
            return {item[1]: count for item, count in matrix.items() if item[0] == layer and item[2] == MSB}

        best, highest = None, 0.0
        for place, matrix in enumerate(self.filed):
            likeness = 0.0
            for layer in sorted({item[0] for item in self.present}):
                own, other = row(self.present, layer), row(matrix, layer)
                product = sum(count * other.get(expert, 0) for expert, count in own.items())
                lengths = sum(c * c for c in own.values()) * sum(c * c for c in other.values())
                likeness += product / math.sqrt(lengths) if lengths else 0.0
            if likeness > highest:
                best, highest = place, likeness
        return best

    def points(self, layer, ahead, done, last, coming):
        best = self.best()
        if best is None:
            return []
        return sorted((item[1:], count) for item, count in self.filed[best].items() if item[0] == layer)


PREDICTORS = {
    "previous-token": PreviousToken,
    "oracle": Oracle,
    "popularity": Popularity,
    "co-activation": Followers,
    "path": Path,
    "adaptive": Adaptive,
    "activation-matching": ActivationMatching,
}


class ReadingAhead(Replay):
    """A replay whose decode reads ahead. slices_read, used: how many slices, and those looked up before they left."""

    def __init__(self, setup: Setup, tokens: list[dict], name: str, budget: int, **parameters: float) -> None:
        self.predictor = PREDICTORS[name](**parameters)
        self.budget = budget
        self.last: list[list] = []
        self.ahead: set[tuple[int, int, int]] = set()
        self.slices_read = self.used = self.missed = 0
        super().__init__(setup, tokens)

    def replay_request(self, prompt, answer):
        self.predictor.begin_request()
        self.last = [[] for _ in range(self.setup.layers)]
        self.coming = [[self.batch_of_row(row) for row in token["layers"]] for token in answer]
        self.done: list[list] = []
        super().replay_request(prompt, answer)

    def batch_of_row(self, row):
        slots = sorted(range(len(row["ids"])), key=lambda slot: (-row["scores"][slot], slot))
        return [
            (row["ids"][s], row["scores"][s], self.setup.slices and row["scores"][s] >= self.setup.threshold)
            for s in slots
        ]

    def remove(self, item):
        super().remove(item)
        self.ahead &= self.resident

    def look_up(self, batch, counts):
        super().look_up(batch, counts)
        self.ahead -= set(batch)  # a prompt's look-up ends it too, unused as it is

    def decode_batch(self, layer, row, budget):
        own = self.batch_of_row(row)
        batch = [item for expert, _, critical in own for item in self.slices_of(layer, expert, critical)]
        begun = self.clock
        self.used += len(self.ahead & set(batch))
        self.missed += len(set(batch) - self.resident)
        self.look_up(batch, self.decode)
        self.predictor.learn(layer, own, self.done)
        self.predictor.count(self.slices_read, self.used, self.missed)
        self.done.append(own)
        reach = getattr(self.predictor, "reach", self.predictor.depth)
        last = min(layer + reach, self.setup.layers - 1)
        self.read_ahead(layer, last, batch, begun)
        for place in range(layer, last + 1):
            protected = [item for item in self.resident if self.last_use[item] > begun]
            self.evict(place, protected, self.coldness)
        self.bytes_after_batch.append(sum(map(self.size, self.resident)))
        if layer == self.setup.layers - 1:
            self.last, self.done = self.done, []
            self.coming.pop(0)

    def read_ahead(self, layer, last, batch, begun):
        left, kept = self.budget, sum(map(self.size, batch))
        for target in range(layer + 1, last + 1):
            if self.setup.scope == "layer":
                kept = 0
            capacity = self.cache_of(target)[1]
            guesses = self.predictor.points(target, target - layer, self.done, self.last, self.coming[0])
            open_guesses = [((target, *item), points) for item, points in guesses if points > 0]
            open_guesses = [(item, points) for item, points in open_guesses if item not in self.resident]
            while True:
                possible = [
                    (item, points)
                    for item, points in open_guesses
                    if item[2] == MSB or (*item[:2], MSB) in self.resident
                ]
                if not possible:
                    break
                chosen = max(possible, key=lambda guess: guess[1])  # the first one of equals
                open_guesses.remove(chosen)
                item, msb = chosen[0], (*chosen[0][:2], MSB)
                more = self.size(item)
                if item[2] == LSB and self.last_use[msb] <= begun:
                    more += self.size(msb)
                if self.size(item) > left or kept + more > capacity:
                    continue
                left, kept = left - self.size(item), kept + more
                self.insert(item)
                self.ahead.add(item)
                self.slices_read += 1
                self.decode.flash_bytes += self.size(item)
                for stamped in (item, msb) if item[2] == LSB else (item,):
                    self.clock += 1
                    self.last_use[stamped] = self.clock
