"""How like the real thing is a twin? Fitted to every other request of real traces, compared on the requests between.

    experiments/twin_fidelity.py TRACE... [--model NAME] [--profile FILE] [--rerouting]

Every row: the half that the twin was fitted to, the other half, the twin (mean of three seeds, requests as long as the
other half's). "noise floor" is how far the two real halves lie apart, "gap" how far the twin is from the other half.
``--profile`` compares a profile that was fitted to something else; the halves are then both new to it. ``--rerouting``
adds all layers' reuse, and what Cache-Prior makes of the twin's logits: the miss rate over lambda, with half of each
layer's experts cached.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import slicesim
from slicesim.models import load_model, slice_bytes
from slicesim.trace import DECODE, MemoryTrace, Trace, TraceBlock, load_trace
from slicesim.trace.info import trace_info
from slicesim.trace.statistics import CACHED_SHARES, LruHits, stretches
from slicesim.trace.synth import header_of, route
from slicesim.trace.twin.fit import fit_twin
from slicesim.trace.twin.profile import Profile, make_profile, read_profile
from slicesim.trace.twin.recording import Recording, read_recording

DEVICE = Path(__file__).parents[1] / "hwconfigs" / "mobile.yaml"
SEEDS = (1, 2, 3)
SHARES = (0.25, 0.50, 0.75)
CAPACITIES_GB = (1.8, 2.4, 3.6)
STRENGTHS = (0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1)

Figures = dict[str, float]


def main() -> None:
    """Fit, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--model", default="deepseek-v2-lite")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--rerouting", action="store_true")
    arguments = parser.parse_args()
    recording = read_recording([load_trace(path, model=arguments.model) for path in arguments.traces])
    numbers = range(len(recording.lengths))
    first, other = recording.requests(numbers[::2]), recording.requests(numbers[1::2])
    profile, twin = read_profile(arguments.profile) if arguments.profile else _fitted(first)
    made = []
    for seed in SEEDS:
        logits = [twin.logits(part) for part in twin.draw_latents(other.lengths, np.random.default_rng(seed))]
        made.append(_trace(profile, other.lengths, np.concatenate(logits)))
    columns = [_figures(_bare(part), arguments.model) for part in (first, other)]
    twins = [_figures(_recorded(trace, profile), arguments.model) for trace in made]
    print(f"{'':34}{'fitted half':>12}{'other half':>12}{'noise floor':>12}{'twin':>10}{'gap':>10}")
    for name, one in columns[0].items():
        two, ours = columns[1][name], float(np.mean([figures[name] for figures in twins]))
        print(f"{name:34}{one:12.4f}{two:12.4f}{two - one:+12.4f}{ours:10.4f}{ours - two:+10.4f}")
    real = [_lru_by_layer(_bare(part)) for part in (first, other)]
    ours = np.mean([_lru_by_layer(_recorded(trace, profile)) for trace in made], axis=0)
    for row, share in enumerate(SHARES):
        floor, gap = np.abs(real[1] - real[0])[row].max(), np.abs(ours - real[1])[row].max()
        print(f"lru, {share:.0%} of each layer: largest difference of a layer: noise floor {floor:.4f}, gap {gap:.4f}")
    if arguments.rerouting:
        info = trace_info(made[0])
        reuse = info["reuse_probability_by_lag_tokens"]["1"]
        print(
            f"\nall {len(profile.layers)} layers of the twin: reuse at lag 1 {reuse:.4f}, SRP(16) {info['srp_16']:.4f}"
        )
        print("Cache-Prior on the twin, half of each layer's experts cached, J = 2: MSB misses of all decode")
        for strength in STRENGTHS:
            policy = {"policy.routing": {"name": "cache-prior", "strength": strength}}
            print(f"lambda {strength:<5g} {1 - _hit_rate(made[0], arguments.model, 'lru-high', 0.5, policy):.4f}")


