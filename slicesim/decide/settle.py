"""What a precision strategy takes from files or from the trace, before the first token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slicesim.decide.faults import faults_of
from slicesim.policies import Policy
from slicesim.policies.precision import TraceFacts
from slicesim.policies.slices import FloatArray
from slicesim.scenario import Scenario
from slicesim.trace.split import segments
from slicesim.trace.table import ABSENT, Trace


def settled(policy: Policy, scenario: Scenario, trace: Trace) -> Policy:
    """Return the policy, its precision being ready to be asked. Raises UserError for a faulty file."""
    amat, section, header = scenario.settings.amat, scenario.settings.trace, trace.header

    def gate_mass() -> FloatArray:
        return _gate_mass(trace, section.split, section.max_tokens)

    facts = TraceFacts(header.layers, header.experts, amat.high_bits, amat.low_bits, gate_mass)
    with faults_of(policy.precision, "settled"):
        return replace(policy, precision=policy.precision.settled(facts))


def _gate_mass(trace: Trace, split: str | float, max_tokens: int | None) -> FloatArray:
    """Sum the gate scores of every expert over what is replayed, prompts included; float64 [layers, experts]."""
    layers, experts = len(trace.header.layers), trace.header.experts
    total = np.zeros(layers * experts)
    for segment in segments(trace, split, max_tokens):
        block = segment.block
        there = block.ids != ABSENT
        cell = (np.arange(layers)[None, :, None] * experts + block.ids)[there]
        total += np.bincount(cell, weights=block.scores[there], minlength=layers * experts)
    return total.reshape(layers, experts)
