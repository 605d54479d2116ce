"""A second replay of the decisions, written from the specification alone: slow, plain and short.

It shares no code with ``slicesim``. Lists, dicts and sets only; every choice is a ``min`` or a ``sorted`` over all
candidates. A trace is a list of tokens, requests one after the other and each prompt before its answer::

    {"request": 0, "phase": "prefill" | "decode", "layers": [{"ids": [...], "scores": [...], "logits": [...] | None}]}

A slice is the tuple (layer, expert, kind); kind 0 is the MSB (or the whole object), kind 1 the LSB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MSB, LSB = 0, 1
NEVER = math.inf


@dataclass
class Setup:
    """All settings of one replay."""

    experts: int
    layers: int
    sizes: list[tuple[int, int]]  # per layer: bytes of an MSB (or of the one object) and of an LSB
    capacity: int
    objects: str = "slices"  # slices | expert | msb: the last two hold one object per expert
    eviction: str = "lru"  # lru | dbsc | lfu-keep | lfu-forget | fifo | belady
    warmup: str = "none"  # none | empty | last-layer | pcw | pcw-topup
    threshold: float = 0.1
    prefill_precision: str = "both"  # both | threshold
    scope: str = "global"  # global | layer
    reset: str = "never"  # never | request
    target: float | None = None  # of the miss budget; None: no constraint
    start_step: int = 10
    strength: float | None = None  # of Cache-Prior; None: stock routing
    top_j: int = 2


@dataclass
class Counts:
    """What one phase did."""

    requests: list[int] = field(default_factory=lambda: [0, 0])  # by kind
    hits: list[int] = field(default_factory=lambda: [0, 0])
    misses: list[int] = field(default_factory=lambda: [0, 0])
    degraded: int = 0
    substituted: int = 0
    dropped: int = 0
    flash_bytes: int = 0  # the top-up's included
    topup_bytes: int = 0


def stock_order(scores):
    """Slots by falling score, equal scores by slot."""
    return sorted(range(len(scores)), key=lambda slot: (-scores[slot], slot))


def softmax(logits):
    largest = max(logits)
    powers = [math.exp(value - largest) for value in logits]
    return [power / sum(powers) for power in powers]


class Replay:
    """One run over a trace; ``prefill``, ``decode`` and ``resident`` are its result."""

    def __init__(self, setup, tokens):
        self.setup, self.tokens = setup, tokens
        self.prefill, self.decode = Counts(), Counts()
        self.clock = 0  # one tick per stamp
        self.position = 0  # one tick per batch
        self.spread = [[0.0, 0] for _ in range(setup.layers)]  # sum and number of max - min of the logits
        self.forget_everything()
        self.requests = []  # each: (prompt tokens, answer tokens)
        last = None
        for token in tokens:
            if token["request"] != last:
                self.requests.append(([], []))
                last = token["request"]
            self.requests[-1][token["phase"] == "decode"].append(token)
        self.uses = self.future() if setup.eviction == "belady" else {}
        for prompt, answer in self.requests:
            self.replay_request(prompt, answer)

    def forget_everything(self):
        self.resident, self.last_use, self.inserted, self.lookups = set(), {}, {}, {}

    # ------------------------------------------------------------------ what is asked for

    def two_slices(self):
        return self.setup.objects == "slices"

    def wants(self, layer, expert, critical):
        """The slices of an expert, in the order of their stamps: the LSB just before its MSB."""
        if self.two_slices() and critical:
            return [(layer, expert, LSB), (layer, expert, MSB)]
        return [(layer, expert, MSB)]

    def prompt_sums(self, prompt, layer):
        """Per expert of a layer: selections, critical selections, sum of scores."""
        sums = {}
        for token in prompt:
            row = token["layers"][layer]
            for expert, score in zip(row["ids"], row["scores"], strict=True):
                entry = sums.setdefault(expert, [0, 0, 0.0])
                entry[0] += 1
                entry[1] += score >= self.setup.threshold
                entry[2] += score
        return sums

    def prompt_batch(self, layer, sums):
        union = sorted(sums, key=lambda expert: (-sums[expert][2], expert))
        batch = []
        for expert in union:
            batch += self.wants(layer, expert, self.setup.prefill_precision == "both" or sums[expert][1] > 0)
        return batch

    def future(self):
        """Every slice's uses as positions in program order, with stock routing and every request granted."""
        uses, position = {}, 0
        for prompt, answer in self.requests:
            batches = []
            if prompt:
                for layer in range(self.setup.layers):
                    batches.append(self.prompt_batch(layer, self.prompt_sums(prompt, layer)))
            for token in answer:
                for layer, row in enumerate(token["layers"]):
                    batch = []
                    for expert, score in zip(row["ids"], row["scores"], strict=True):
                        batch += self.wants(layer, expert, score >= self.setup.threshold)
                    batches.append(batch)
            for batch in batches:
                for item in batch:
                    uses.setdefault(item, []).append(position)
                position += 1
        return uses

    # ------------------------------------------------------------------ the cache

    def size(self, item):
        return self.setup.sizes[item[0]][item[2]]

    def number(self, item):
        return (item[0] * self.setup.experts + item[1]) * 2 + item[2]

    def share(self, layer):
        """The resident slices and the capacity of the cache that serves a layer."""
        if self.setup.scope == "layer":
            return {item for item in self.resident if item[0] == layer}, self.setup.capacity // self.setup.layers
        return set(self.resident), self.setup.capacity

    def by_use(self, item):
        return (self.last_use.get(item, -1), self.number(item))

    def coldness(self, item):
        """The eviction strategy's order: least is first to go."""
        strategy = self.setup.eviction
        if strategy == "lru":
            return self.by_use(item)
        if strategy == "dbsc":
            return (item[2] == MSB, *self.by_use(item))
        if strategy in ("lfu-keep", "lfu-forget"):
            return (self.lookups.get(item, 0), *self.by_use(item))
        if strategy == "fifo":
            return (self.inserted[item], *self.by_use(item))
        assert strategy == "belady"
        coming = [use for use in self.uses.get(item, []) if use > self.position]
        return (-min(coming, default=NEVER), self.number(item))

    def remove(self, item):
        """Take a slice out; an LSB never outlives its MSB."""
        gone = [item, (item[0], item[1], LSB)] if item[2] == MSB else [item]
        for one in gone:
            if one in self.resident:
                self.resident.remove(one)
                if self.setup.eviction == "lfu-forget":
                    self.lookups[one] = 0

    def insert(self, item):
        if item not in self.resident:
            self.resident.add(item)
            self.inserted[item] = self.clock

    def look_up(self, batch, counts):
        """Count hits and misses against the residency as it was, stamp in order, insert what was missing."""
        before = set(self.resident)
        for item in batch:
            counts.requests[item[2]] += 1
            if item in before:
                counts.hits[item[2]] += 1
            else:
                counts.misses[item[2]] += 1
                counts.flash_bytes += self.size(item)
            self.clock += 1
            self.last_use[item] = self.clock
            self.lookups[item] = self.lookups.get(item, 0) + 1
            self.insert(item)

    def evict(self, layer, candidates, order):
        """Take out the first of the candidates by ``order`` until the bytes fit or no candidate is left."""
        while True:
            held, capacity = self.share(layer)
            left = [item for item in held if item in candidates]
            if sum(self.size(item) for item in held) <= capacity or not left:
                return
            self.remove(min(left, key=order))

    # ------------------------------------------------------------------ requests

    def replay_request(self, prompt, answer):
        if self.setup.reset == "request":
            self.forget_everything()
        if prompt:
            self.stream(prompt)
            self.hand_over()
        budget = {"lookups": 0, "misses": 0}
        for step, token in enumerate(answer):
            for layer, row in enumerate(token["layers"]):
                self.decode_batch(layer, row, budget if step >= self.setup.start_step else None)
                self.position += 1

    def stream(self, prompt):
        """The prompt, layer by layer; a layer's union of experts is one batch."""
        self.sums = {}
        for layer in range(self.setup.layers):
            self.sums[layer] = self.prompt_sums(prompt, layer)
            batch = self.prompt_batch(layer, self.sums[layer])
            self.look_up(batch, self.prefill)
            mine = set(batch)

            def order(item, layer=layer, mine=mine):
                turn = 2 if item in mine else 1 if item[0] > layer else 0  # the batch's own, layers to come, others
                if self.setup.warmup == "none":
                    return (turn, self.coldness(item))
                if self.setup.warmup in ("pcw", "pcw-topup"):
                    return (turn, item[2] == MSB, self.count(item), self.score_sum(item), *self.by_use(item))
                return (turn, *self.by_use(item))  # empty, last-layer

            self.evict(layer, set(self.resident), order)
            self.position += 1

    def count(self, item):
        return self.sums.get(item[0], {}).get(item[1], [0, 0, 0.0])[item[2]]

    def score_sum(self, item):
        return self.sums.get(item[0], {}).get(item[1], [0, 0, 0.0])[2]

    def heat(self, item):
        """At the hand-over: slices without count are coldest, then LSBs, then MSBs."""
        count = self.count(item)
        group = 0 if count == 0 else 1 if item[2] == LSB else 2
        return (group, count, self.score_sum(item), *self.by_use(item))

    def hand_over(self):
        if self.setup.warmup == "empty":
            for item in set(self.resident):
                self.remove(item)
        if self.setup.warmup == "pcw-topup":
            for layer in range(self.setup.layers) if self.setup.scope == "layer" else [0]:
                self.top_up(layer)
        if self.setup.warmup in ("pcw", "pcw-topup"):
            for item in sorted(self.resident, key=self.heat):
                self.clock += 1
                self.last_use[item] = self.clock

    def top_up(self, layer):
        held, capacity = self.share(layer)
        wanted = set(held)
        for where in [layer] if self.setup.scope == "layer" else range(self.setup.layers):
            for expert in self.sums[where]:
                kinds = (MSB, LSB) if self.two_slices() else (MSB,)
                wanted |= {(where, expert, kind) for kind in kinds if self.count((where, expert, kind)) > 0}
        taken, used = [], 0
        for item in sorted(wanted, key=self.heat, reverse=True):
            if used + self.size(item) > capacity:
                break
            taken.append(item)
            used += self.size(item)
        taken = [item for item in taken if item[2] == MSB or (item[0], item[1], MSB) in taken]
        for item in held:
            if item not in taken:
                self.remove(item)
        for item in taken:
            if item not in self.resident:
                self.prefill.topup_bytes += self.size(item)
                self.prefill.flash_bytes += self.size(item)
            self.insert(item)

    # ------------------------------------------------------------------ decode

    def decode_batch(self, layer, row, budget):
        batch = self.route(layer, row)  # (expert, score) by falling score
        slots = [{"expert": e, "critical": s >= self.setup.threshold, "denied": False} for e, s in batch]
        if self.setup.target is not None and budget is not None:
            self.keep_budget(layer, row, slots, budget)
        items = []
        for slot in slots:
            if slot["expert"] is not None:
                items += self.wants(layer, slot["expert"], slot["critical"] and not slot["denied"])
        if budget is not None:
            budget["lookups"] += len(items)
            budget["misses"] += len([item for item in items if item not in self.resident])
        self.look_up(items, self.decode)
        self.evict(layer, self.resident - set(items), self.coldness)

    def scores(self, row):
        """Every known expert's original score: the recorded ones, the others from the logits."""
        known = dict(enumerate(softmax(row["logits"]))) if row["logits"] else {}
        return known | dict(zip(row["ids"], row["scores"], strict=True))

    def route(self, layer, row):
        stock = [row["ids"][slot] for slot in stock_order(row["scores"])]
        scores = self.scores(row)
        if self.setup.strength is None:
            return [(expert, scores[expert]) for expert in stock]
        logits, spread = row["logits"], self.spread[layer]
        spread[0] += max(logits) - min(logits)
        spread[1] += 1
        boost = self.setup.strength * spread[0] / spread[1]
        forced = stock[: self.setup.top_j]

        def standing(expert):  # originals in their stock order before others, others by id
            return stock.index(expert) if expert in stock else len(stock) + expert

        def rank(expert):
            lifted = expert in forced or (layer, expert, MSB) in self.resident
            return (expert not in forced, -(logits[expert] + (boost if lifted else 0.0)), standing(expert))

        chosen = sorted(range(len(logits)), key=rank)[: len(stock)]
        return [(expert, scores[expert]) for expert in sorted(chosen, key=lambda e: (-scores[e], standing(e)))]

    def keep_budget(self, layer, row, slots, budget):
        """Deny LSB fetches, then missing experts, always the lowest gate first, until the running rate is met."""

        def met():
            items = []
            for slot in slots:
                if slot["expert"] is not None:
                    items += self.wants(layer, slot["expert"], slot["critical"] and not slot["denied"])
            misses = budget["misses"] + len([item for item in items if item not in self.resident])
            return misses <= self.setup.target * (budget["lookups"] + len(items))

        def degrade(slot):
            slot["denied"] = True
            self.decode.degraded += 1
            self.decode.requests[LSB] += 1

        for slot in reversed(slots):
            fetches = self.two_slices() and slot["critical"] and (layer, slot["expert"], LSB) not in self.resident
            if fetches and not met():
                degrade(slot)
        batch = {slot["expert"] for slot in slots}
        for slot in reversed(slots[1:]):
            if (layer, slot["expert"], MSB) in self.resident or met():
                continue
            self.decode.requests[MSB] += 1  # the original's, denied
            others = [e for e in range(self.setup.experts) if (layer, e, MSB) in self.resident and e not in batch]
            if not row["logits"] or not others:
                slot["expert"] = None
                self.decode.dropped += 1
                continue
            best = min(others, key=lambda e: (-row["logits"][e], e))
            batch.add(best)
            slot["expert"] = best
            slot["critical"] = self.scores(row)[best] >= self.setup.threshold
            self.decode.substituted += 1
            lsb = (layer, best, LSB)
            if self.two_slices() and slot["critical"] and not slot["denied"] and lsb not in self.resident:
                degrade(slot)
