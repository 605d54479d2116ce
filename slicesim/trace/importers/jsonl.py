"""JSON lines as vLLM loggers write them: one route a line, requests and layers in any order.

Keys: req_id (text or number), token_idx, layer, topk_ids, topk_weights, and, where recorded, phase (prefill
or decode) and logits (one per expert).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slicesim.errors import UserError
from slicesim.trace.fault_list import FaultList
from slicesim.trace.importers.importer import Importer, ImportOptions, first_line, make_header
from slicesim.trace.importers.routes import Routes, assemble
from slicesim.trace.table import DECODE, PREFILL, MemoryTrace

_PHASES = {"prefill": PREFILL, "decode": DECODE}
_LARGEST = 2**62


def _sniff(path: Path) -> bool:
    return path.is_file() and first_line(path).lstrip().startswith("{")


def _read(path: Path, options: ImportOptions) -> MemoryTrace:
    geometry = options.required_geometry(path)
    found = FaultList()
    routes, phase_recorded = _routes(path, geometry.experts, options.top_k, found)
    found.refuse()
    header = make_header(
        path,
        options,
        routes.scores,
        model=geometry.name,
        layers=sorted(set(routes.layer.tolist()) & set(geometry.moe_layers)) or list(geometry.moe_layers),
        experts=geometry.experts,
        top_k=routes.ids.shape[1],
        has_logits=routes.logits is not None,
        notes="" if phase_recorded else "phases were not recorded: every token stands as decode",
    )
    return MemoryTrace(header, assemble(path, header, routes), path.name)


def _routes(path: Path, experts: int, top_k: int | None, found: FaultList) -> tuple[Routes, bool]:
    """Read all lines; a faulty one is noted in ``found`` and left out."""
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    check = _Check(experts, top_k)
    for number, text, is_last in _lines(path):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            found.add(f"{path}: line {number}: not JSON{', the last line: truncated?' if is_last else ''}")
            continue
        fault = check.fault(record)
        if fault:
            found.add(f"{path}: line {number}: {fault}")
        else:
            records.append(record)
            lines.append(number)
    if not records:
        found.add(f"{path}: holds no routes")
    found.refuse()

    numbers: dict[Any, int] = {}
    request = [numbers.setdefault(record["req_id"], len(numbers)) for record in records]
    ids = np.array([record["topk_ids"] for record in records], dtype=np.int64)
    has_phase, has_logits = "phase" in records[0], "logits" in records[0]
    routes = Routes(
        request=np.array(request, dtype=np.int64),
        token=np.array([record["token_idx"] for record in records], dtype=np.int64),
        phase=np.array([_PHASES[record.get("phase", "decode")] for record in records], dtype=np.int8),
        layer=np.array([record["layer"] for record in records], dtype=np.int64),
        ids=ids,
        scores=np.array([record["topk_weights"] for record in records], dtype=np.float64),
        line=np.repeat(np.array(lines, dtype=np.int64)[:, None], ids.shape[1], axis=1),
        logits=np.array([r["logits"] for r in records], dtype=np.float32) if has_logits else None,
    )
    return routes, has_phase


def _lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield number, text and whether it is the last line; blank lines are passed over."""
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: cannot be read as text") from None
    last = max((number for number, text in enumerate(texts, 1) if text.strip()), default=0)
    for number, text in enumerate(texts, 1):
        if text.strip():
            yield number, text, number == last


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < _LARGEST


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_whole(value)


class _Check:
    """Checks one record's form against the first record's."""

    def __init__(self, experts: int, top_k: int | None) -> None:
        self._experts = experts
        self._top_k = top_k
        self._optional: dict[str, bool] | None = None

    def fault(self, record: Any) -> str | None:
        """Return what is wrong, or None."""
        if not isinstance(record, dict):
            return "must be a JSON object"
        for key, is_right, description in _KEYS:
            if key not in record:
                return f"{key!r} is missing"
            if not is_right(record[key]):
                return f"{key} must be {description}"
        phase = record.get("phase", "decode")
        if not isinstance(phase, str) or phase not in _PHASES:
            return "phase must be prefill or decode"
        logits = record.get("logits")
        if logits is not None and not (_list_of(_is_number)(logits) and len(logits) == self._experts):
            return f"logits must be a list of {self._experts} numbers"
        if self._top_k is None:
            self._top_k = len(record["topk_ids"])
        for key in ("topk_ids", "topk_weights"):
            if len(record[key]) != self._top_k:
                return f"{key} holds {len(record[key])} values, not {self._top_k}"
        optional = {key: record.get(key) is not None for key in ("phase", "logits")}
        self._optional = self._optional or optional
        odd = [key for key in optional if optional[key] != self._optional[key]]
        return f"{odd[0]} is given in some lines and not in others" if odd else None


def _list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) > 0 and all(map(is_right, value))


_KEYS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("req_id", lambda value: type(value) in (int, str), "text or a whole number"),
    ("token_idx", _is_whole, "a whole number"),
    ("layer", _is_whole, "a whole number"),
    ("topk_ids", _list_of(_is_whole), "a list of whole numbers"),
    ("topk_weights", _list_of(_is_number), "a list of numbers"),
)

IMPORTER = Importer("jsonl", "JSON lines, one route each (vLLM style)", _sniff, _read)
