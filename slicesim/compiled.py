"""Compiled code: numba, cached on disk in a folder whose name changes with the sources that take part.

numba looks only at the file of a cached function; a function that it calls may lie in another one. So the folder is
named by a digest of every source that may take part, and a strategy's compiled type by a digest of its own code.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import namedtuple
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from numba import njit
from numba.core import event
from numba.core.errors import NumbaError
from numba.extending import overload as numba_overload
from numba.extending import register_jitable

from slicesim.version import __version__

COMPILING = "slicesim: compiling; later runs load the result from disk\n"

_ROOMS = (".", "decide", "schedule", "policies", "curves", "bound", "quality", "trace", "trace/twin", "amat")


def jit(function: Callable[..., Any], *, inlined: bool = False) -> Any:
    """Compile a function at its first call, or load it from the cache on disk.

    inlined: into its callers, whatever its size; a call with many columns costs more than a short function.
    """
    folder, before = _folder(), numba.config.CACHE_DIR
    numba.config.CACHE_DIR = folder
    try:
        return njit(function, cache=bool(folder), nogil=True, _nrt=False, forceinline=inlined)
    finally:
        numba.config.CACHE_DIR = before


inlined = partial(jit, inlined=True)

#: Choose an implementation by the types of the arguments, and inline it.
overload = partial(numba_overload, jit_options={"forceinline": True})


def rule(strategy: Any, *methods: str) -> Any:
    """Return what stands for a strategy in compiled code: its parameters, under a type that knows its ``methods``.

    The type is named after the class and a digest of the methods' code, so that compiled code is found again on disk
    by the same strategy and by no other. In compiled code ``self`` is this tuple.
    """
    cls = type(strategy)
    fields = [name for name in cls.model_fields if isinstance(getattr(strategy, name), (bool, int, float))]
    text = "".join(_text(getattr(cls, method)) for method in methods)
    name = "__".join((f"Rule_{cls.__name__}_{hashlib.sha256(text.encode()).hexdigest()[:16]}", *fields))
    kind = globals().get(name) or __getattr__(name)
    for method in methods:
        if not hasattr(kind, f"compiled_{method}"):
            setattr(kind, f"compiled_{method}", staticmethod(register_jitable(getattr(cls, method))))
    return kind(*(getattr(strategy, field) for field in fields))


def __getattr__(name: str) -> Any:
    """Make the type of a rule by its name: numba's index on disk names the types of strategies not seen yet."""
    if not name.startswith("Rule_"):
        raise AttributeError(name)
    kind = namedtuple(name, name.split("__")[1:])  # type: ignore[misc]
    kind.__module__ = __name__
    return globals().setdefault(name, kind)


def _text(function: Any, seen: tuple[Any, ...] = ()) -> str:
    """Code of a function, with the numbers and functions that it finds outside itself."""
    function = getattr(function, "py_func", function)
    code = function.__code__
    outside: list[object] = []
    for name in code.co_names:
        value = getattr(function.__globals__.get(name), "py_func", function.__globals__.get(name))
        if isinstance(value, (bool, int, float)):
            outside.append((name, value))
        elif isinstance(value, FunctionType) and value not in (function, *seen):
            outside.append((name, _text(value, (function, *seen))))
    return repr((code.co_code, code.co_names, [getattr(c, "co_code", c) for c in code.co_consts], outside))


@cache
def _folder() -> str:
    """Where compiled code is kept: NUMBA_CACHE_DIR, or the user's cache folder; empty where neither can be written."""
    digest = hashlib.sha256(f"{__version__} {numba.__version__} {sys.version}".encode())
    home = Path(__file__).parent
    for source in sorted(file for room in _ROOMS for file in (home / room).glob("*.py")):
        digest.update(source.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(numba.config.CACHE_DIR or Path(base) / "slicesim") / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""


class _Notice(event.Listener):  # type: ignore[misc]
    """Says once that code is being compiled: the first run takes longer than those after it."""

    def __init__(self) -> None:
        self.said = False

    def on_start(self, event: Any) -> None:
        if not self.said:
            self.said = True
            sys.stderr.write(COMPILING)

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


event.register("numba:compile", _Notice())

__all__ = ["COMPILING", "NumbaError", "inlined", "jit", "overload", "register_jitable", "rule"]
