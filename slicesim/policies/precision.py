"""Precision: which experts need high precision, which are skipped, and what the cache holds as one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from slicesim.policies.base import Strategy
from slicesim.policies.slices import BoolArray, FloatArray, IntArray
from slicesim.policies.widths import read_widths


@dataclass(frozen=True)
class Asked:
    """Experts whose precision is asked for: a token's own choice, or all experts of its layer.

    ids: int32 [..., layers, n], below 0 where a prompt token chose fewer; gates: original scores, float64, same
    shape; first_layer: index of the first of those layers; own: the token's own choice where all experts are asked for.
    """

    ids: NDArray[np.int32]
    gates: FloatArray
    first_layer: int = 0
    own: Asked | None = None

    @classmethod
    def all_experts(cls, gates: FloatArray, own: Asked) -> Self:
        """Ask for all experts of the layers; gates: [..., layers, experts]."""
        ids = np.broadcast_to(np.arange(gates.shape[-1], dtype=np.int32), gates.shape)
        return cls(ids, gates, own.first_layer, own)

    @property
    def layers(self) -> IntArray:
        """Index of each expert's layer, to be broadcast: [layers, 1]."""
        return self.first_layer + np.arange(self.ids.shape[-2])[:, None]

    @property
    def top_k(self) -> int:
        """Experts that a token chooses."""
        return int((self.own or self).ids.shape[-1])

    @cached_property
    def order(self) -> IntArray:
        """Places by falling gate, equal ones as they stand; the own choice goes first, absent experts last."""
        if self.own is None:
            return np.argsort(np.where(self.ids < 0, np.inf, -self.gates), axis=-1, kind="stable")
        turn = np.full(self.gates.shape, self.top_k)
        np.put_along_axis(turn, self.own.ids.astype(np.int64), self.own.rank, axis=-1)
        return np.lexsort((-self.gates, turn), axis=-1)

    @cached_property
    def rank(self) -> IntArray:
        """Rank of each expert in its token and layer, from 0."""
        return np.argsort(self.order, axis=-1, kind="stable")

    @cached_property
    def mass_before(self) -> FloatArray:
        """Share of the own choice's gate mass that the experts ranked before each one hold; above 1 beyond it."""
        gates = np.where(self.ids < 0, 0.0, self.gates)
        sums = np.cumsum(np.take_along_axis(gates, self.order, axis=-1), axis=-1)
        total = sums[..., self.top_k - 1 : self.top_k]
        before = np.concatenate((np.zeros_like(total), sums[..., :-1]), axis=-1)
        share = np.divide(before, total, out=np.zeros_like(before), where=total > 0)
        return np.take_along_axis(share, self.rank, axis=-1)


@dataclass(frozen=True)
class TraceFacts:
    """What a precision strategy may know before a run.

    layers: numbers of the model's layers that the trace covers; experts: of each; high_bits, low_bits: of AMAT;
    gate_mass: returns the sum of gate scores of every expert over the whole replay, float64 [layers, experts].
    """

    layers: Sequence[int]
    experts: int
    high_bits: int
    low_bits: int
    gate_mass: Callable[[], FloatArray]


class Precision(Strategy):
    """Base of all precision strategies.

    ``objects`` says what the cache holds: MSB and LSB ``slices``, ``whole`` experts at high precision, or ``msb``
    slices alone. skips: some experts of a token are not run at all (``skipped``). by_expert: an expert has one
    precision, whatever the token.
    """

    kind: ClassVar[str] = "precision"
    objects: ClassVar[Literal["slices", "whole", "msb"]] = "slices"
    skips: ClassVar[bool] = False
    by_expert: ClassVar[bool] = False
    on_renormalised: bool = Field(True, description="may be used where the trace's scores are renormalised")

    @property
    def needs_future(self) -> bool:
        """Whether it looks at the whole trace before the first token."""
        return False

    @property
    def raw_scores_only(self) -> bool:
        """Whether it must not be used on renormalised scores."""
        return not self.on_renormalised

    @property
    def files(self) -> tuple[str, ...]:
        """Files that it reads."""
        return ()

    def settled(self, facts: TraceFacts) -> Precision:
        """Return the strategy with what it takes from files or from the trace. Raises UserError for a faulty file."""
        return self

    def critical(self, asked: Asked) -> BoolArray:
        """Return which experts request their LSB too, shaped as ``asked.ids``."""
        return np.zeros(asked.ids.shape, dtype=np.bool_)

    def skipped(self, asked: Asked) -> BoolArray:
        """Return which experts are not run, shaped as ``asked.ids``; asked where the class says ``skips``."""
        return np.zeros(asked.ids.shape, dtype=np.bool_)


