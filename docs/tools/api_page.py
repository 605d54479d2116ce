"""docs/api.md: the public names of slicesim, from their signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import slicesim

_INTRODUCTION = """# Python API

*Written by `python docs/tools/references.py` from signatures and docstrings.*

The public names of `slicesim`; all else may change between versions. An executed example:
[the API in a notebook](notebooks/api.ipynb). `import slicesim` loads neither torch nor matplotlib.

"""


def api_page() -> str:
    """Return docs/api.md."""
    lines: list[str] = []
    for name in sorted(slicesim.__all__, key=str.lower):
        lines += [*_entry(name, getattr(slicesim, name)), ""]
    return _INTRODUCTION + "\n".join(lines).rstrip() + "\n"


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    if isinstance(value, str):
        yield "Text: the version of slicesim."
    elif inspect.isclass(value):
        yield from _class(name, value)
    else:
        yield from _signature(f"slicesim.{name}", value)
        yield from _prose(value)


def _class(name: str, owner: type[Any]) -> Iterator[str]:
    yield from _prose(owner)
    fields = getattr(owner, "__dataclass_fields__", {})
    for key, value in vars(owner).items():
        if key.startswith("_") or key in fields:
            continue
        function = getattr(value, "__func__", value)
        if isinstance(value, (property, cached_property)):
            getter = value.fget if isinstance(value, property) else value.func
            yield from ("", f"### {name}.{key}", "")
            yield from ("```text", f"{name}.{key}: {inspect.signature(getter).return_annotation}", "```", "")
            yield from _prose(value)
        elif inspect.isfunction(function):
            yield from ("", f"### {name}.{key}", "")
            yield from _signature(f"{name}.{key}", function)
            yield from _prose(function)


def _signature(name: str, function: Any) -> Iterator[str]:
    """Yield a signature, one parameter a line where it is long."""
    signature = inspect.signature(function)
    parameters = [_parameter(one) for key, one in signature.parameters.items() if key not in ("self", "cls")]
    kinds = [one.kind for key, one in signature.parameters.items() if key not in ("self", "cls")]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    joined = ", ".join(parameters)
    inside = joined if len(joined) < 70 else "\n    " + ",\n    ".join(parameters) + ",\n"
    yield from ("```text", f"{name}({inside}) -> {signature.return_annotation}", "```", "")


def _parameter(one: inspect.Parameter) -> str:
    """Write one parameter; annotations stand as they were written."""
    star = "*" if one.kind is inspect.Parameter.VAR_POSITIONAL else ""
    default = "" if one.default is inspect.Parameter.empty else f" = {one.default!r}"
    return f"{star}{one.name}: {one.annotation}{default}"


def _prose(value: Any) -> Iterator[str]:
    text = (inspect.getdoc(value) or "").replace("``", "`")
    yield from text.splitlines()
