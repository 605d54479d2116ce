"""A table of bit widths: one row for every expert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slicesim.errors import UserError
from slicesim.policies.slices import BoolArray
from slicesim.trace.importers.table_file import TableFile, read_table

_COLUMNS = {"layer": "i8", "expert": "i8", "bits": "i8"}


def read_widths(path: Path, layers: Sequence[int], experts: int, bits: tuple[int, int]) -> BoolArray:
    """Return which experts have the first of two widths, [layers, experts].

    layers: the model's numbers of the layers in question; rows of its other layers are let be. Raises UserError for
    no such file and, with the line, for another width, an expert that is not there, one named twice, and one left out.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; policy.precision.table names a CSV file: layer, expert, bits")
    table = read_table(path, _COLUMNS, "widths")
    layer, expert, width = (table.columns[name] for name in _COLUMNS)
    high, low = bits
    for row in np.flatnonzero((width != high) & (width != low)).tolist():
        raise _fault(table, row, f"bits is {width[row]}, but an expert has {high} or {low} (amat.high_bits, low_bits)")
    for row in np.flatnonzero((expert < 0) | (expert >= experts)).tolist():
        raise _fault(table, row, f"expert is {expert[row]}, but a layer has experts 0 to {experts - 1}")
    found = np.zeros((len(layers), experts), dtype=np.int64)
    for row in np.flatnonzero(np.isin(layer, layers)).tolist():
        place = list(layers).index(layer[row]), expert[row]
        if found[place]:
            raise _fault(table, row, f"layer {layer[row]}, expert {expert[row]} stands twice")
        found[place] = width[row]
    missing = np.argwhere(found == 0)
    if len(missing):
        place, number = missing[0].tolist()
        raise UserError(f"{path}: layer {layers[place]}, expert {number} is missing; every expert needs a row")
    return np.asarray(found == high)


def _fault(table: TableFile, row: int, what: str) -> UserError:
    return UserError(f"{table.path}: line {table.lines[row]}: {what}")
