"""Figure 4: AMAT against other ways to make low-bit weights, on Gaussian weights and on the micro models' experts.

python experiments/figures/truncations.py [--out FOLDER] [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import kit
import numpy as np

from slicesim.amat.alternatives import METHODS
from slicesim.amat.pairs import parse_pairs
from slicesim.amat.study import Study, Survey
from slicesim.checkpoint import Plan, writing
from slicesim.report.curves import COLOURS

MICRO = {model: kit.TRACES / "micro" / model for model in kit.MODELS}
#: As many inputs as the paper's models have, and as many outputs as one matrix of an expert.
GAUSSIAN, QUICK = (2048, 1408), (64, 64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, draw."""
    given = kit.read_arguments(__doc__, arguments)
    pairs = parse_pairs(",".join(f"{high}/{low}" for high, low in kit.PAIRS), 32)
    studies = {"Gaussian weights (synthetic)": _gaussian(pairs, QUICK if given.quick else GAUSSIAN)}
    if not given.quick:
        for model, folder in MICRO.items():
            studies[f"micro model of {kit.MODELS[model]}"] = Survey(folder).run(pairs)
    columns = ("high_bits", "low_bits", "group", "method", "relative_mse", "sqnr_db")
    rows = [
        {"weights": name, **{key: row[key] for key in columns}}
        for name, study in studies.items()
        for row in study.rows(study.overall)
    ]
    kit.write_rows(rows, given.path("truncations", ".csv"))
    _draw(given, studies)


def _gaussian(pairs: Sequence, shape: tuple[int, int]) -> Study:  # type: ignore[type-arg]
    weights = np.random.default_rng(kit.SEED).standard_normal(shape, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gaussian.safetensors"
        with writing(file, [Plan("w", "F32", weights.shape)], {"note": "synthetic: Gaussian weights"}) as writer:
            writer.write("w", weights.reshape(-1).view(np.uint8))
        return Survey(file, everything=True).run(pairs)


def _draw(given: kit.Given, studies: dict[str, Study]) -> None:
    plt = kit.plotting()
    with plt.rc_context(kit.STYLE):
        figure, axes = plt.subplots(
            1, len(studies), figsize=(1.5 + 3.2 * len(studies), 4.2), layout="constrained", sharey=True, squeeze=False
        )
        width = 0.8 / len(METHODS)
        for axis, (name, study) in zip(axes[0], studies.items(), strict=True):
            for number, method in enumerate(METHODS.values()):
                heights = [study.overall.relative(pair, number) or 0.0 for pair in range(len(study.pairs))]
                places = [pair + (number - (len(METHODS) - 1) / 2) * width for pair in range(len(study.pairs))]
                axis.bar(places, heights, width, label=method.label, color=COLOURS[number])
            axis.set_yscale("log")
            axis.axhline(1, color="#000000", linewidth=0.6, linestyle=":")
            axis.set_xticks(range(len(study.pairs)), [f"{amat.high_bits}/{amat.low_bits}" for amat in study.pairs])
            axis.set_xlabel("bits, high/low")
            axis.set_title(name)
            axis.grid(axis="y", alpha=0.25, linewidth=0.5)
        axes[0, 0].set_ylabel("relative MSE of the weights")
        kit.shared_legend(figure, ncols=3)
        note = "above the dotted line the error is larger than the weights themselves"
        kit.write_plain(figure, f"Low-bit weights from one code\n{note}", given.path("truncations", kit.SUFFIX))


if __name__ == "__main__":
    main()
