"""What the paper's figures share: which routing is replayed, how a case is run, and how figure and numbers are written.

Every figure is a script of its own: ``python experiments/figures/NAME.py [--real FOLDER] [--out FOLDER] [--quick]``.
Without ``--real`` it replays the twins, which are synthetic. FOLDER holds recorded routing by model, as
``deepseek-v2-lite/*.npz`` and ``qwen1.5-moe/*.npz``; what belongs to it is
written beside, its name ending in ``_real`` as recorded, in ``_imputed`` with logits made up beyond the top-k.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

import slicesim
from slicesim.errors import UserError
from slicesim.models import load_model
from slicesim.report.figure import finish
from slicesim.report.label import LABELS, leading_kind
from slicesim.trace import DECODE, PREFILL, MemoryTrace, TraceBlock, load_trace
from slicesim.trace.synth import synthesise
from slicesim.trace.twin.complete import complete

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from slicesim.result import Result

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "hwconfigs" / "mobile.yaml"
TRACES = ROOT / "traces"
IMAGES = ROOT / "docs" / "images"

#: slicesim's names of the paper's two models, what figures call them, and the folder of their recorded routing.
MODELS = {"deepseek-v2-lite": "DeepSeek-V2-Lite", "qwen1.5-moe-a2.7b": "Qwen1.5-MoE-A2.7B"}
FOLDERS = {"deepseek-v2-lite": "deepseek-v2-lite", "qwen1.5-moe-a2.7b": "qwen1.5-moe"}

#: Of the paper's evaluation: cache sizes in GB, and (high, low) bits.
CAPACITIES_GB = (1.8, 2.4, 3.6)
PAIRS = ((8, 4), (6, 3), (4, 2))

#: One for all, so that the same figure is drawn from the same numbers.
SEED = 11

#: Colour and marker of each system, the same in every figure (Okabe and Ito's palette).
LOOKS = {
    "SliceMoE": ("#0072B2", "o"), "Cache-Prior, high bits": ("#D55E00", "s"), "Cumsum, high bits": ("#009E73", "D"),
    "uniform low bits": ("#CC79A7", "^"), "uniform high bits": ("#000000", "X"),
    "bit slices, all misses read": ("#56B4E9", "v"), "SliceMoE, budget": ("#E69F00", "P"),
}  # fmt: skip

#: What every figure is drawn with.
STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9.5,
    "legend.frameon": False, "legend.fontsize": 8, "svg.hashsalt": "slicesim", "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"],
}  # fmt: skip


#: Pictures' format.
SUFFIX = ".svg"


def look(system: str) -> tuple[str, str]:
    """Return colour and marker; a budget in place of routing looks as what it replaces."""
    stand_in = {"budget, high bits": "Cache-Prior, high bits", "budget, uniform low bits": "uniform low bits"}
    return LOOKS[stand_in.get(system, system)]


class Shape(NamedTuple):
    """Requests, and the tokens of each: as many in the prompt as in decode."""

    requests: int
    prompt: int
    decode: int


#: The paper's GSM8K: about 500 tokens in, 100 or more out, one request at a time. The second one is for tests.
GSM8K = Shape(4, 500, 120)
QUICK = Shape(1, 24, 16)


@dataclass(frozen=True, eq=False)
class Subject:
    """Routing to be replayed. kind: ``twin``, ``real`` (top-k alone) or ``imputed`` (real, logits made up beyond it).

    layer_share: of the model's MoE layers that it covers; caches are cut to the same share.
    """

    model: str
    kind: str
    trace: MemoryTrace
    layer_share: float = 1.0

    @property
    def title(self) -> str:
        """What panels call it."""
        layers = len(self.trace.header.layers)
        return MODELS[self.model] + ("" if self.layer_share == 1 else f", {layers} layers")


@dataclass(frozen=True)
class Case:
    """Bits and size of the cache; capacity_gb: as if the trace covered all layers."""

    high_bits: int = 8
    low_bits: int = 4
    capacity_gb: float = 2.4

    def __str__(self) -> str:
        """Return what panels call it."""
        return f"{self.high_bits}/{self.low_bits} bits, {self.capacity_gb:g} GB"

    def settings(self, subject: Subject) -> dict[str, Any]:
        """Return the scenario's keys."""
        return {
            "amat.high_bits": self.high_bits,
            "amat.low_bits": self.low_bits,
            "cache.capacity_gb": self.capacity_gb * subject.layer_share,
            "trace.layer_subset": subject.layer_share < 1,
            "schedule.timeline_tokens": 0,
        }


def simulate(subject: Subject, case: Case, policy: str, settings: Mapping[str, Any] | None = None) -> Result:
    """Replay the subject on the paper's phone. settings: more keys of the scenario, dotted."""
    keys = {**case.settings(subject), **(settings or {})}
    return slicesim.simulate(CONFIG, model=subject.model, trace=subject.trace, policy=policy, set=keys)


