"""BigMoeOnEdge's ``route_trace v1``: a ``#`` preamble, then one line per slot, as recorded on a phone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.errors import UserError
from slicesim.trace.importers.importer import Importer, ImportOptions, first_line, make_header
from slicesim.trace.importers.routes import assemble, collect_slots
from slicesim.trace.importers.table_file import TableFile, read_table
from slicesim.trace.table import PREFILL, MemoryTrace

_TITLE = "# route_trace"
_VERSION = "v1"
_COLUMNS = {
    "turn": "i8",
    "phase": "i8",
    "step": "i8",
    "layer": "i8",
    "slot": "i8",
    "expert": "i8",
    "weight": "f8",
}


class _Preamble(NamedTuple):
    model: str
    layers: int
    experts: int
    top_k: int
    expert_bytes: dict[int, int]


def _sniff(path: Path) -> bool:
    return path.is_file() and first_line(path).startswith(_TITLE)


def _read(path: Path, options: ImportOptions) -> MemoryTrace:
    preamble = _preamble(path)
    table = read_table(path, _COLUMNS)
    columns = {**table.columns, "request": table.columns["turn"]}
    strange = np.flatnonzero(~np.isin(columns["phase"], (0, 1)))
    if len(strange):
        raise UserError(f"{path}: line {table.lines[strange[0]]}: phase must be 0 (prompt) or 1 (decode)")
    token = _token_numbers(columns["turn"], columns["phase"], columns["step"])
    phase = columns["phase"].astype(np.int8)
    routes = collect_slots(TableFile(path, columns), token, phase, "weight", preamble.top_k)
    layers = sorted(set(routes.layer.tolist()) & set(range(preamble.layers))) or list(range(preamble.layers))
    missing = [layer for layer in layers if layer not in preamble.expert_bytes]
    if preamble.expert_bytes and missing:
        raise UserError(f"{path}: the preamble gives no expert_bytes for layer {missing[0]}")
    header = make_header(
        path,
        options,
        routes.scores,
        model=preamble.model,
        layers=layers,
        experts=preamble.experts,
        top_k=preamble.top_k,
        source=f"BigMoeOnEdge route_trace {_VERSION}, {path.name}",
        expert_bytes=[preamble.expert_bytes[layer] for layer in layers] if preamble.expert_bytes else None,
        partial_prefill_layers=_partial_layers(
            routes.request, routes.token, routes.phase, routes.layer, preamble.layers - 1
        ),
    )
    return MemoryTrace(header, assemble(path, header, routes), path.name)


def _preamble(path: Path) -> _Preamble:
    title = first_line(path).split()
    if title[2:3] != [_VERSION]:
        raise UserError(f"{path}: line 1: must be '{_TITLE} {_VERSION}'; other versions are not known")
    facts: dict[str, str] = {}
    expert_bytes: dict[int, int] = {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                if line.strip() and not line.startswith("#"):
                    break
                found = dict(re.findall(r"(\w+)=(\S+)", line))
                if "layer" in found:
                    expert_bytes[int(found["layer"])] = int(found["expert_bytes"])
                else:
                    facts |= found
        return _Preamble(
            facts["model"],
            int(facts["n_layer"]),
            int(facts["n_expert"]),
            int(facts["n_expert_used"]),
            expert_bytes,
        )
    except KeyError as error:
        raise UserError(f"{path}: the preamble does not give {error.args[0]}") from None
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{path}: the preamble's figures must be whole numbers") from None


def _token_numbers(turn: NDArray[np.int64], phase: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the tokens of each turn from 0, by phase and step."""
    tokens, token_of = np.unique(np.stack((turn, phase, step), axis=1), axis=0, return_inverse=True)
    first = np.searchsorted(tokens[:, 0], tokens[:, 0])
    return np.asarray((np.arange(len(tokens)) - first)[token_of.reshape(-1)], dtype=np.int64)


def _partial_layers(
    request: NDArray[np.int64],
    token: NDArray[np.int64],
    phase: NDArray[np.int8],
    layer: NDArray[np.int64],
    last_layer: int,
) -> list[int]:
    """Return the last layer if each prompt has it for its last token alone: the engine skips the rest."""
    prompt = phase == PREFILL
    final: dict[int, int] = {}
    for turn in np.unique(request[prompt]):
        final[int(turn)] = int(token[prompt & (request == turn)].max())
    at_last = prompt & (layer == last_layer)
    recorded = list(zip(request[at_last].tolist(), token[at_last].tolist(), strict=True))
    is_partial = sorted(recorded) == sorted(final.items()) and any(final.values())
    return [last_layer] if is_partial else []


IMPORTER = Importer("route-trace", "BigMoeOnEdge route_trace v1 (.route.csv)", _sniff, _read)
