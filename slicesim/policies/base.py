"""What all strategies share: parameters that are checked, a name, and a registry per kind."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from slicesim.policies.slices import BoolArray, FloatArray, IntArray

#: Sort keys of a set of slices, the first one counts most; the smallest goes first.
Keys = tuple[FloatArray | IntArray | BoolArray, ...]


class Strategy(BaseModel):
    """One part of a policy. A subclass with a ``name`` is found under it in YAML; fields are its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    registry: ClassVar[dict[str, dict[str, type[Strategy]]]] = {}

    @classmethod
    def is_shipped(cls) -> bool:
        """Whether it is one of slicesim's own, not a user's."""
        return cls.__module__.startswith("slicesim.")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Register a subclass that bears a name of its own."""
        if "name" in cls.__dict__:
            cls.registry.setdefault(cls.kind, {})[cls.name] = cls