def figures_of(result: Result) -> dict[str, Any]:
    """Return what figures use of a run's decode part, per token where it adds up; energy in mJ, time in ms."""
    decode = result.decode
    energy, quality, misses = decode["energy_pj_per_token"], decode["quality"], decode["miss_rate"]
    other_pj, other_ms = _non_expert_dram(result)
    return {
        "miss_rate": misses["slices"],
        "msb_miss_rate": misses["msb"],
        "byte_miss_rate": misses["bytes"],
        "energy_mj": energy["total"] * 1e-9,
        "expert_energy_mj": energy["expert"] * 1e-9,
        "non_expert_dram_mj": other_pj * 1e-9,
        "expert_latency_ms": decode["latency_ps"]["mean"] * 1e-9 - other_ms,
        **{f"{tier}_mj": energy[tier] * 1e-9 for tier in ("flash", "dram", "sram", "npu") if energy[tier] is not None},
        "latency_ms": decode["latency_ps"]["mean"] * 1e-9,
        "rel_mse": quality["expected_rel_mse"],
        **{key: quality[key] for key in ("high_mass", "low_mass", "substituted_mass", "dropped_mass")},
    }


def _non_expert_dram(result: Result) -> tuple[float, float]:
    """DRAM energy (pJ) and time (ms) per decode token of all that is no routed expert.

    The phone charges bits alone, and the pipe's plain bandwidth.
    """
    decode, dram = result.rows.phases[DECODE], result.summary["scenario"]["device"]["dram"]
    total = decode.sums["non_expert_dram_read_bytes"] + decode.sums["non_expert_dram_write_bytes"]
    moved = total / decode.steps
    return moved * 8 * dram["energy_pj_per_bit"]["value"], moved / dram["bandwidth_gbs"]["value"] * 1e-6


@functools.cache
def twin(model: str, shape: Shape) -> Subject:
    """Make routing with full logits by the model's twin; synthetic."""
    tokens = shape.prompt + shape.decode
    trace = synthesise(TRACES / f"{model}-twin.yaml", tokens, SEED, shape.requests, shape.prompt / tokens)
    return Subject(model, "twin", trace)


@functools.cache
def recorded(folder: Path, model: str, shape: Shape) -> Subject | None:
    """Cut a model's recorded sequences into requests of the given shape, as many as there are; None without files.

    A sequence that is long enough for several requests gives several; what is shorter is left out.
    """
    files = sorted((folder / FOLDERS[model]).glob("*.npz"))
    traces = [load_trace(file, model=model) for file in files]
    blocks = [window for trace in traces for block in trace.blocks() for window in _windows(block, shape)]
    if not blocks:
        return None
    columns = [
        np.concatenate(column) for column in zip(*(block[3:5] for block in blocks[: 4 * shape.requests]), strict=True)
    ]
    count, tokens = min(len(blocks), 4 * shape.requests), shape.prompt + shape.decode
    token = np.tile(np.arange(tokens, dtype=np.int64), count)
    phase = np.where(token < shape.prompt, PREFILL, DECODE).astype(np.int8)
    block = TraceBlock(np.repeat(np.arange(count, dtype=np.int64), tokens), token, phase, columns[0], columns[1])
    used = [
        file.name for file, trace in zip(files, traces, strict=True) if max(trace.request_lengths().values()) >= tokens
    ]
    name = f"{', '.join(used)}, {count} x ({shape.prompt} + {shape.decode}) tokens"
    share = len(traces[0].header.layers) / len(load_model(model).moe_layers)
    return Subject(model, "real", MemoryTrace(traces[0].header, block, name), share)


def _windows(block: TraceBlock, shape: Shape) -> Iterator[TraceBlock]:
    """Yield stretches of one sequence each."""
    tokens = shape.prompt + shape.decode
    edges = np.flatnonzero(np.diff(block.request, prepend=block.request[0] - 1, append=block.request[-1] + 1))
    for start, stop in pairwise(edges):
        for first in range(start, stop - tokens + 1, tokens):
            yield block.part(first, first + tokens)