class Threshold(Precision):
    """An expert is critical (runs at high precision) when its original gate score is at least the threshold.

    critical = gate >= threshold. Source: DBSC, SliceMoE (arXiv 2512.12990).
    Checked by: tests/parity/test_decisions.py (a second replay in plain Python).
    """

    name: ClassVar[str] = "threshold"
    threshold: float = Field(0.1, ge=0, le=1, description="on the raw softmax probability; compared with >=")
    on_renormalised: bool = Field(False, description="set true to compare with renormalised scores all the same")

    def critical(self, asked: Asked) -> BoolArray:
        """Return gates >= threshold."""
        return asked.gates >= self.threshold


class UniformHigh(Precision):
    """Every expert at high precision, cached as one object of MSB and LSB bytes.

    Source: the usual whole-expert cache. Checked by: tests/parity/test_decisions.py.
    """

    name: ClassVar[str] = "uniform-high"
    objects: ClassVar[Literal["slices", "whole", "msb"]] = "whole"


class UniformLow(Precision):
    """Every expert at low precision: MSB slices alone.

    Source: the usual whole-expert cache, of a smaller model. Checked by: tests/parity/test_decisions.py.
    """

    name: ClassVar[str] = "uniform-low"
    objects: ClassVar[Literal["slices", "whole", "msb"]] = "msb"


class FirstRanked(Precision):
    """The first-ranked expert of each token and layer always runs at high precision, the others at low precision.

    critical = rank is 0, or gate >= threshold where one is given. Source: the top-1 rule that HOBBIT (arXiv 2411.01433)
    contains. An expert that routing or a budget brings in is never the first: it goes by the threshold.
    Checked by: tests/policies/test_precision.py (by hand), tests/parity/test_decisions.py (plain Python).
    """

    name: ClassVar[str] = "top-1"
    threshold: float | None = Field(
        None, ge=0, le=1, description="raw softmax probability from which others are critical too; none: no others"
    )
    on_renormalised: bool = Field(False, description="set true to compare with renormalised scores all the same")

    @property
    def raw_scores_only(self) -> bool:
        """Only a threshold cares."""
        return self.threshold is not None and not self.on_renormalised

    def critical(self, asked: Asked) -> BoolArray:
        """Return rank 0, and gates >= threshold."""
        first = asked.rank == 0
        return np.asarray(first if self.threshold is None else first | (asked.gates >= self.threshold))


class Budgeted(Precision):
    """At most so many experts of a token and layer run at high precision: the best of those above a threshold.

    critical = rank < most and gate >= threshold, ranks by falling gate from 0. Source: standard; it bounds the LSB
    bytes of a batch. An expert that routing or a budget brings in ranks behind the token's own choice.
    Checked by: tests/policies/test_precision.py (by hand), tests/parity/test_decisions.py (plain Python).
    """

    name: ClassVar[str] = "budgeted"
    most: int = Field(2, ge=0, description="experts per token and layer")
    threshold: float = Field(0.1, ge=0, le=1, description="on the raw softmax probability; compared with >=")
    on_renormalised: bool = Field(False, description="set true to compare with renormalised scores all the same")

    def critical(self, asked: Asked) -> BoolArray:
        """Return ranks below ``most`` with gates >= threshold."""
        return np.asarray((asked.rank < self.most) & (asked.gates >= self.threshold))


