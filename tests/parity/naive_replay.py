"""A second replay of the decisions, written from the specification alone: slow, plain and short.

It shares no code with ``slicesim``. Lists, dicts and sets only; every choice is a ``min`` or a ``sorted`` over all
candidates. A trace is a list of tokens, requests one after the other and each prompt before its answer::

    {"request": 0, "phase": "prefill" | "decode", "layers": [{"ids": [...], "scores": [...]}, ...]}

A layer that knows the whole router has ``logits`` and ``all_scores`` of every expert besides.
A slice is the tuple (layer, expert, kind); kind 0 is the MSB (or the whole object), kind 1 the LSB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MSB, LSB = 0, 1


@dataclass
class Setup:
    """All settings of one replay."""

    experts: int
    layers: int
    sizes: list[tuple[int, int]]  # per layer: bytes of an MSB (or of the one object) and of an LSB
    capacity: int
    slices: bool = True  # False: one object per expert (the whole of it, or its MSB alone)
    eviction: str = "lru"  # lru | dbsc | lfu-keep | lfu-forget | fifo | successor | belady
    warmup: str = "none"  # none | empty | last-layer | pcw | pcw-topup
    threshold: float = 0.1
    prefill_precision: str = "high"  # high: both slices | threshold: an LSB only for a critical selection
    scope: str = "global"  # global | layer
    reset: str = "never"  # never | request
    target: float | None = None  # of the miss budget; None: no constraint
    start_step: int = 10
    pace: dict | None = None  # share, gain: the budget is spent by a price
    strength: float | None = None  # of Cache-Prior; None: stock routing
    top_j: int = 2
    precision: str = "threshold"  # threshold | top-1 | budgeted | hobbit | static-widths
    most_high: int = 2  # of budgeted
    t1: float = 0.6  # of hobbit
    t2: float = 0.9
    high: set[tuple[int, int]] = field(default_factory=set)  # of static-widths: (layer, expert)
    skip: dict | None = None  # beta, mass, only_missing
    buddy: dict | None = None  # buddies, most, flatness, margin, top_j


@dataclass
class Counts:
    """What one phase did; lists are [of MSBs, of LSBs]."""

    requests: list[int] = field(default_factory=lambda: [0, 0])
    hits: list[int] = field(default_factory=lambda: [0, 0])
    misses: list[int] = field(default_factory=lambda: [0, 0])
    degraded: int = 0
    substituted: int = 0
    dropped: int = 0
    flash_bytes: int = 0  # the top-up's included
    topup_bytes: int = 0


class Replay:
    """One run over a trace. Its result: prefill and decode (Counts), resident, and resident bytes batch by batch."""

    def __init__(self, setup: Setup, tokens: list[dict]) -> None:
        self.setup = setup
        self.prefill, self.decode = Counts(), Counts()
        self.resident: set[tuple[int, int, int]] = set()
        self.bytes_after_batch: list[int] = []  # of decode
        self.clock = 0  # one tick per stamp
        self.position = 0  # one tick per batch
        self.last_use, self.inserted, self.lookups = {}, {}, {}
        self.spreads = [[] for _ in range(setup.layers)]  # max - min of the logits of every decode token so far
        self.together = {}  # (layer, expert, other): how often chosen in one top-k
        self.price = 0.0  # of a pace
        self.ran_last, self.came_after, self.followed = {}, {}, {}  # of successor
        self.recent, self.scores = {}, {}
        self.dropped_mass = [0.0, 0.0]  # of prompts and of decode
        self.requests: list[tuple[list, list]] = []  # (prompt tokens, answer tokens)
        for before, token in zip([None, *tokens], tokens, strict=False):
            if before is None or token["request"] != before["request"]:
                self.requests.append(([], []))
            self.requests[-1][token["phase"] == "decode"].append(token)
        self.uses = self.future() if setup.eviction == "belady" else {}
        for prompt, answer in self.requests:
            self.replay_request(prompt, answer)

    # ------------------------------------------------------------------ what is asked for

    def slices_of(self, layer, expert, both):
        """What one expert requests, in the order of the stamps: the LSB just before its MSB."""
        return [(layer, expert, LSB), (layer, expert, MSB)] if both and self.setup.slices else [(layer, expert, MSB)]

    def ranked(self, row):
        """The token's own choice by falling score, equal scores by slot."""
        slots = sorted(range(len(row["ids"])), key=lambda slot: (-row["scores"][slot], slot))
        return [(row["ids"][slot], row["scores"][slot]) for slot in slots]

    def mass_before(self, row, expert):
        """Share of the choice's mass in the experts ranked before one; 1 for an expert that was not chosen."""
        before, found, total = 0.0, None, 0.0
        for other, score in self.ranked(row):
            if other == expert:
                before, found = total, True
            total += score
        return (before / total if total else 0.0) if found else 1.0

    def is_high(self, layer, row, expert, score):
        """Whether an expert asks for both slices."""
        setup, own = self.setup, [other for other, _ in self.ranked(row)]
        if setup.precision == "top-1":
            return expert == own[0] or score >= setup.threshold
        if setup.precision == "budgeted":
            return expert in own[: setup.most_high] and score >= setup.threshold
        if setup.precision == "hobbit":
            return expert in own and self.mass_before(row, expert) <= setup.t1
        if setup.precision == "static-widths":
            return (layer, expert) in setup.high
        return score >= setup.threshold

    def is_skipped(self, row, expert):
        return self.setup.slices and self.setup.precision == "hobbit" and self.mass_before(row, expert) > self.setup.t2

    def prompt_sums(self, prompt, layer):
        """Per expert of a layer: selections, critical selections, sum of scores."""
        sums = {}
        for token in prompt:
            row = token["layers"][layer]
            for expert, score in zip(row["ids"], row["scores"], strict=True):
                if self.setup.prefill_precision != "high" and self.is_skipped(row, expert):
                    continue
                entry = sums.setdefault(expert, [0, 0, 0.0])
                entry[0] += 1
                entry[1] += self.is_high(layer, row, expert, score)
                entry[2] += score
        return sums

    def prompt_batch(self, layer, sums):
        batch = []
        for expert in sorted(sums, key=lambda expert: (-sums[expert][2], expert)):
            both = self.setup.prefill_precision == "high" or sums[expert][1] > 0
            batch += self.slices_of(layer, expert, both)
        return batch

    def future(self):
        """Every slice's uses, as positions in program order: stock routing, every request granted."""
        batches = []
        for prompt, answer in self.requests:
            for layer in range(self.setup.layers) if prompt else []:
                batches.append(self.prompt_batch(layer, self.prompt_sums(prompt, layer)))
            for token in answer:
                for layer, row in enumerate(token["layers"]):
                    pairs = zip(row["ids"], row["scores"], strict=True)
                    runs = [(e, s) for e, s in pairs if not self.is_skipped(row, e)]
                    wanted = [self.slices_of(layer, e, self.is_high(layer, row, e, s)) for e, s in runs]
                    batches.append([item for items in wanted for item in items])
        uses = {}
        for position, batch in enumerate(batches):
            for item in batch:
                uses.setdefault(item, []).append(position)
        return uses

    # ------------------------------------------------------------------ the cache

    def size(self, item):
        return self.setup.sizes[item[0]][item[2]]

    def cache_of(self, layer):
        """The resident slices and the capacity of the cache that serves a layer."""
        if self.setup.scope == "layer":
            return {item for item in self.resident if item[0] == layer}, self.setup.capacity // self.setup.layers
        return set(self.resident), self.setup.capacity

    def by_use(self, item):
        """The last two keys of every order: last use, then id."""
        return (self.last_use.get(item, -1), (item[0] * self.setup.experts + item[1]) * 2 + item[2])

    def coldness(self, item):
        """The eviction strategy's order: least is first to go."""
        strategy = self.setup.eviction
        if strategy == "lru":
            return self.by_use(item)
        if strategy == "dbsc":
            return (item[2] == MSB, *self.by_use(item))
        if strategy in ("lfu-keep", "lfu-forget"):
            return (self.lookups[item], *self.by_use(item))
        if strategy == "fifo":
            return (self.inserted[item], *self.by_use(item))
        if strategy == "successor":
            return (self.scores.get(item, 0.0), *self.by_use(item))
        assert strategy == "belady"
        coming = [position for position in self.uses.get(item, []) if position > self.position]
        return (-min(coming, default=math.inf), self.by_use(item)[1])

    def insert(self, item):
        if item not in self.resident:
            self.resident.add(item)
            self.inserted[item] = self.clock
            if self.setup.eviction == "lfu-forget" or item not in self.lookups:
                self.lookups[item] = 0

    def remove(self, item):
        """Take a slice out; an LSB never outlives its MSB."""
        self.resident.discard(item)
        if item[2] == MSB:
            self.resident.discard((item[0], item[1], LSB))

    def look_up(self, batch, counts):
        """Count hits and misses against the residency as it was; stamp in order; insert what was missing."""
        before = set(self.resident)
        for item in batch:
            counts.requests[item[2]] += 1
            (counts.hits if item in before else counts.misses)[item[2]] += 1
            counts.flash_bytes += 0 if item in before else self.size(item)
            self.insert(item)
            self.clock += 1
            self.last_use[item] = self.clock
            self.lookups[item] += 1

    def evict(self, layer, protected, order):
        """Take out the first by ``order`` until the bytes fit or only protected ones are left."""
        held, capacity = self.cache_of(layer)
        if sum(map(self.size, held)) <= capacity:
            return
        for item in sorted(held - set(protected), key=order):  # no removal changes another slice's place
            self.remove(item)
            if sum(map(self.size, self.cache_of(layer)[0])) <= capacity:
                return

    # ------------------------------------------------------------------ prefill

    def replay_request(self, prompt, answer):
        if self.setup.reset == "request":
            self.resident.clear()
        if prompt:
            self.sums = [{} for _ in range(self.setup.layers)]
            self.look_at(prompt)
            for layer in range(self.setup.layers):
                self.stream(layer, prompt)
                self.position += 1
            self.hand_over()
        budget = {"lookups": 0, "misses": 0}
        for step, token in enumerate(answer):
            active = self.setup.target is not None and step >= self.setup.start_step
            for layer, row in enumerate(token["layers"]):
                self.decode_batch(layer, row, budget if active else None)
                self.position += 1

    def look_at(self, prompt):
        """Count what the prompt's tokens choose together, and the mass of what they skip."""
        for token in prompt:
            for layer, row in enumerate(token["layers"]):
                self.count_pairs(layer, row["ids"])
                self.observe(layer, [(e, self.is_high(layer, row, e, score)) for e, score in self.ranked(row)])
                if self.setup.prefill_precision != "high":
                    pairs = zip(row["ids"], row["scores"], strict=True)
                    self.dropped_mass[0] += sum(score for expert, score in pairs if self.is_skipped(row, expert))

    def count_pairs(self, layer, experts):
        for one in experts:
            for other in experts:
                if one != other:
                    self.together[layer, one, other] = self.together.get((layer, one, other), 0) + 1

    def stream(self, layer, prompt):
        """One layer of the prompt: its union of experts is one batch."""
        self.sums[layer] = self.prompt_sums(prompt, layer)
        batch = self.prompt_batch(layer, self.sums[layer])
        self.look_up(batch, self.prefill)

        def order(item):
            turn = item[0] > layer  # layers to come stay longer
            if self.setup.warmup == "none":
                return (turn, self.coldness(item))
            if self.setup.warmup in ("pcw", "pcw-topup"):
                return (turn, item[2] == MSB, self.count(item), self.score_sum(item), *self.by_use(item))
            return (turn, *self.by_use(item))  # empty, last-layer

        self.evict(layer, [], order)

    def count(self, item):
        """Selections of an MSB, critical selections of an LSB, in this request's prompt so far."""
        return self.sums[item[0]].get(item[1], [0, 0, 0.0])[item[2]]

    def score_sum(self, item):
        return self.sums[item[0]].get(item[1], [0, 0, 0.0])[2]

    def heat(self, item):
        """At the hand-over: slices without count are coldest; with or without, LSBs are colder than MSBs."""
        return (self.count(item) > 0, item[2] == MSB, self.count(item), self.score_sum(item), *self.by_use(item))

    def hand_over(self):
        if self.setup.warmup == "empty":
            self.resident.clear()
        if self.setup.warmup == "pcw-topup":
            for layer in range(self.setup.layers) if self.setup.scope == "layer" else [0]:
                self.top_up(layer)
        if self.setup.warmup in ("pcw", "pcw-topup"):
            for item in sorted(self.resident, key=self.heat):
                self.clock += 1
                self.last_use[item] = self.clock

    def top_up(self, layer):
        held, capacity = self.cache_of(layer)
        wanted = set(held)
        for where in [layer] if self.setup.scope == "layer" else range(self.setup.layers):
            for expert in self.sums[where]:
                wanted |= {item for item in self.slices_of(where, expert, True) if self.count(item) > 0}
        taken = []
        for item in sorted(wanted, key=self.heat, reverse=True):
            if sum(map(self.size, taken)) + self.size(item) > capacity:
                break
            taken.append(item)
        taken = [item for item in taken if item[2] == MSB or (item[0], item[1], MSB) in taken]
        for item in held.difference(taken):
            self.remove(item)
        for item in taken:
            read = 0 if item in self.resident else self.size(item)
            self.prefill.topup_bytes += read
            self.prefill.flash_bytes += read
            self.insert(item)

    # ------------------------------------------------------------------ decode

    def decode_batch(self, layer, row, budget):
        scores = dict(enumerate(row.get("all_scores", []))) | dict(zip(row["ids"], row["scores"], strict=True))
        slots = []
        for expert in self.route(layer, row, scores):
            high = self.setup.slices and self.is_high(layer, row, expert, scores[expert])
            slots.append({"expert": expert, "lsb": high, "gate": scores[expert]})
        self.observe(layer, [(slot["expert"], slot["lsb"]) for slot in slots])
        self.drop([slot for slot in slots if self.is_skipped(row, slot["expert"])])
        if self.setup.skip is not None:
            self.skip(layer, slots, **self.setup.skip)
        if self.setup.buddy is not None:
            self.find_buddies(layer, slots, **self.setup.buddy)
        if budget is not None:
            self.keep_budget(layer, row, scores, slots, budget)
        batch = self.batch_of(layer, slots)
        self.look_up(batch, self.decode)
        self.evict(layer, batch, self.coldness)
        self.bytes_after_batch.append(sum(map(self.size, self.resident)))

    def observe(self, layer, chosen):
        """Successor: who was wanted after whom, who was wanted lately, and the scores that follow."""
        kept, experts = 2.0 ** (-1.0 / 6.0), self.setup.experts
        wanted = [(layer, e, MSB) for e, _ in chosen]
        wanted += [(layer, e, LSB) for e, high in chosen if high and self.setup.slices]
        for before in self.ran_last.get(layer, []):
            self.came_after[layer, before] = self.came_after.get((layer, before), 0) + 1
            for item in wanted:
                self.followed[before, item] = self.followed.get((before, item), 0) + 1
        self.ran_last[layer] = [e for e, _ in chosen]
        for item in [(layer, e, kind) for e in range(experts) for kind in (MSB, LSB)]:
            self.recent[item] = self.recent.get(item, 0.0) * kept + (1 - kept if item in wanted else 0.0)
            shares = [
                (self.followed.get((e, item), 0) + len(chosen) / experts) / (self.came_after.get((layer, e), 0) + 1)
                for e in self.ran_last[layer]
            ]
            self.scores[item] = (sum(shares) / len(chosen) + 0.01) * math.sqrt(self.recent[item] + 0.01)

    def drop(self, slots):
        """Leave experts out: a denied request each."""
        for slot in slots:
            slot["expert"], slot["lsb"] = None, False
            self.dropped_mass[1] += slot["gate"]
            self.decode.dropped += 1
            self.decode.requests[MSB] += 1

    def skip(self, layer, slots, beta, mass, only_missing):
        """Leave out what is small beside the first, or comes after enough mass; never the first."""
        gates = [slot["gate"] for slot in slots]
        small = []
        for place, slot in enumerate(slots[1:], 1):
            is_small = gates[place] < beta * gates[0] or sum(gates[:place]) > mass * sum(gates)
            is_there = (layer, slot["expert"], MSB) in self.resident
            if is_small and slot["expert"] is not None and not (only_missing and is_there):
                small.append(slot)
        self.drop(small)

    def find_buddies(self, layer, slots, buddies, most, flatness, margin, top_j):
        """Put a resident expert that is often chosen together with a missing one in its place."""
        self.count_pairs(layer, [slot["expert"] for slot in slots if slot["expert"] is not None])
        gates = [slot["gate"] for slot in slots]
        shares = [gate / sum(gates) for gate in gates]
        entropy = -sum(share * math.log(share) for share in shares if share > 0)
        if entropy < flatness * math.log(len(slots)) or (gates[0] - gates[1]) / sum(gates) > margin:
            return
        replaced = 0
        for slot in reversed(slots[top_j:]):
            own = slot["expert"]
            if replaced == most or own is None or (layer, own, MSB) in self.resident:
                continue
            known = [e for e in range(self.setup.experts) if (layer, own, e) in self.together]
            known = sorted(known, key=lambda e: (-self.together[layer, own, e], e))[:buddies]
            taken = [other["expert"] for other in slots]
            free = [e for e in known if (layer, e, MSB) in self.resident and e not in taken]
            if free:
                slot["expert"] = free[0]
                replaced += 1
                self.decode.substituted += 1
                self.decode.requests[MSB] += 1

    def batch_of(self, layer, slots):
        wanted = [self.slices_of(layer, slot["expert"], slot["lsb"]) for slot in slots if slot["expert"] is not None]
        return [item for items in wanted for item in items]

    def route(self, layer, row, scores):
        """Return the experts by falling original score, equal scores by slot."""
        stock = [expert for expert, _ in self.ranked(row)]
        if self.setup.strength is None:
            return stock
        logits, spreads = row["logits"], self.spreads[layer]
        spreads.append(max(logits) - min(logits))
        bonus = self.setup.strength * (sum(spreads) / len(spreads))
        forced = stock[: self.setup.top_j]

        def rank(expert):  # ties: originals in their stock order before all others, those by id
            biased = logits[expert] + (bonus if (layer, expert, MSB) in self.resident else 0.0)
            return (expert not in forced, -biased, stock.index(expert) if expert in stock else len(logits) + expert)

        chosen = sorted(range(len(logits)), key=rank)[: len(stock)]
        order = [e for e in stock if e in chosen] + sorted(e for e in chosen if e not in stock)
        return sorted(order, key=lambda expert: -scores[expert])

    def keep_budget(self, layer, row, scores, slots, budget):
        """Deny LSB fetches, then missing experts, always the lowest gate first, until the running rate is met."""

        def after():
            batch = self.batch_of(layer, slots)
            missing = [item for item in batch if item not in self.resident]
            return budget["misses"] + len(missing), budget["lookups"] + len(batch)

        def met():
            misses, lookups = after()
            return misses <= self.setup.target * lookups

        before = dict(budget)
        pace = self.setup.pace

        def deny_lsb(slot):
            slot["lsb"], slot["denied"] = False, True
            self.decode.degraded += 1
            self.decode.requests[LSB] += 1

        for slot in reversed(slots):
            if slot["lsb"] and (layer, slot["expert"], LSB) not in self.resident and (pace or not met()):
                deny_lsb(slot)
        for slot in reversed(slots[1:]):
            if (
                slot["expert"] is None
                or (layer, slot["expert"], MSB) in self.resident
                or (met() and slot["gate"] >= self.price)
            ):
                continue
            self.decode.requests[MSB] += 1  # the original's, denied
            others = [e for e in range(self.setup.experts) if (layer, e, MSB) in self.resident]
            others = [e for e in others if e not in [other["expert"] for other in slots]]
            if not others or "logits" not in row:
                slot["expert"] = None
                self.decode.dropped += 1
                self.dropped_mass[1] += slot["gate"]
                continue
            best = min(others, key=lambda expert: (-row["logits"][expert], expert))
            self.decode.substituted += 1
            slot["expert"] = best
            high = self.setup.slices and self.is_high(layer, row, best, scores[best])
            slot["lsb"] = high and not slot.get("denied")
            if slot["lsb"] and (layer, best, LSB) not in self.resident:
                deny_lsb(slot)
        budget["misses"], budget["lookups"] = after()
        if pace:
            lookups = budget["lookups"] - before["lookups"]
            rate = (budget["misses"] - before["misses"]) / lookups if lookups else 0.0
            self.price = min(max(self.price + pace["gain"] * (rate - pace["share"] * self.setup.target), 0.0), 1.0)
