"""Presets and strategies: the list, one preset in full, and docs/policies.md, all from YAML and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from slicesim.policies import load_preset, presets
from slicesim.policies.base import Strategy
from slicesim.policies.compose import KINDS, Preset

#: Groups of presets in the order in which they are shown, with what heads them.
GROUPS = {
    "own": "Ours",
    "system": "Systems",
    "baseline": "Baselines",
    "eviction": "Eviction alone",
    "routing": "Routing alone",
    "precision": "Precision alone",
    "prefetch": "Reading ahead alone",
}

_HEADINGS = {
    "routing": "which experts a token is sent to",
    "precision": "which experts need high precision, and what the cache holds as one object",
    "eviction": "who leaves the cache",
    "fetch": "what is read on demand",
    "prefetch": "what is read before it is asked for",
    "warmup": "what prefill leaves for decode",
    "constraint": "how a miss rate is held",
    "placement": "which of several devices holds which expert",
}


def list_policies() -> list[dict[str, Any]]:
    """Return one line of facts for each preset, group by group."""
    loaded = {name: load_preset(name) for name in presets()}
    order = list(GROUPS)
    names = sorted(loaded, key=lambda name: (order.index(loaded[name].group), name))
    return [_facts(name, loaded[name]) for name in names]


def _facts(name: str, preset: Preset) -> dict[str, Any]:
    chosen = {kind: _class_of(kind, preset) for kind in KINDS}
    return {
        "policy": name,
        "group": preset.group,
        "description": preset.description,
        "source": preset.source,
        "needs_logits": bool(getattr(chosen["routing"], "sees_logits", False)),
        "knows_future": any(getattr(strategy, "needs_future", False) for strategy in chosen.values()),
        "reads_ahead": getattr(preset.prefetch, "name", "none") != "none",
    }


def _class_of(kind: str, preset: Preset) -> Strategy:
    choice = getattr(preset, kind)
    return Strategy.registry[kind][choice.name].model_validate(choice.parameters)


def policies_table(policies: list[dict[str, Any]]) -> Table:
    """Lay the list out for the terminal."""
    table = Table(title="policies")
    for heading in ("policy", "group", "", "source", "asks for"):
        table.add_column(heading, overflow="fold")
    for row in policies:
        table.add_row(row["policy"], row["group"], row["description"], row["source"], ", ".join(_asks(row)))
    return table


def _asks(row: dict[str, Any]) -> Iterator[str]:
    words = {"needs_logits": "logits", "knows_future": "the future", "reads_ahead": "overlap prefetch"}
    return (word for key, word in words.items() if row[key])


def describe_policy(name: str) -> dict[str, Any]:
    """Return one preset in full: its facts, every strategy with all parameters, what changes with logits.

    Raises UserError for an unknown name.
    """
    preset = load_preset(name)
    strategies = {kind: _class_of(kind, preset) for kind in KINDS}
    return {
        **_facts(name, preset),
        "simplified": preset.simplified,
        **{
            kind: {"name": strategy.name, **strategy.model_dump(), "about": summary_of(type(strategy))}
            for kind, strategy in strategies.items()
        },
        "with_logits": preset.with_logits.model_dump(exclude_none=True),
        "schedule": preset.schedule,
    }


def policy_table(described: dict[str, Any]) -> Table:
    """Lay one preset out for the terminal."""
    table = Table(title=described["policy"], show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for key in ("description", "source", "simplified"):
        if described[key]:
            table.add_row(key, described[key])
    for kind in KINDS:
        own = dict(described[kind])
        about, name = own.pop("about"), own.pop("name")
        parameters = ", ".join(f"{key} {value}" for key, value in own.items())
        table.add_row(kind, f"{name}{f' ({parameters})' if parameters else ''}: {about}")
    for key in ("with_logits", "schedule"):
        if described[key]:
            table.add_row(key.replace("_", " "), ", ".join(f"{part}: {what}" for part, what in described[key].items()))
    return table


def summary_of(strategy: type[Strategy]) -> str:
    """Return the first paragraph of a strategy's docstring, on one line."""
    return " ".join(_text(strategy).split("\n\n")[0].split())


def _text(strategy: type[Strategy]) -> str:
    return (inspect.getdoc(strategy) or "").replace("``", "`")


def policies_page() -> str:
    """Return docs/policies.md."""
    lines = [_INTRODUCTION]
    rows = list_policies()
    for group, heading in GROUPS.items():
        lines += [f"### {heading}", "", "| preset | what it is | source | asks for |", "|---|---|---|---|"]
        own = [row for row in rows if row["group"] == group]
        lines += [
            f"| `{row['policy']}` | {row['description']} | {row['source']} | {', '.join(_asks(row))} |" for row in own
        ]
        lines.append("")
        simplified = [(row["policy"], load_preset(row["policy"]).simplified) for row in own]
        if any(text for _, text in simplified):
            lines += ["Simplified against the paper:", ""]
            lines += [f"- `{name}`: {' '.join(text.split())}" for name, text in simplified if text]
            lines.append("")
    lines += ["## Strategies", ""]
    for kind, what in _HEADINGS.items():
        lines += [f"### {kind.capitalize()}: {what}", ""]
        for name, strategy in Strategy.registry[kind].items():
            lines += [f"#### `{name}`", "", *_prose(strategy), "", *_parameters(strategy)]
    return "\n".join(lines).rstrip() + "\n"


def _prose(strategy: type[Strategy]) -> Iterator[str]:
    """Break a docstring before its closing notes, each in a paragraph of its own."""
    return iter(re.sub(r"\s+(Source|Simplified|Checked by):", r"\n\n*\1:*", _text(strategy)).splitlines())


def _parameters(strategy: type[Strategy]) -> list[str]:
    if not strategy.model_fields:
        return []
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for name, field in strategy.model_fields.items():
        default = "required" if field.is_required() else f"`{field.default}`"
        lines.append(f"| `{name}` | {default} | {field.description or ''} |")
    return [*lines, ""]


_INTRODUCTION = """# Policies

*Written by `slicesim policies --page docs/policies.md` from the presets and the strategies' docstrings.*

A policy is a handful of small strategies, named in YAML: `policy: {preset: dbsc, eviction: {name: arc}}` takes a
preset and puts another eviction strategy in its place. `slicesim policies` lists the presets, `slicesim policies
NAME` shows one in full, `slicesim compare CONFIG --policies all` runs all that a trace allows.

*Asks for*: **logits** - the scores of all experts, not of the top-k alone; **the future** - it knows the whole trace,
so it is a bound or a stand-in and no policy for a device; **overlap prefetch** - it reads ahead.

## Presets
"""