def _fitted(recording: Recording) -> tuple[Profile, object]:
    twin = fit_twin(recording)
    return make_profile("half", recording, twin, "experiments/twin_fidelity.py"), twin


def _trace(profile: Profile, lengths: tuple[int, ...], logits: np.ndarray) -> MemoryTrace:
    ids, scores = route(logits, profile)
    return MemoryTrace(header_of(profile, "experiments/twin_fidelity.py"), _block(lengths, ids, scores, logits), "twin")


def _recorded(trace: MemoryTrace, profile: Profile) -> MemoryTrace:
    """Leave out the layers that are made up."""
    kept = np.isin(profile.layers, profile.recorded_layers)
    block = trace.block
    header = trace.header.model_copy(update={"layers": profile.recorded_layers, "has_logits": False})
    return MemoryTrace(header, TraceBlock(*block[:3], block.ids[:, kept], block.scores[:, kept], None), trace.name)


def _bare(recording: Recording) -> MemoryTrace:
    header = recording.header.model_copy(update={"has_logits": False})
    return MemoryTrace(header, _block(recording.lengths, recording.ids, recording.scores, None), "real")


def _block(lengths: tuple[int, ...], ids: np.ndarray, scores: np.ndarray, logits: np.ndarray | None) -> TraceBlock:
    token = np.concatenate([np.arange(length) for length in lengths])
    request = np.repeat(np.arange(len(lengths)), lengths)
    return TraceBlock(request, token, np.full(len(token), DECODE, np.int8), ids, scores, logits)


def _figures(trace: Trace, model: str) -> Figures:
    info = trace_info(trace)
    figures: Figures = {}
    for policy in ("lru-high", "lfu-keep", "belady"):
        for share in SHARES:
            figures[f"{policy}, {share:.0%} of each layer, hits"] = _hit_rate(trace, model, policy, share)
    for capacity in CAPACITIES_GB:
        size = {"cache.capacity_gb": capacity}
        figures[f"lru-high, {capacity} GB for all, hits"] = _hits(trace, model, "lru-high", size)
    for lag, rate in info["reuse_probability_by_lag_tokens"].items():
        figures[f"reuse at lag {lag}"] = rate
    for window, count in info["distinct_experts_per_layer_by_window_tokens"].items():
        if count is not None:
            figures[f"distinct experts in {window} tokens"] = count
    if info["critical_experts_per_token_and_layer"] is not None:
        figures["critical experts per token"] = info["critical_experts_per_token_and_layer"]
    figures["mass of the top-k"] = info["top_k_mass_mean"]
    return figures


def _lru_by_layer(trace: Trace) -> np.ndarray:
    """Return LRU hit rates [SHARES, layers]."""
    header = trace.header
    hits = LruHits(len(header.layers), header.experts, header.top_k)
    for stretch in stretches(trace):
        hits.add(stretch)
    return hits.by_layer()[[CACHED_SHARES.index(share) for share in SHARES]]


def _hit_rate(trace: Trace, model: str, policy: str, share: float, extra: dict[str, object] | None = None) -> float:
    """Hit rate of one cache per layer that holds a share of its experts."""
    header, geometry = trace.header, load_model(model)
    expert = sum(slice_bytes(geometry.expert_weights, 8, 4, 32))
    capacity = int(share * header.experts) * expert * len(header.layers)
    return _hits(trace, model, policy, {"cache.capacity_gb": capacity / 1e9, "cache.scope": "layer", **(extra or {})})


def _hits(trace: Trace, model: str, policy: str, size: dict[str, object]) -> float:
    subset = len(trace.header.layers) < len(load_model(model).moe_layers)
    settings = {"trace.split": "all-decode", "trace.layer_subset": subset, **size}
    settings["device.dram.capacity_gb"] = 64  # hits alone are asked for
    result = slicesim.simulate(DEVICE, model=model, trace=trace, policy=policy, set=settings)
    return 1 - result.decode["miss_rate"]["msb"]


if __name__ == "__main__":
    main()
