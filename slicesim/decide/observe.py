"""Batches seen whole by an eviction strategy that learns from what is wanted together."""

from __future__ import annotations

from slicesim.compiled import overload


def observes(rule):
    """Tell whether the strategy behind a compiled rule (its numba type) observes batches."""
    return hasattr(getattr(rule, "instance_class", None), "compiled_observe")


def observe(self, tables, layer, slots, slices, base):
    """Let the strategy learn from a batch."""


@overload(observe)
def _observe(self, tables, layer, slots, slices, base):
    if not observes(self):
        return lambda self, tables, layer, slots, slices, base: None
    own = self.instance_class.compiled_observe
    return lambda self, tables, layer, slots, slices, base: own(self, tables[layer], slots, slices, base)
