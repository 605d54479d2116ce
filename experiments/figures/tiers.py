"""Figure 5: where the energy of a decode token goes, by tier and system, at equal quality.

    python experiments/figures/tiers.py [--real FOLDER] [--out FOLDER] [--quick]

8/4 bits and 2.4 GB. The paper's all-in NPU figure holds SRAM too; nothing has static power.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import equal
import kit
import pandas as pd

CASE = kit.Case(8, 4, 2.4)
TIERS = {
    "flash_mj": ("flash reads", "#D55E00"),
    "expert_dram_mj": ("DRAM: experts and fills", "#0072B2"),
    "other_dram_mj": ("DRAM: all other weights, KV cache", "#56B4E9"),
    "npu_mj": ("NPU, SRAM included", "#CC79A7"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, write, draw."""
    given = kit.read_arguments(__doc__, arguments)
    _figure(given, given.twins(), is_real=False)
    if given.real:
        _figure(given, [*given.imputed(), *given.recorded()], is_real=True)


def _rows(subject: kit.Subject) -> Iterator[dict[str, Any]]:
    for name, match in equal.at_equal_quality(subject, CASE).items():
        found = match.found
        other = found["non_expert_dram_mj"]
        yield {
            **kit.head_of(subject, CASE), "system": name, "equal_quality": match.met, "rel_mse": match.proxy,
            "flash_mj": found["flash_mj"], "expert_dram_mj": found["dram_mj"] - other, "other_dram_mj": other,
            "npu_mj": found["npu_mj"], "energy_mj": found["energy_mj"],
        }  # fmt: skip


def _figure(given: kit.Given, subjects: Sequence[kit.Subject], *, is_real: bool) -> None:
    rows = [row for subject in subjects for row in _rows(subject)]
    frame = kit.write_rows(rows, given.path("tiers", ".csv", is_real=is_real))
    plt = kit.plotting()
    with plt.rc_context(kit.STYLE):
        figure, axes = plt.subplots(
            len(subjects), 1, figsize=(8.5, 1.2 + 1.9 * len(subjects)), layout="constrained", squeeze=False
        )
        for axis, subject in zip(axes[:, 0], subjects, strict=True):
            routing = subject.title + kit.HOW[subject.kind]
            _panel(axis, frame[frame["routing"] == routing])
            axis.set_title(f"{routing}, {CASE}")
        axes[-1, 0].set_xlabel("energy (mJ per decode token)")
        kit.shared_legend(figure, ncols=4)
        kit.write_figure(
            figure, "Energy by tier at equal quality (*: another quality)", subjects,
            given.path("tiers", kit.SUFFIX, is_real=is_real),
        )  # fmt: skip


def _panel(axis: Any, frame: pd.DataFrame) -> None:
    names = [
        name + "" * met + " *" * (not met) for name, met in zip(frame["system"], frame["equal_quality"], strict=True)
    ]
    left = pd.Series(0.0, index=frame.index)
    for tier, (label, colour) in TIERS.items():
        axis.barh(names, frame[tier], left=left, color=colour, label=label, height=0.7)
        left = left + frame[tier]
    for number, total in enumerate(frame["energy_mj"]):
        axis.annotate(
            f"{total:.0f}", (total, number), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.invert_yaxis()
    axis.margins(x=0.08)
    axis.grid(axis="x", alpha=0.25, linewidth=0.5)


if __name__ == "__main__":
    main()
