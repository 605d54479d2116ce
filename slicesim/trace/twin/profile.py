"""A profile: a twin in a YAML file, with where it comes from. It holds figures, no recorded token."""

from __future__ import annotations

import base64
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, model_validator

from slicesim.errors import UserError
from slicesim.scenario.document import read_document
from slicesim.scenario.scenario import validate
from slicesim.scenario.section import Section
from slicesim.trace.twin.context import KEPT
from slicesim.trace.twin.fill import Filling
from slicesim.trace.twin.model import Twin
from slicesim.trace.twin.recording import Array, Recording
from slicesim.trace.twin.scores import LEVELS
from slicesim.version import __version__
from slicesim.whole_file import whole_file

Count = Annotated[int, Field(ge=1)]

_DTYPES = {"float16": "<f2", "uint8": "u1"}
_LINE = 110

#: Of one array unpacked: a hundred times the largest that is shipped.
_MOST_BYTES = 2**28


class Packed(Section):
    """An array: little-endian, row by row, zlib, base64."""

    shape: list[Count]
    dtype: Literal["float16", "uint8"]
    zlib_base64: str

    @classmethod
    def of(cls, values: Array, dtype: Literal["float16", "uint8"]) -> Packed:
        """Pack; counts beyond 255 stay at 255."""
        limited = np.minimum(values, 255) if dtype == "uint8" else values
        data = zlib.compress(np.ascontiguousarray(limited, dtype=_DTYPES[dtype]).tobytes(), 9)
        text = base64.b64encode(data).decode()
        return cls(shape=list(values.shape) or [1], dtype=dtype, zlib_base64="\n".join(textwrap.wrap(text, _LINE)))

    def values(self) -> Array:
        """Unpack; raises ValueError where the bytes are not what the shape says."""
        dtype = np.dtype(_DTYPES[self.dtype])
        size = int(np.prod([int(n) for n in self.shape], dtype=object)) * dtype.itemsize
        if size > _MOST_BYTES:
            raise ValueError(f"a shape of {self.shape} is more than a profile may hold")
        try:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(base64.b64decode("".join(self.zlib_base64.split()), validate=True), size + 1)
        except (ValueError, zlib.error) as error:
            raise ValueError(f"not zlib in base64 ({error})") from None
        if len(data) != size or not unpacker.eof:
            raise ValueError(f"does not hold {size} bytes, as its shape says")
        values = np.frombuffer(data, dtype).reshape(self.shape).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("holds a figure that is not finite")
        return np.asarray(values)


class Origin(Section):
    """A trace that was fitted."""

    name: str
    sha256: str
    source: str
    licence: str


class Profile(Section):
    """A model's routing in figures.

    recorded_layers: those of ``layers`` that were recorded; the others are made up. micro_model: it was fitted to the
    capture of a micro model.
    """

    name: str
    made_by: str
    tool_version: str
    model: str
    layers: Annotated[list[int], Field(min_length=1)]
    recorded_layers: Annotated[list[int], Field(min_length=1)]
    experts: Count
    top_k: Count
    score_kind: Literal["softmax", "renormalised"]
    fitted_to: Annotated[list[Origin], Field(min_length=1)]
    fitted_tokens: Count
    fitted_requests: Count
    micro_model: bool = False
    twin: dict[str, Packed]

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.top_k >= self.experts:
            raise ValueError(f"top_k ({self.top_k}) must be below the number of experts ({self.experts})")
        if self.layers != sorted(set(self.layers)) or not set(self.recorded_layers) <= set(self.layers):
            raise ValueError("layers must rise, and recorded_layers be among them")
        return self

    @property
    def is_filled(self) -> bool:
        """Whether some layers are made up."""
        return self.recorded_layers != self.layers

    def figures(self) -> Twin:
        """Unpack the twin; raises ValueError where an array is missing or of another shape."""
        unknown = set(self.twin) ^ set(Twin._fields)
        if unknown:
            name = min(unknown)
            raise ValueError(f"twin.{name}: {'unknown array' if name in self.twin else 'missing array'}")
        arrays = {}
        for name, packed in self.twin.items():
            try:
                arrays[name] = packed.values()
            except ValueError as error:
                raise ValueError(f"twin.{name}: {error}") from None
        shapes = self._shapes(factors=len(arrays["centre"]), kinds=len(arrays["share"]))
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"twin.{name}: must have the shape {list(shape)}, has {list(arrays[name].shape)}")
        share = arrays["share"]
        if (share < 0).any() or not share.sum():
            raise ValueError("twin.share: must not be negative, and not 0 throughout")
        arrays["share"] = share / share.sum()
        arrays["attraction"] = arrays["attraction"][0]
        return Twin(**arrays)

    def _shapes(self, factors: int, kinds: int) -> dict[str, tuple[int, ...]]:
        layers, size = len(self.layers), len(self.layers) * self.experts
        by_layer: dict[str, tuple[int, ...]] = dict.fromkeys(("noise_factor", "carry", "slope"), (layers,))
        pieces = dict.fromkeys(("corners", "heights"), (layers, len(LEVELS)))
        by_factor = dict.fromkeys(("centre", "brief", "chance", "answered", "drift"), (factors,))
        by_expert = dict.fromkeys(("mean", "shift", "noise"), (size,))
        return {
            **by_layer, **pieces, **by_factor, **by_expert, "loadings": (size, factors), "kinds": (kinds, factors),
            "followers": (kinds, kinds), "share": (kinds,), "attraction": (1,), "lasting": (factors, 1 + len(KEPT)),
        }  # fmt: skip


def make_profile(
    name: str, recording: Recording, twin: Twin, made_by: str, model: str | None = None, filling: Filling | None = None
) -> Profile:
    """Describe a fitted twin. model: what the recorded model is called, if not as in the trace."""
    header = recording.header
    kinds = {name: "uint8" if name == "followers" else "float16" for name in Twin._fields}
    return Profile(
        name=name,
        made_by=made_by,
        tool_version=__version__,
        model=model or header.model,
        layers=list(filling.layers) if filling else list(header.layers),
        recorded_layers=list(header.layers),
        experts=header.experts,
        top_k=header.top_k,
        score_kind="renormalised" if header.score_kind == "renormalised" else "softmax",
        fitted_to=[
            Origin(name=name, sha256=digest, source=its.source, licence=its.licence)
            for name, digest, its in zip(recording.names, recording.digests, recording.headers, strict=True)
        ],
        fitted_tokens=len(recording.ids),
        fitted_requests=len(recording.lengths),
        micro_model=header.micro_model,
        twin={
            name: Packed.of(values, kinds[name])  # type: ignore[arg-type]
            for name, values in zip(Twin._fields, twin, strict=True)
        },
    )


def write_profile(path: Path, profile: Profile, notes: Sequence[str] = ()) -> None:
    """Write a profile, whole or not at all; notes become comments at its head."""
    text = "".join(f"# {note}\n" for note in notes)
    text += yaml.dump(profile.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_LINE)
    with whole_file(path) as partial:
        partial.write_text(text)


def read_profile(path: Path) -> tuple[Profile, Twin]:
    """Read a profile; raises UserError, with file and line, for what is not valid."""
    profile = validate(Profile, read_document(path))
    try:
        return profile, profile.figures()
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


class _Dumper(yaml.SafeDumper):
    """Long texts in lines, short lists in one."""


def _text(dumper: yaml.SafeDumper, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> Any:
    plain = not any(isinstance(item, dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=plain)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