class HobbitWidths(Precision):
    """Each expert of a token runs high, low or not at all, by how much gate mass the experts before it hold.

    Sort the token's own choice by falling gate; u(i) = sum of gates before i / sum of all. u <= t1: high precision;
    t1 < u <= t2: low; u > t2: skipped (it counts as dropped, no look-up). u is 0 for the first: always high.
    Source: HOBBIT (arXiv 2411.01433), unimportance score, T1 = 0.6 and T2 = 0.9 for Mixtral. Simplified: high and low
    are bit slices of one expert here, not two copies (FP16 and INT4); the rule holds for hits as for misses. In
    prefill it holds with ``prefill_precision: threshold``. A substitute of the budget runs low. Refused with
    cache-aware routing: another choice has no such ranks.
    Checked by: tests/policies/test_precision.py (by hand), tests/parity/test_decisions.py (plain Python).
    """

    name: ClassVar[str] = "hobbit"
    skips: ClassVar[bool] = True
    t1: float = Field(0.6, ge=0, le=1, description="share of gate mass up to which an expert runs high")
    t2: float = Field(0.9, ge=0, le=1, description="share of gate mass beyond which an expert is skipped")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.t1 > self.t2:
            raise ValueError(f"t1 ({self.t1:g}) must not be above t2 ({self.t2:g})")
        return self

    def critical(self, asked: Asked) -> BoolArray:
        """Return shares before of at most t1."""
        return np.asarray(asked.mass_before <= self.t1) & (asked.ids >= 0)

    def skipped(self, asked: Asked) -> BoolArray:
        """Return shares before of more than t2."""
        return np.asarray(asked.mass_before > self.t2)


class StaticWidths(Precision):
    """Every expert has one precision, fixed before the run: some of each layer high, the others low.

    A high expert always requests both slices, a low one its MSB alone. Which are high says a table (CSV with columns
    layer, expert, bits: the model's layer numbers, bits one of AMAT's two widths), else the whole trace: the
    round(high_share x experts) experts of each layer with the largest sum of gate scores, ties by id. Without a table
    it knows the future: a baseline only, as ``static`` eviction.
    Source: EdgeMoE (arXiv 2308.14352), expert-wise bit widths. Simplified: importance is gate mass, the paper measures
    the loss of accuracy at 2 bits. Refused with routing ``buddy``: a substitute serves with the original's width.
    Checked by: tests/policies/test_precision.py (by hand), tests/parity/test_decisions.py (plain Python).
    """

    name: ClassVar[str] = "static-widths"
    by_expert: ClassVar[bool] = True
    high_share: float = Field(0.25, ge=0, le=1, description="share of a layer's experts; not asked with a table")
    table: str | None = Field(None, min_length=1, description="CSV file: layer, expert, bits; every expert once")
    _high: BoolArray | None = None

    @property
    def needs_future(self) -> bool:
        """Without a table."""
        return self.table is None

    @property
    def files(self) -> tuple[str, ...]:
        """The table."""
        return () if self.table is None else (self.table,)

    def settled(self, facts: TraceFacts) -> Precision:
        """Read the table, or rank the experts of the trace."""
        settled = self.model_copy()
        if self.table is not None:
            settled._high = read_widths(
                Path(self.table), facts.layers, facts.experts, (facts.high_bits, facts.low_bits)
            )
        else:
            ranked = np.argsort(-facts.gate_mass(), axis=1, kind="stable")
            settled._high = np.zeros(ranked.shape, dtype=np.bool_)
            np.put_along_axis(settled._high, ranked[:, : round(self.high_share * facts.experts)], True, axis=1)
        return settled

    def critical(self, asked: Asked) -> BoolArray:
        """Look them up."""
        if self._high is None:
            raise ValueError("static-widths must be settled first")
        return np.asarray(self._high[asked.layers, np.maximum(asked.ids, 0)] & (asked.ids >= 0))
