"""Figure 1: quality proxy against miss rate and against energy, by system, the strength of routing swept.

    python experiments/figures/pareto.py [--real FOLDER] [--out FOLDER] [--quick]

With recorded routing: once with logits imputed beyond the top-k, and once as recorded, where nothing can be rerouted
and misses are denied under a budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import equal
import kit
import pandas as pd

STRENGTHS = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
MASSES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95)
DENIALS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
TARGETS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)
CASES = (kit.Case(8, 4, 2.4), kit.Case(6, 3, 3.6))
BUDGET = {"policy.routing": {"name": "stock"}, "policy.constraint": {"name": "budget"}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, write, draw."""
    given = kit.read_arguments(__doc__, arguments)
    _figure(given, given.twins(), "pareto", is_real=False)
    if given.real:
        _figure(given, [*given.imputed(), *given.recorded()], "pareto", is_real=True)


def _figure(given: kit.Given, subjects: Sequence[kit.Subject], name: str, *, is_real: bool) -> None:
    cases = CASES[:1] if given.quick else CASES
    rows = [row for subject in subjects for case in cases for row in _rows(subject, case, given.quick)]
    frame = kit.write_rows(rows, given.path(name, ".csv", is_real=is_real))
    plt = kit.plotting()
    panels = [(subject, case) for subject in subjects for case in cases]
    with plt.rc_context(kit.STYLE):
        figure, axes = plt.subplots(
            2, len(panels), figsize=(2.2 + 2.3 * len(panels), 6.2), layout="constrained", squeeze=False, sharey="row"
        )
        for column, (subject, case) in enumerate(panels):
            own = frame[(frame["panel"] == _panel(subject, case))]
            _lines(axes[0, column], own, "miss_rate", 100, "misses of slice requests (%)")
            _lines(axes[1, column], own, "energy_mj", 1, "energy (mJ per token)")
            axes[0, column].set_title(_panel(subject, case).replace(": ", "\n"))
            axes[0, column].axvline(5, color="#999999", linewidth=0.6, linestyle=":")
            kit.plain_log(axes[1, column].xaxis)
        for row in axes:
            row[0].set_ylabel("expected relative MSE\n(open-loop proxy; less is better)")
        kit.shared_legend(figure, ncols=4)
        kit.write_figure(
            figure, "Quality against misses and energy, strength of routing swept", subjects,
            given.path(name, kit.SUFFIX, is_real=is_real),
        )  # fmt: skip


def _panel(subject: kit.Subject, case: kit.Case) -> str:
    return f"{subject.title}{kit.HOW[subject.kind]}: {case}"


def _rows(subject: kit.Subject, case: kit.Case, quick: bool) -> Iterator[dict[str, Any]]:
    for system, knob, preset, settings in _points(subject):
        if not quick or knob in (0.05, 0.2):
            figures = kit.figures_of(kit.simulate(subject, case, preset, settings))
            yield {
                "panel": _panel(subject, case),
                **kit.head_of(subject, case),
                "system": system,
                "knob": knob,
                **figures,
            }


def _points(subject: kit.Subject) -> Iterator[tuple[str, float, str, dict[str, Any]]]:
    """Yield system, knob, preset and settings."""
    has_logits = subject.trace.header.has_logits
    for target in TARGETS:
        if has_logits:
            yield "SliceMoE", target, "slicemoe", {"policy.constraint": {"target": target}}
        yield (
            "SliceMoE, budget",
            target,
            "slicemoe",
            {**BUDGET, "policy.constraint": {"name": "budget", "target": target}},
        )
    for name, system in equal.systems(subject).items():
        knobs = MASSES if "Cumsum" in name else STRENGTHS if has_logits else DENIALS
        for knob in knobs if system.high > system.low else (0.0,):
            yield name, knob, system.preset, system.settings(knob)


def _lines(axis: Any, frame: pd.DataFrame, key: str, factor: float, label: str) -> None:
    for name, own in frame.groupby("system", sort=False):
        colour, marker = kit.look(str(name))
        axis.plot(
            factor * own[key], own["rel_mse"], color=colour, marker=marker, markersize=4, linewidth=1,
            linestyle="" if len(own) == 1 else "-", label=name,
        )  # fmt: skip
    axis.set_xlabel(label)
    axis.grid(alpha=0.25, linewidth=0.5)


if __name__ == "__main__":
    main()
