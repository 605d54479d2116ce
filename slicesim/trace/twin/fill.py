"""Layers that were not recorded, made up between those that were. They are nobody's routing, and labelled so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slicesim.trace.twin.calibrate import Wanted
from slicesim.trace.twin.model import Twin
from slicesim.trace.twin.recording import Array


@dataclass(frozen=True)
class Filling:
    """recorded, layers: numbers of the recorded layers and of all layers of the model.

    adjacent_reuse, srp_16: what reuse at lag 1 and SRP(16) are to be on average over all layers, where known.
    skew: exponent on how often a filled layer's experts are used.
    """

    recorded: tuple[int, ...]
    layers: tuple[int, ...]
    adjacent_reuse: float | None = None
    srp_16: float | None = None
    skew: float = 1.0


def fill_layers(twin: Twin, wanted: Wanted, filling: Filling, rng: np.random.Generator) -> tuple[Twin, Wanted]:
    """Return twin and aims for all layers.

    An expert of a filled layer is a mixture of one expert of the recorded layer before and one of the layer after, in
    new pairs for each layer; reuse, popularity and scores are interpolated by the layer's number.
    """
    experts, at = twin.experts, np.array(filling.recorded)
    blocks = {name: getattr(twin, name).reshape(len(at), experts, -1) for name in ("mean", "loadings", "noise")}
    filled: dict[str, list[Array]] = {name: [] for name in blocks}
    popularity = []
    for layer in filling.layers:
        after = int(np.clip(np.searchsorted(at, layer), 0, len(at) - 1))
        before = after if at[after] == layer or after == 0 else after - 1
        share = 0.0 if before == after else (layer - at[before]) / (at[after] - at[before])
        recorded = layer in filling.recorded
        one, two = (np.arange(experts) if recorded else rng.permutation(experts) for _ in range(2))
        for name, block in blocks.items():
            weights = (np.sqrt(1 - share), np.sqrt(share)) if name == "loadings" else (1 - share, share)
            filled[name].append(weights[0] * block[before, one] + weights[1] * block[after, two])
        popularity.append(_popularity(wanted.popularity, before, after, share, filled["mean"][-1][:, 0], recorded))
    plain = np.array(popularity)
    skewed = np.where(np.isin(filling.layers, at)[:, None], plain, _skew(plain, filling.skew))
    rates = np.stack([np.interp(filling.layers, at, row) for row in wanted.reuse])
    rates = _raise_reuse(rates - _chance(plain), _chance(skewed), filling)
    log_scores = np.stack([np.interp(filling.layers, at, level) for level in wanted.log_scores.T], axis=1)
    mass = np.interp(filling.layers, at, wanted.mass)
    layers = len(filling.layers)
    twin = twin._replace(
        mean=np.concatenate(filled["mean"])[:, 0],
        loadings=np.concatenate(filled["loadings"]),
        noise=np.concatenate(filled["noise"])[:, 0],
        shift=np.zeros(layers * experts),
        noise_factor=np.ones(layers),
        carry=np.full(layers, twin.carry[0]),
        slope=np.ones(layers),
        corners=np.zeros((layers, twin.corners.shape[1])),
        heights=np.zeros((layers, twin.corners.shape[1])),
    )
    return twin, Wanted(rates, skewed, log_scores, mass)


def _popularity(known: Array, before: int, after: int, share: float, mean: Array, recorded: bool) -> Array:
    """Interpolate popularity by rank; the expert with the highest mean is the most popular one."""
    if recorded:
        return np.asarray(known[before])
    ranked = (1 - share) * np.sort(known[before]) + share * np.sort(known[after])
    popularity = np.empty(len(mean))
    popularity[np.argsort(mean)] = ranked
    return popularity


def _skew(popularity: Array, exponent: float) -> Array:
    """Raise uses per token to a power, each layer's sum kept and none above 0.9."""
    raised = popularity**exponent
    return np.asarray(np.minimum(raised * (popularity.sum(axis=1) / raised.sum(axis=1))[:, None], 0.9))


def _chance(popularity: Array) -> Array:
    """Return the reuse that popularity alone brings, [layers]."""
    return np.asarray((popularity**2).sum(axis=1) / popularity.sum(axis=1))


def _raise_reuse(beyond: Array, chance: Array, filling: Filling) -> Array:
    """Add reuse beyond chance [lags, layers] to chance, in filled layers scaled so that lag 1 has its known mean."""
    factor = 1.0
    filled = ~np.isin(filling.layers, filling.recorded)
    if filling.adjacent_reuse is not None:
        lacking = len(filled) * (filling.adjacent_reuse - (chance + beyond[0]).mean())
        factor = max(0.0, 1 + lacking / max(beyond[0, filled].sum(), 1e-9))
    return np.asarray(chance + np.where(filled, factor, 1.0) * beyond)
