"""What an importer is, and what all of them share: the user's options and the making of a header."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from slicesim.errors import UserError
from slicesim.models import ModelGeometry, load_model
from slicesim.trace.table import MemoryTrace, TraceHeader
from slicesim.version import __version__

#: Gate scores whose sum over the top-k is this near to 1 were scaled to 1 by the router.
RENORMALISED_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ImportOptions:
    """What the user says of a file; None leaves it to the file.

    ``fallback_model`` serves formats that do not record the geometry, where ``model`` is not given.
    """

    format: str | None = None
    model: str | None = None
    top_k: int | None = None
    score_kind: str | None = None
    source: str | None = None
    licence: str | None = None
    synthetic: bool = False
    fallback_model: str | None = None

    def geometry(self) -> ModelGeometry | None:
        """Load the model that the user named."""
        return None if self.model is None else load_model(self.model, "--model")

    def required_geometry(self, path: Path) -> ModelGeometry:
        """Load the model that the user named; UserError where none was."""
        geometry = self.geometry()
        if geometry is None and self.fallback_model is not None:
            geometry = load_model(self.fallback_model)
        if geometry is None:
            raise UserError(f"{path}: this format does not record the model's geometry: name the model with --model")
        return geometry


@dataclass(frozen=True)
class Importer:
    """A format: ``sniff`` says whether a path looks like it, ``read`` gives its trace or raises UserError."""

    name: str
    description: str
    sniff: Callable[[Path], bool]
    read: Callable[[Path, ImportOptions], MemoryTrace]


def first_line(path: Path) -> str:
    """Return the first line that is not blank, or nothing where the file is no text."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return next((line for line in file if line.strip()), "")
    except (OSError, UnicodeDecodeError):
        return ""


def reason(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error) or type(error).__name__).splitlines()[0]


def make_header(
    path: Path,
    options: ImportOptions,
    scores: NDArray[np.float64],
    *,
    model: str,
    layers: list[int],
    experts: int,
    top_k: int,
    score_kind: str | None = None,
    source: str | None = None,
    licence: str | None = None,
    **more: Any,
) -> TraceHeader:
    """Make the header from what the file records; the user's options come before it.

    scores [..., top_k] decide what kind they are where neither says so. Raises UserError for figures that
    contradict each other.
    """
    kinds = get_args(TraceHeader.model_fields["score_kind"].annotation)
    if options.score_kind not in (None, *kinds):
        raise UserError(f"--score-kind: {options.score_kind!r} is none of {', '.join(kinds)}")
    if options.top_k not in (None, top_k):
        raise UserError(f"{path}: holds {top_k} experts per token and layer, --top-k says {options.top_k}")
    geometry = options.geometry()
    if geometry is not None and geometry.experts != experts:
        raise UserError(f"{path}: holds {experts} experts per layer, {geometry.name} has {geometry.experts}")
    try:
        return TraceHeader(
            model=model if geometry is None else geometry.name,
            layers=layers,
            experts=experts,
            top_k=top_k,
            score_kind=options.score_kind or score_kind or inferred_kind(scores),  # type: ignore[arg-type]
            synthetic=options.synthetic,
            source=options.source or source or f"imported from {path.name}",
            licence=options.licence or licence or "not stated",
            tool_version=__version__,
            **more,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        place = "".join(f"{part}: " for part in fault["loc"])
        raise UserError(f"{path}: {place}{fault['msg'].removeprefix('Value error, ')}") from None


def inferred_kind(scores: NDArray[np.float64]) -> str:
    """Tell renormalised scores from raw softmax probabilities by their sums over the top-k."""
    sums = scores.sum(axis=-1)
    is_one = bool(len(sums)) and bool((np.abs(sums - 1) <= RENORMALISED_TOLERANCE).all())
    return "renormalised" if is_one else "softmax"
