"""What must be said of a trace wherever its figures show: that no model was run for it, or only a tiny one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Label(NamedTuple):
    """The field of the trace's header that asks for it; a name; and what it means."""

    field: str
    name: str
    meaning: str

    @property
    def capitals(self) -> str:
        """The name as it leads a line."""
        return self.name.upper()


LABELS = (
    Label("synthetic", "synthetic", "no model was run"),
    Label("micro_model", "micro model", "captured from a tiny model trained for slicesim"),
    Label("imputed_logits", "imputed logits", "router logits beyond the recorded top-k were made up by a twin"),
)


def flags(trace: Mapping[str, Any]) -> dict[str, bool]:
    """Return which labels a trace bears, by field."""
    return {label.field: bool(trace.get(label.field)) for label in LABELS}


def label_of(trace: Mapping[str, Any]) -> Label | None:
    """Return what a trace must be called; trace: its header's fields, or the summary's part of that name."""
    return next((found for found in LABELS if trace.get(found.field)), None)


def kind(trace: Mapping[str, Any]) -> str:
    """Name a trace within a sentence: ``trace``, ``synthetic trace`` or ``micro model trace``."""
    found = label_of(trace)
    return f"{found.name} trace" if found else "trace"


def leading_kind(trace: Mapping[str, Any]) -> str:
    """Name a trace at the head of a line, its label in capitals."""
    found = label_of(trace)
    return f"{found.capitals} trace" if found else "trace"
