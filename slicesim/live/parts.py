"""Finished requests of a capture, one trace file each, in a folder beside the trace until that is whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from slicesim.errors import UserError
from slicesim.trace.store import TOKENS_PER_ROW_GROUP, ParquetTrace, write_trace
from slicesim.trace.table import TraceBlock, TraceHeader

_IDENTITY = "capture.json"


class Parts:
    """The folder ``OUT.parts``. Every part is whole or absent, whenever the process is killed."""

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        """``identity``: all that the rows depend on; parts are only taken up again where it is the same."""
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self.identity = json.loads(json.dumps(identity))

    @contextmanager
    def opened(self, restart: bool) -> Iterator[None]:
        """Make the folder, or take it up again, and keep other captures out.

        Raises UserError where it holds another capture, unless ``restart`` throws that away, and where one is at work.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system, even after kill -9
            except BlockingIOError:
                raise UserError(f"{self.folder}: another capture is at work here; wait for it") from None
            self._take_up(restart)
            yield

    def _take_up(self, restart: bool) -> None:
        path = self.folder / _IDENTITY
        if restart:
            for file in self.folder.iterdir():
                if file.name != ".lock":
                    file.unlink()
        if not path.exists():
            partial = self.folder / f".{_IDENTITY}.partial"
            partial.write_text(json.dumps(self.identity, indent=1), encoding="utf-8")
            os.replace(partial, path)
            return
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError):
            raise UserError(f"{path}: is not what a capture wrote; give --restart to begin anew") from None
        differing = [key for key in {**found, **self.identity} if found.get(key) != self.identity.get(key)]
        if differing:
            raise UserError(
                f"{self.folder}: holds requests of another capture (other: {', '.join(differing)}): repeat that one "
                "to finish it, or give --restart to throw them away"
            )

    def has(self, request: int) -> bool:
        """Tell whether a request is finished; a file that breaks off (the machine went down) is removed."""
        path = self._path(request)
        if not path.is_file():
            return False
        try:
            return bool(ParquetTrace(path).header)
        except UserError:
            path.unlink()
            return False

    def put(self, request: int, header: TraceHeader, blocks: Iterable[TraceBlock]) -> None:
        """Keep a finished request."""
        write_trace(self._path(request), header, blocks)

    def join(self, header: TraceHeader, requests: int) -> int:
        """Write the trace from its parts and remove them; return its tokens."""
        tokens = 0

        def counted() -> Iterator[TraceBlock]:
            nonlocal tokens
            for block in _gathered(own for request in range(requests) for own in self._blocks(request)):
                tokens += len(block)
                yield block

        write_trace(self.out, header, counted())
        shutil.rmtree(self.folder)
        return tokens

    def _blocks(self, request: int) -> Iterator[TraceBlock]:
        return ParquetTrace(self._path(request)).blocks()

    def _path(self, request: int) -> Path:
        return self.folder / f"{request:06d}.parquet"


def _gathered(blocks: Iterable[TraceBlock]) -> Iterator[TraceBlock]:
    """Put short blocks together, up to about a row group: many short requests would make many small ones."""
    held: list[TraceBlock] = []
    for block in blocks:
        if held and sum(map(len, held)) + len(block) > TOKENS_PER_ROW_GROUP:
            yield _joined(held)
            held = []
        held.append(block)
    if held:
        yield _joined(held)


def _joined(blocks: list[TraceBlock]) -> TraceBlock:
    columns = zip(*blocks, strict=True)
    return TraceBlock(*(None if column[0] is None else np.concatenate(column) for column in columns))  # type: ignore[arg-type]
