"""Several policies in the loop of one model: quality from the loop, time and energy from the ordinary replay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slicesim.decide import decide
from slicesim.decide.step import Stepper
from slicesim.errors import UserError
from slicesim.live import describe
from slicesim.live.load import LiveModel, LoadOptions, load_live
from slicesim.live.skeleton import load_skeleton
from slicesim.models import load_model
from slicesim.quality.bank import AmatBank, ExpertBank, OriginalBank, PackedBank, Source, loaded
from slicesim.quality.files import CheckpointExperts
from slicesim.quality.loop import (
    ClosedLoop,
    Listener,
    Predictions,
    Progress,
    Text,
    decoded,
    in_charge,
    predict,
    predict_at_once,
    stock,
)
from slicesim.report.folder import SUMMARY, write_folder
from slicesim.scenario import Scenario
from slicesim.scenario.schema import Amat
from slicesim.simulation import Simulation
from slicesim.trace import MemoryTrace, TraceHeader
from slicesim.trace.store import write_trace
from slicesim.version import __version__


def set_threads(threads: int | None) -> None:
    """Tell torch how many threads to use; None leaves it the choice."""
    if threads is not None:
        torch.set_num_threads(threads)


#: Says what a run is about, and for how many tokens; gives its progress.
Watch = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Subject:
    """A live model under the name that the user gave it. source: where its experts' weights come from."""

    path: str
    live: LiveModel
    source: Source = loaded

    @property
    def name(self) -> str:
        """Its folder's name, or its id of the hub."""
        return describe.source_id(self.path)

    @property
    def is_micro(self) -> bool:
        """Whether it is a tiny model that was trained for slicesim."""
        return describe.is_micro_model(self.live.config)

    @property
    def stands_for(self) -> str | None:
        """The shipped model whose routing geometry a micro model has."""
        return getattr(self.live.config, describe.MODEL_NAME, None)

    @property
    def dtype(self) -> str:
        """The type of its numbers."""
        return str(self.live.model.dtype).removeprefix("torch.")

    @property
    def context(self) -> int | None:
        """Tokens that it can take."""
        return getattr(self.live.config, "max_position_embeddings", None)

    def header(self) -> TraceHeader:
        """Return the header of what is recorded in the loop."""
        blocks = self.live.blocks
        return TraceHeader(
            model=describe.model_name(self.path, self.live.config),
            micro_model=self.is_micro,
            layers=[block.layer for block in blocks],
            experts=blocks[0].experts,
            top_k=blocks[0].top_k,
            score_kind=blocks[0].score_kind,
            has_logits=True,
            source=f"slicesim quality: {self.name} with a policy in the loop",
            licence=describe.licence(self.path, self.live.config),
            tool_version=__version__,
        )

    def plain(self) -> AbstractContextManager[None]:
        """For a time, be the plain model: where its experts lie in files, they are read from there."""
        if self.source is loaded:
            return nullcontext()
        return in_charge(self.live.blocks, stock(OriginalBank(self.source)))


def load_subject(model: str, options: LoadOptions, *, lazy: bool = False) -> Subject:
    """Load a live model; ``lazy`` leaves its experts in their files, to be read one at a time."""
    if not lazy:
        return Subject(model, load_live(model, options))
    if options.device_map is not None:
        raise UserError("--lazy reads experts from their own files: leave out --device-map")
    live = load_skeleton(model, options.dtype)
    return Subject(model, live, CheckpointExperts(Path(model), live.model.dtype))


