"""A synthetic trace with full logits, made by a profile's twin. It is a stand-in, not a capture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicesim.errors import UserError
from slicesim.trace.gate import gate_scores
from slicesim.trace.table import DECODE, PREFILL, MemoryTrace, TraceBlock, TraceHeader
from slicesim.trace.twin.profile import Profile, read_profile
from slicesim.version import __version__

#: Logits are multiples of this: it costs no fidelity, and files compress.
LOGIT_STEP = 1 / 64


def synthesise(
    profile_path: Path, tokens: int, seed: int, requests: int = 1, prompt_fraction: float = 0.5
) -> MemoryTrace:
    """Make ``requests`` requests of ``tokens`` tokens each; the same arguments give the same trace.

    The first ``prompt_fraction`` of each request is prefill. Raises UserError for a profile that is not valid and for
    arguments out of range.
    """
    for fault, wrong in (
        (f"--tokens: must be at least 1, is {tokens}", tokens < 1),
        (f"--requests: must be at least 1, is {requests}", requests < 1),
        (f"--seed: must not be negative, is {seed}", seed < 0),
        (f"--prompt-fraction: must lie in 0 to 1, is {prompt_fraction:g}", not 0 <= prompt_fraction <= 1),
    ):
        if wrong:
            raise UserError(fault)
    profile, twin = read_profile(profile_path)
    prompt = round(prompt_fraction * tokens)
    phase = np.where(np.arange(tokens) < prompt, PREFILL, DECODE).astype(np.int8)
    logits, ids, scores = [], [], []
    for latents in twin.draw_latents([tokens] * requests, np.random.default_rng(seed)):
        logits.append((np.round(twin.logits(latents) / LOGIT_STEP) * LOGIT_STEP).astype(np.float32))
        its_ids, its_scores = route(logits[-1], profile)
        ids.append(its_ids)
        scores.append(its_scores)
    block = TraceBlock(
        request=np.repeat(np.arange(requests, dtype=np.int64), tokens),
        token=np.tile(np.arange(tokens, dtype=np.int64), requests),
        phase=np.tile(phase, requests),
        ids=np.concatenate(ids),
        scores=np.concatenate(scores),
        logits=np.concatenate(logits),
    )
    command = (
        f"slicesim trace synth {profile_path.name} --requests {requests} --tokens {tokens} "
        f"--prompt-fraction {prompt_fraction:g} --seed {seed}"
    )
    return MemoryTrace(header_of(profile, command), block, f"{profile.name}, seed {seed}")


def route(logits: NDArray[np.float32], profile: Profile) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the stock top-k (equal logits: the lower id first) and its gate scores, [tokens, layers, top_k]."""
    ids = np.argsort(-logits, axis=-1, kind="stable")[..., : profile.top_k].astype(np.int32)
    scores = gate_scores(logits, ids, profile.score_kind == "renormalised")
    return ids, np.take_along_axis(scores, ids, axis=-1)


def header_of(profile: Profile, command: str) -> TraceHeader:
    """Return the header of a trace that a profile's twin made by ``command``."""
    origins = "; ".join(f"{origin.name}, {origin.source}" for origin in profile.fitted_to)
    notes = [command]
    if profile.is_filled:
        made_up = sorted(set(profile.layers) - set(profile.recorded_layers))
        notes.append(f"layers that were never recorded, made up between the others: {', '.join(map(str, made_up))}")
    return TraceHeader(
        model=profile.model,
        layers=profile.layers,
        experts=profile.experts,
        top_k=profile.top_k,
        score_kind=profile.score_kind,
        has_logits=True,
        synthetic=True,
        micro_model=profile.micro_model,
        source=f"synthetic, made by a statistical twin of {origins}",
        licence="Apache-2.0, as slicesim",
        tool_version=__version__,
        notes="; ".join(notes),
    )
