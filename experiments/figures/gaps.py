"""What each possible reason for a gap to the published figures would make of ours: one CSV, no picture.

    python experiments/figures/gaps.py [--real FOLDER] [--out FOLDER] [--quick]

``decode``: high-bit Cache-Prior / SliceMoE, 8/4 bits, for each cache size. ``warm-up``: empty start / PCW, 6/3 bits,
3.6 GB. Each row changes one thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import disputed
import equal
import kit
import warmup

Figures = Mapping[str, Any]

BASELINE = "Cache-Prior, high bits"
SLICES = "bit slices, all misses read"
FIGURE_7 = disputed.speeds(disputed.FLASH_GBS[-1], disputed.DRAM_GBS[-1])
LAYER = {"schedule.overlap": "layer"}
QUALITIES = (0.02, 0.05, 0.1, 0.2)
#: Of an expert's error where another one serves in its place; the model's proxy says 1.
LIGHT = 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay and write."""
    given = kit.read_arguments(__doc__, arguments)
    _write(given, given.twins(), given.twins(warmup.LONG), is_real=False)
    if given.real:
        _write(given, given.imputed(), given.imputed(), is_real=True)


def _write(given: kit.Given, subjects: Sequence[kit.Subject], longer: Sequence[kit.Subject], *, is_real: bool) -> None:
    sizes = kit.CAPACITIES_GB[:1] if given.quick else kit.CAPACITIES_GB
    rows = [row for subject in subjects for size in sizes for row in _decode(subject, kit.Case(8, 4, size))]
    rows += [row for subject in longer for row in _warm(subject)]
    kit.write_rows(rows, given.path("gaps", ".csv", is_real=is_real))


def _decode(subject: kit.Subject, case: kit.Case) -> Iterator[dict[str, Any]]:
    matches = equal.at_equal_quality(subject, case)
    ours, theirs = matches["SliceMoE"].found, matches[BASELINE].found
    system = equal.systems(subject)[BASELINE]
    knob = matches[BASELINE].knob

    def both(more: Figures) -> tuple[Figures, Figures]:
        """Replay the same decisions in another way."""
        settings = {**system.settings(knob), **more}
        return _run(subject, case, "slicemoe", more), _run(subject, case, system.preset, settings)

    def matched(more: Figures, own: Figures | None = None) -> tuple[Figures, Figures, bool]:
        """Change both systems, and ours by ``own`` too; equal quality again."""
        changed = _run(subject, case, "slicemoe", {**more, **(own or {})})
        match = equal.at_quality(subject, case, system, changed["rel_mse"], more)
        return changed, match.found, match.met

    def row(reason: str, ours: Figures, theirs: Figures, met: bool = True) -> dict[str, Any]:
        energy, latency = theirs["energy_mj"] / ours["energy_mj"], theirs["latency_ms"] / ours["latency_ms"]
        head = {**kit.head_of(subject, case), "claim": "decode", "reason": reason, "equal_quality": met}
        return {**head, "energy_ratio": energy, "latency_ratio": latency, "rel_mse": ours["rel_mse"]}

    yield row("as modelled", ours, theirs, matches[BASELINE].met)
    yield row("expert traffic alone", _experts_alone(ours), _experts_alone(theirs), matches[BASELINE].met)
    yield row("flash 1.75 and DRAM 16 GB/s", *both(FIGURE_7))
    yield row("reads overlap within a layer", *both(LAYER))
    yield row("the best expert alone is never rerouted (J = 1)", *matched({"policy.routing.top_j": 1}))
    yield row("SliceMoE reads every missing LSB", *matched({}, {"policy.constraint.deny_lsb": False}))
    steered = _run(subject, case, "cache-prior", {})
    yield row("both steered to 5 % misses, not equal quality", ours, steered, met=False)
    light = equal.at_quality(subject, case, system, _light(ours), proxy=_light)
    yield row(f"a rerouted expert counts {LIGHT:g} in the proxy", ours, light.found, light.met)
    for quality in QUALITIES:
        pair = [equal.at_quality(subject, case, equal.systems(subject)[name], quality) for name in (SLICES, BASELINE)]
        reason = f"every miss read, both at a proxy of {quality:g}"
        yield row(reason, pair[0].found, pair[1].found, pair[0].met and pair[1].met)


def _run(subject: kit.Subject, case: kit.Case, preset: str, settings: Figures) -> Figures:
    return kit.figures_of(kit.simulate(subject, case, preset, settings))


def _experts_alone(figures: Figures) -> Figures:
    return {**figures, "energy_mj": figures["expert_energy_mj"], "latency_ms": figures["expert_latency_ms"]}


def _light(figures: Figures) -> float:
    """Return the proxy with a lighter weight on what is rerouted."""
    return float(figures["rel_mse"] - (1 - LIGHT) * figures["substituted_mass"])


def _warm(subject: kit.Subject) -> Iterator[dict[str, Any]]:
    base = "SliceMoE, target 5 %"
    cases = [(regime, regime, {}) for regime in warmup.REGIMES]
    cases += [
        (f"{base}, flash 1.75 and DRAM 16 GB/s", base, FIGURE_7),
        (f"{base}, reads overlap within a layer", base, LAYER),
    ]
    for reason, regime, more in cases:
        rows = [row for row in warmup.rows_of(subject, regime, ("pcw", "empty"), more) if row["start"] == "empty"]
        reached = [row["steps"] for row in rows if row["energy_ratio"] >= warmup.PUBLISHED_ENERGY]
        for row in rows:
            if row["steps"] in (10, 100, 500):
                head = {
                    **kit.head_of(subject, warmup.CASE),
                    "claim": f"warm-up, {row['steps']} steps",
                    "reason": reason,
                }
                ratios = {key: row[key] for key in ("energy_ratio", "expert_energy_ratio", "latency_ratio")}
                yield {**head, **ratios, "published_up_to_steps": max(reached, default=0)}


if __name__ == "__main__":
    main()