@functools.cache
def imputed(subject: Subject) -> Subject | None:
    """Add logits beyond the recorded top-k, drawn from the model's twin; None where not all layers are recorded."""
    if subject.layer_share < 1:
        return None
    header, blocks = complete(subject.trace, TRACES / f"{subject.model}-twin.yaml", SEED)
    parts = list(blocks)
    block = TraceBlock(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return replace(subject, kind="imputed", trace=MemoryTrace(header, block, f"{subject.trace.name}, logits imputed"))


HOW = {"twin": "", "imputed": ", logits imputed", "real": ""}
#: How the files of each kind of routing end.
ENDINGS = {"twin": "", "imputed": "_imputed", "real": "_real"}


def head_of(subject: Subject, case: Case) -> dict[str, Any]:
    """Return what the rows of every figure begin with."""
    return {
        "model": subject.model,
        "source": source_of(subject),
        "routing": subject.title + HOW[subject.kind],
        "high_bits": case.high_bits,
        "low_bits": case.low_bits,
        "capacity_gb": case.capacity_gb,
    }


class Given(NamedTuple):
    """The command line."""

    real: Path | None
    out: Path
    quick: bool

    def twins(self, shape: Shape = GSM8K) -> list[Subject]:
        """Return the twins of both models, of the first one where quick."""
        return [twin(model, shape) for model in MODELS] if not self.quick else [twin(next(iter(MODELS)), QUICK)]

    def recorded(self, shape: Shape = GSM8K) -> list[Subject]:
        """Return recorded routing of each model that there is any of; none without ``--real``."""
        shape = QUICK if self.quick else shape
        found = [recorded(self.real, model, shape) for model in MODELS] if self.real else []
        return [subject for subject in found if subject]

    def imputed(self, shape: Shape = GSM8K) -> list[Subject]:
        """Return recorded routing with imputed logits, where all layers are recorded."""
        found = [imputed(subject) for subject in self.recorded(shape)]
        return [subject for subject in found if subject]

    def groups(self, shape: Shape = GSM8K, longer: Shape | None = None) -> Iterator[tuple[str, list[Subject]]]:
        """Yield the kinds of routing that there are, each one a figure of its own; longer: shape of the twins."""
        for kind, subjects in (
            ("twin", self.twins(longer or shape)), ("imputed", self.imputed(shape)), ("real", self.recorded(shape))
        ):  # fmt: skip
            if subjects:
                yield kind, subjects

    def path(self, name: str, suffix: str, kind: str = "twin") -> Path:
        """Return where a file of a figure goes."""
        return self.out / f"paper_{name}{ENDINGS[kind]}{suffix}"


def run(main: Callable[[], None]) -> None:
    """Run a script's main function; what the user can put right gives one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def read_arguments(description: str | None, arguments: Sequence[str] | None = None) -> Given:
    """Read the command line, the same for every figure; ends the program where ``--real`` is no folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="recorded routing, by model")
    parser.add_argument("--out", type=Path, default=IMAGES, metavar="FOLDER", help="for pictures and numbers")
    parser.add_argument("--quick", action="store_true", help="a few tokens and one case: a test of the script itself")
    given = parser.parse_args(arguments)
    if given.real and not given.real.is_dir():
        parser.error(f"--real: no such folder: {given.real}")
    given.out.mkdir(parents=True, exist_ok=True)
    return Given(given.real, given.out, given.quick)


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> pd.DataFrame:
    """Write a figure's numbers as CSV, six digits each."""
    frame = pd.DataFrame(rows)
    in_place(path, lambda partial: frame.to_csv(partial, index=False, float_format="%.6g"))
    return frame


def write_figure(figure: Figure, heading: str, subjects: Sequence[Subject], path: Path) -> None:
    """Head a figure with its routing, stamp it where that is not real, and write it."""
    headers = [subject.trace.header for subject in subjects]
    about: dict[str, Any] = {label.field: any(getattr(header, label.field) for header in headers) for label in LABELS}
    between = "; " if figure.get_figwidth() > 9 else ";\n"
    about["path"] = between.join(subject.trace.name for subject in subjects)
    _slim(figure)
    in_place(path, lambda partial: finish(figure, heading, about, partial))


def write_plain(figure: Figure, heading: str, path: Path) -> None:
    """Head and write a figure that no routing went into."""
    figure.suptitle(heading, fontsize=11)
    _slim(figure)
    in_place(path, figure.savefig)


def _slim(figure: Figure) -> None:
    """Have SVG written small: letters as text rather than outlines, no more digits than show; and without a date."""
    plt, save = plotting(), figure.savefig

    def slim(file: Path, **options: Any) -> None:
        with plt.rc_context({key: STYLE[key] for key in ("svg.fonttype", "font.sans-serif")}):
            save(file, **{**options, "metadata": {"Date": None}})
        text = re.sub(r"(\d\.\d\d)\d+", r"\1", file.read_text(encoding="utf-8"))
        file.write_text(re.sub(r"\s*\n\s*", "\n", text), encoding="utf-8")

    figure.savefig = slim  # type: ignore[method-assign, assignment]


def source_of(subject: Subject) -> str:
    """Return the words that a row bears for where its routing comes from."""
    return leading_kind(subject.trace.header.model_dump())


def plain_log(axis: Axis, ticks: Sequence[float] = ()) -> None:
    """Take logarithms, with a few ticks in plain figures."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def shared_legend(figure: Figure, ncols: int) -> None:
    """Put one legend for all panels below them."""
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        shown.update(zip(labels, handles, strict=True))
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=ncols)


def plotting() -> Any:
    """Return pyplot, set up to draw without a screen."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def in_place(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then take its name."""
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    write(partial)
    partial.replace(path)
