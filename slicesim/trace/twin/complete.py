"""Fill in what a top-k-only trace does not hold: logits of the experts that were not chosen, imputed from a twin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slicesim.errors import UserError
from slicesim.trace.table import ABSENT, Trace, TraceBlock, TraceHeader, require_faultless
from slicesim.trace.twin.factors import draw_unknown, lowest_known
from slicesim.trace.twin.model import Twin
from slicesim.trace.twin.profile import Profile, read_profile
from slicesim.trace.twin.recording import Array, Bools, Single, known_latents

#: Rounds of drawing factors and unknown scores in turn (Gibbs sampling) until they fit each other.
_ROUNDS = 12

#: Tokens completed at once.
_TOKENS = 1024

#: Imputed logits lie at least this far below the last expert chosen.
_GAP = 1e-3


def complete(trace: Trace, profile_path: Path, seed: int = 0) -> tuple[TraceHeader, Iterator[TraceBlock]]:
    """Return the header and the blocks of the trace with imputed logits, in bounded memory.

    Raises UserError where the profile is not of this geometry, or the trace already holds logits.
    """
    profile, twin = read_profile(profile_path)
    header = trace.header
    if header.has_logits:
        raise UserError(f"{trace.name}: already holds logits; there is nothing to complete")
    _check_fits(trace, profile, profile_path)
    notes = f"logits beyond the top-{header.top_k} imputed from {profile_path.name}, seed {seed}"
    completed = header.model_copy(
        update={"has_logits": True, "imputed_logits": True, "notes": "; ".join(filter(None, (header.notes, notes)))}
    )
    return completed, _complete_blocks(trace, twin, seed)


def _check_fits(trace: Trace, profile: Profile, path: Path) -> None:
    has, needs = (
        f"{_layers(part.layers)}, {part.experts} experts, top-{part.top_k}" for part in (trace.header, profile)
    )
    if trace.header.layers != profile.layers or has != needs:
        raise UserError(f"{path}: is of {needs}, but {trace.name} has {has}: choose the profile of its model")


def _layers(numbers: list[int]) -> str:
    return f"{len(numbers)} layers ({numbers[0]} to {numbers[-1]})"


def _complete_blocks(trace: Trace, twin: Twin, seed: int) -> Iterator[TraceBlock]:
    rng = np.random.default_rng(seed)
    for block in trace.blocks():
        require_faultless(trace.header, block, trace.name)
        if (block.ids == ABSENT).any():
            raise UserError(f"{trace.name}: a token lacks a layer; a trace like this cannot be completed")
        for start in range(0, len(block), _TOKENS):
            yield complete_block(block.part(start, start + _TOKENS), trace.header, twin, rng)


def complete_block(block: TraceBlock, header: TraceHeader, twin: Twin, rng: np.random.Generator) -> TraceBlock:
    """Return the block with logits [tokens, layers, experts]; ids and scores stay as they are.

    Factors and unknown scores are drawn in turn, given the recorded top-k. The recorded experts' logits are the
    logarithms of their scores; the others are moved, keeping their order, so that a softmax gives the recorded
    scores. Where only relative scores are recorded, they keep the twin's distance from the top-k.
    """
    latents, known = known_latents(header, block.ids, block.scores)
    shape = latents.shape
    limits = lowest_known(latents, known)
    drawn = _draw(twin, latents.reshape(shape[0], -1), known.reshape(shape[0], -1), limits, rng).reshape(shape)
    below = np.where(known, np.inf, limits[:, :, None] - drawn)
    if header.score_kind == "softmax":
        left = np.maximum(1 - block.scores.sum(axis=2), 1e-6)
        spread = _spread(below, left / np.exp(limits.astype(np.float64)))
    else:
        spread = np.broadcast_to(twin.slope[None, :], shape[:2])
    gaps = np.maximum(below * spread[:, :, None], _GAP)
    logits = np.where(known, latents, limits[:, :, None] - gaps)
    return TraceBlock(*block[:5], logits=logits.astype(np.float32))


def _draw(twin: Twin, x: Single, known: Bools, limits: Single, rng: np.random.Generator) -> Single:
    mean, loadings = twin.mean.astype(np.float32), twin.loadings.astype(np.float32)
    noise = np.maximum(twin.noise, 1e-4).astype(np.float32)
    variance = np.maximum(twin.brief + twin.chance + twin.kinds.var(axis=0) + twin.lasting.sum(axis=1), 1e-6)
    weighted = loadings / noise[:, None]
    spread = np.linalg.inv(np.diag(1 / variance) + (loadings.T @ weighted).astype(np.float64))
    root = np.linalg.cholesky(spread)
    about = mean + loadings @ twin.centre.astype(np.float32)
    predicted = np.tile(about, (len(x), 1))
    for _ in range(_ROUNDS):
        uniform = rng.random(x.shape, dtype=np.float32)
        draw_unknown(x, known, limits, predicted, np.sqrt(noise), uniform)
        factors = (x - about) @ weighted @ spread + rng.standard_normal((len(x), len(spread))) @ root.T
        predicted = (about + factors.astype(np.float32) @ loadings.T).astype(np.float32)
    return x


def _spread(below: Array, mass: Array) -> Array:
    """Return the factors on the distances at which the sum of exp(-distance) is ``mass``, [tokens, layers].

    below: [tokens, layers, experts], infinite where an expert was chosen.
    """
    low, high = np.full(mass.shape, 1e-3), np.full(mass.shape, 1e3)
    for _ in range(40):
        middle = np.sqrt(low * high)
        too_much = np.exp(-below * middle[:, :, None]).sum(axis=2) > mass
        low, high = np.where(too_much, middle, low), np.where(too_much, high, middle)
    return np.asarray(np.sqrt(low * high))
