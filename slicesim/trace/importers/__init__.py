"""Importers of other tools' routing logs, one file per format."""

from __future__ import annotations

from pathlib import Path

from slicesim.errors import UserError
from slicesim.trace.importers import esft, generic_csv, jsonl, npz, route_trace
from slicesim.trace.importers.importer import Importer, ImportOptions
from slicesim.trace.table import MemoryTrace

__all__ = ["IMPORTERS", "ImportOptions", "Importer", "import_trace"]

#: Known formats by name, in the order in which they are tried on a file; a new one is a file and a word here.
IMPORTERS: dict[str, Importer] = {
    module.IMPORTER.name: module.IMPORTER for module in (npz, esft, route_trace, jsonl, generic_csv)
}


def import_trace(path: Path, options: ImportOptions) -> MemoryTrace:
    """Read a trace of another tool, in the format that the options name or the file shows.

    Raises UserError, with the line where there is one, for an unknown format and for whatever is faulty.
    """
    if not path.exists():
        raise UserError(f"no such trace: {path}")
    return _importer(path, options.format).read(path, options)


def _importer(path: Path, name: str | None) -> Importer:
    known = "; ".join(f"{importer.name} ({importer.description})" for importer in IMPORTERS.values())
    if name is not None:
        if name not in IMPORTERS:
            raise UserError(f"--format: no format {name!r}; known: {known}")
        return IMPORTERS[name]
    for importer in IMPORTERS.values():
        if importer.sniff(path):
            return importer
    raise UserError(f"{path}: in no format that is known here: {known}")