def choose_bank(
    subject: Subject,
    amat: Amat,
    *,
    weights: str = "amat",
    packed: Path | None = None,
    keep_gb: float | None = None,
) -> ExpertBank:
    """Return where the loop's experts come from.

    weights: ``amat``, rebuilt at the precision decided, or ``original``, full precision whatever was decided; packed:
    a file of ``slicesim amat pack`` that spares the quantising; keep_gb: see RebuiltBank.
    """
    keep_bytes = None if keep_gb is None else round(keep_gb * 1e9)
    if weights == "original":
        if packed is not None:
            raise UserError("--packed holds AMAT codes: it does not go with --weights original")
        return OriginalBank(subject.source)
    if weights != "amat":
        raise UserError(f"--weights: {weights!r} is neither amat nor original")
    if packed is not None:
        return PackedBank(packed, amat, subject.live.model.dtype, keep_bytes)
    return AmatBank(amat, subject.source, keep_bytes)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    predictions: in the loop, token by token; at_once: the same texts as one batch each, where asked for; summary,
    trace: of the replay of what was recorded; None for the plain model.
    """

    label: str
    predictions: Predictions
    at_once: Predictions | None = None
    summary: dict[str, Any] | None = None
    trace: MemoryTrace | None = None

    def describe(self, plain: Row) -> dict[str, Any]:
        """Return it as plain data; plain: the row to compare with. See docs/quality.md."""
        own, reference = self.predictions, plain.predictions
        change = own.nll - reference.nll
        quality = {
            "perplexity": perplexity(own),
            "perplexity_ratio": float(np.exp(change.mean())),
            "nll_change": float(change.mean()),
            "nll_change_standard_error": float(change.std(ddof=1) / np.sqrt(len(change))) if len(change) > 1 else None,
            "accuracy": float((own.top == own.target).mean()),
            "agreement": float((own.top == reference.top).mean()),
            "perplexity_at_once": None if self.at_once is None else perplexity(self.at_once),
        }
        decode = None if self.summary is None else self.summary["decode"]
        warnings = [] if self.summary is None else self.summary["warnings"]
        return {"policy": self.label, "quality": quality, "decode": decode, "warnings": warnings}


def perplexity(predictions: Predictions) -> float:
    """exp of the mean -ln p of the tokens that came."""
    return float(np.exp(predictions.nll.mean()))


@dataclass(frozen=True)
class Study:
    """The plain model first, then one row for each policy. head: what all rows share."""

    head: dict[str, Any]
    rows: tuple[Row, ...]

    def describe(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {**self.head, "rows": [row.describe(self.rows[0]) for row in self.rows]}

    def save(self, folder: Path) -> Path:
        """Write summary.json and the trace of each policy's run; the folder appears only when whole."""
        text = json.dumps(self.describe(), indent=2, allow_nan=False) + "\n"
        files: dict[str, Callable[[Path], object]] = {SUMMARY: lambda path: path.write_text(text, encoding="utf-8")}
        for row in self.rows:
            if row.trace is not None:
                files[row.trace.name] = partial(_write, row.trace)
        return write_folder(folder, files)


def _write(trace: MemoryTrace, path: Path) -> None:
    write_trace(path, trace.header, trace.blocks())


def prepare_loops(
    subject: Subject, config: str | Path, policies: Sequence[str], assignments: Mapping[str, Any] | None = None
) -> list[Simulation]:
    """Check every policy before the first token runs; each simulation's trace is still empty."""
    chosen = dict(assignments or {})
    for key in chosen:
        if key.split(".")[0] == "trace" and key not in _OWN_TRACE_KEYS:
            raise UserError(
                f"--set {key}: the loop records its own trace; cut the text by --tokens and --prompt-tokens"
            )
    if len(set(policies)) < len(policies):
        raise UserError("--policies: a policy stands there twice")
    simulations = []
    for policy in policies:
        simulation = _prepared(subject, config, policy, chosen)
        Stepper(simulation.request())  # which refuses a policy that knows the future
        simulations.append(simulation)
    return simulations


#: What of the trace section still has a meaning.
_OWN_TRACE_KEYS = {"trace.layer_subset"}


def _prepared(subject: Subject, config: str | Path, policy: str, assignments: Mapping[str, Any]) -> Simulation:
    name = f"{_file_name(policy)}.parquet"
    model = None if "model" in assignments else subject.stands_for
    keys = {**assignments, "trace.split": "recorded", "trace.max_tokens": None}
    scenario = Scenario.load(config, model=model, trace=name, policy=policy, assignments=keys)
    _check_geometry(subject, scenario)
    return Simulation.prepare(scenario, MemoryTrace.empty(subject.header(), name))


