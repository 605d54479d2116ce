"""Plain CSV, one line per slot; phases are ``prefill`` and ``decode``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slicesim.errors import UserError
from slicesim.trace.fault_list import FaultList
from slicesim.trace.importers.importer import Importer, ImportOptions, make_header
from slicesim.trace.importers.routes import assemble, collect_slots
from slicesim.trace.importers.table_file import column_names, read_table
from slicesim.trace.table import DECODE, PREFILL, MemoryTrace

_PHASES = {"prefill": PREFILL, "decode": DECODE}
_COLUMNS = {
    "request": "i8",
    "token": "i8",
    "phase": "U8",  # one character more than "prefill", so that a longer word stays a wrong one
    "layer": "i8",
    "slot": "i8",
    "expert": "i8",
    "score": "f8",
}


def _sniff(path: Path) -> bool:
    try:
        return path.is_file() and set(_COLUMNS) <= set(column_names(path)[1])
    except UserError:
        return False


def _read(path: Path, options: ImportOptions) -> MemoryTrace:
    geometry = options.required_geometry(path)
    table = read_table(path, _COLUMNS)
    words = np.char.strip(table.columns["phase"])
    found = FaultList()
    for row in np.flatnonzero(~np.isin(words, list(_PHASES))):
        word = str(words[row])
        found.add(f"{path}: line {table.lines[row]}: phase must be prefill or decode, is {word!r}")
    found.refuse()
    phase = np.where(words == "decode", DECODE, PREFILL).astype(np.int8)
    # A slot that most routes have is meant; one that few have is a fault, to be found below.
    uses = np.unique(table.columns["slot"], return_counts=True)[1]
    top_k = options.top_k or int((2 * uses > uses.max()).sum())
    routes = collect_slots(table, table.columns["token"], phase, "score", top_k)
    layers = sorted(set(routes.layer.tolist()) & set(geometry.moe_layers)) or list(geometry.moe_layers)
    header = make_header(
        path,
        options,
        routes.scores,
        model=geometry.name,
        layers=layers,
        experts=geometry.experts,
        top_k=top_k,
    )
    return MemoryTrace(header, assemble(path, header, routes), path.name)


IMPORTER = Importer("csv", f"CSV with the columns {','.join(_COLUMNS)}", _sniff, _read)
