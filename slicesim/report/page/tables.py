"""The page's tables: headline figures, what differs, the scenario with its sources."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from slicesim.report.diff import Setting, settings, shown
from slicesim.report.page.run import Run
from slicesim.report.tables import Line, cell, headline

Cell = str
escape = html.escape


def table(heads: Iterable[Cell], rows: Iterable[Sequence[Cell]], kind: str) -> str:
    """Return an HTML table whose cells are HTML; the first of a row heads it."""
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{text}</td>" for text in others) + "</tr>"
        for first, *others in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def headline_table(runs: Sequence[Run]) -> str:
    """Lay out the headline figures: phases of one run, or decode of several beside each other."""
    return _of_one(runs[0]) if len(runs) == 1 else _of_several(runs)


def _of_one(run: Run) -> str:
    rows = []
    for line in headline(run.summary):
        prefill, decode = line.prefill + _between(run, "prefill", line), line.decode + _between(run, "decode", line)
        rows.append((_label(line), prefill, decode))
    half = next(place for place, (label, *_) in enumerate(rows) if label.startswith("miss rate"))
    sides = (table(("", "prefill", "decode"), part, "figures") for part in (rows[:half], rows[half:]))
    return f'{cards(run)}<div class="sides">{"".join(sides)}</div>'


#: Figures that a glance is for: label of the headline table, name on the card, unit.
_CARDS = (
    ("tokens/s", "decode speed", "tokens/s"), ("latency per token (ms): mean", "latency per token", "ms"),
    ("energy per token (mJ)", "energy per token", "mJ"),
    ("time to first token (ms, mean)", "time to first token", "ms"),
    ("miss rate of slice requests (%)", "miss rate", "%"), ("flash read per token (MB)", "flash per token", "MB"),
)  # fmt: skip


def cards(run: Run) -> str:
    """Lay out the few figures of one run that a glance is for."""
    lines = {line.label: line for line in headline(run.summary)}
    parts = []
    for label, name, unit in _CARDS:
        line = lines[label]
        phase = "decode" if line.decode else "prefill"
        value = getattr(line, phase)
        between = _between(run, phase, line)
        parts.append(f"<div><dt>{name}</dt><dd>{value} <small>{unit}</small>{between}</dd></div>")
    return f'<dl class="cards">{"".join(parts)}</dl>'


def _label(line: Line) -> Cell:
    text = escape(line.label.strip())
    return f'<span class="part">{text}</span>' if line.label.startswith(" ") else text


def _between(run: Run, phase: str, line: Line) -> Cell:
    ends = run.intervals.get(phase, *line.path)
    if ends is None:
        return ""
    low, high = (cell(end, line.factor, line.form) for end in ends)
    if low == high:
        return ""
    return f'<small class="between">{low} to {high}</small>'


def _of_several(runs: Sequence[Run]) -> str:
    lines = [headline(run.summary) for run in runs]
    labels = {line.label: line for own in lines for line in own}
    rows = []
    for label, line in labels.items():
        found = [{one.label: one for one in own}.get(label) for own in lines]
        cells = []
        for run, own in zip(runs, found, strict=True):
            phase = "decode" if own is None or own.decode else "prefill"
            text = "-" if own is None else getattr(own, phase)
            ratio = _ratio(runs[0], run, own, phase) if run.number and own else ""
            between = "" if own is None else _between(run, phase, own)
            cells.append(f"{text}{ratio}{between}")
        rows.append((_label(line), *cells))
    return table(("", *map(chip, runs)), rows, "figures")


def _ratio(first: Run, run: Run, line: Line, phase: str) -> Cell:
    """How a figure stands to that of the first run."""
    one, other = (_figure(of.summary[phase], line.path) for of in (first, run))
    if not one or not other:
        return ""
    ratio = other / one
    return f' <small class="ratio">{f"{ratio:.2f}x" if ratio >= 0.005 else "&lt;0.01x"}</small>'


def _figure(part: Mapping[str, Any], path: Sequence[str]) -> float | None:
    if path == ("flash_bytes_per_token",):
        return part["bytes"]["flash_read"] / part["tokens"] if part["tokens"] else None
    node: Any = part
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return float(node) if path and isinstance(node, (int, float)) else None


def chip(run: Run) -> Cell:
    """A run's name with its colour."""
    return f'<span class="chip"><i style="background:{run.colour}"></i>{escape(run.label)}</span>'


def difference_table(runs: Sequence[Run]) -> str:
    """Lay out the keys of the scenarios, and of the traces, that are not the same in all runs."""
    each = [_keys(run) for run in runs]
    keys = dict.fromkeys(key for own in each for key in own)
    nothing = Setting(None, None)
    rows = []
    for key in keys:
        found = [own.get(key, nothing) for own in each]
        if any(one != found[0] for one in found):
            rows.append((f"<code>{escape(key)}</code>", *(_setting(one) for one in found)))
    if not rows:
        return "<p>The runs are of one scenario and one trace.</p>"
    return table(("key", *map(chip, runs)), rows, "settings")


def _keys(run: Run) -> dict[str, Setting]:
    summary = run.summary
    trace = {f"trace.{key}": Setting(summary["trace"].get(key), None) for key in ("sha256", "tokens")}
    version = {"slicesim_version": Setting(summary.get("slicesim_version"), None)}
    return {**trace, **dict(settings(summary["scenario"])), **version}


def _setting(setting: Setting) -> Cell:
    source = f"<small>{escape(setting.source)}</small>" if setting.source else ""
    return f"{escape(shown(setting.value))}{source}"


def scenario_table(run: Run) -> str:
    """Lay out a resolved scenario, section by section: value, range and source of every key."""
    rows = []
    for key, setting in settings(run.summary["scenario"]):
        rows.append(
            (
                f"<code>{escape(key)}</code>",
                escape(shown(setting.value)),
                _range(run, key),
                escape(setting.source or ""),
            )
        )
    return table(("key", "value", "range", "source"), rows, "settings")


def _range(run: Run, key: str) -> Cell:
    node: Any = run.summary["scenario"]
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not {"low", "high"} & set(node):
        return ""
    return escape(" to ".join(shown(node.get(end, node["value"])) for end in ("low", "high")))


def trace_table(run: Run) -> str:
    """Lay out what the trace is, and where it comes from."""
    trace = run.summary["trace"]
    names = ("path", "model", "tokens", "source", "licence", "notes", "score_kind", "has_logits", "sha256")
    rows = [(escape(name), escape(shown(trace[name]))) for name in names if trace.get(name) not in (None, "")]
    return table(("", ""), rows, "settings")