def _check_geometry(subject: Subject, scenario: Scenario) -> None:
    """The model whose sizes are counted must route as the live one does."""
    geometry = load_model(scenario.settings.model, scenario.where("model"))
    block = subject.live.blocks[0]
    layers = [own.layer for own in subject.live.blocks]
    own = f"{len(layers)} MoE layers (from layer {layers[0]}) of {block.experts} experts, top-{block.top_k}"
    moe = geometry.moe_layers
    theirs = f"{len(moe)} (from {moe[0]}) of {geometry.experts}, top-{geometry.top_k}"
    subset = bool(scenario.settings.trace.layer_subset) and set(layers) <= set(moe)
    same_layers = layers == list(moe) or subset
    if not (same_layers and (block.experts, block.top_k) == (geometry.experts, geometry.top_k)):
        message = f"{subject.name} has {own}, {geometry.name} has {theirs}; choose the model by --set model=NAME"
        raise scenario.error("model", message=message)


def _file_name(policy: str) -> str:
    return policy.rpartition(".py:")[2]


def run_study(
    subject: Subject,
    texts: Sequence[Text],
    simulations: Sequence[Simulation],
    bank: ExpertBank,
    *,
    at_once: bool = False,
    watch: Watch,
) -> Study:
    """Run the plain model, then each policy in the loop, and replay what was recorded.

    at_once: score each text as one batch too, which hides damage.
    """
    model, scored = subject.live.model, sum(text.scored for text in texts)
    with watch("full precision", scored) as progress, subject.plain():
        plain = predict(model, texts, Listener(), progress)
        whole = predict_at_once(model, texts, Listener()) if at_once else None
    rows = [Row("full precision", plain, whole)]
    for simulation in simulations:
        with watch(simulation.policy.label, scored) as progress:
            rows.append(run_row(subject, texts, simulation, bank, at_once=at_once, progress=progress))
    return Study(_head(subject, texts, simulations[0], bank), tuple(rows))


def run_row(
    subject: Subject,
    texts: Sequence[Text],
    simulation: Simulation,
    bank: ExpertBank,
    *,
    at_once: bool = False,
    progress: Progress | None = None,
) -> Row:
    """Run one policy in the loop and replay what was recorded."""
    model, blocks, label = subject.live.model, subject.live.blocks, simulation.policy.label
    loop = ClosedLoop(blocks, Stepper(simulation.request()), bank)
    with loop.in_charge():
        predictions = predict(model, texts, loop, progress)
    whole = None
    if at_once:
        other = ClosedLoop(blocks, Stepper(simulation.request()), bank)
        with other.in_charge():
            whole = predict_at_once(model, texts, other)
    header, name = simulation.trace.header, simulation.trace.name
    trace = loop.trace(header.model_copy(update={"source": f"{header.source}: {label}"}), name)
    replay = Simulation.prepare(simulation.scenario, trace)
    _check_decisions(loop, replay)
    return Row(label, predictions, whole, replay.run().summary, trace)


def _check_decisions(loop: ClosedLoop, replay: Simulation) -> None:
    """The replay that gives time and energy must decide what was decided in the loop."""
    own, again = decoded(loop.demands), decoded(list(decide(replay.request())))
    if any(not np.array_equal(own[name], again[name]) for name in own):
        raise UserError(
            f"policy {replay.policy.label}: a replay of what was recorded decides otherwise than the loop did; "
            "one of your own strategies looks at coming layers, or keeps something from one run to the next"
        )


def _head(subject: Subject, texts: Sequence[Text], first: Simulation, bank: ExpertBank) -> dict[str, Any]:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.ids.tobytes())
    described = first.describe()
    resolved = {key: part for key, part in described["scenario"].items() if key not in ("policy", "trace")}
    return {
        "slicesim_version": __version__,
        "live_model": {"name": subject.name, "micro_model": subject.is_micro, "dtype": subject.dtype},
        "weights": "amat" if bank.has_precisions else "original",
        "texts": {
            "names": list(dict.fromkeys(text.name for text in texts)),
            "requests": len(texts),
            "prompt_tokens": sum(text.prompt_tokens for text in texts),
            "scored_tokens": sum(text.scored for text in texts),
            "sha256": digest.hexdigest(),
        },
        "model": described["model"],
        "scenario": resolved,
    }
