"""The cache's map: every expert of every layer, by what of it is resident, at some moments of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from slicesim.decide.residency import LSB_RESIDENT, MSB_RESIDENT
from slicesim.report.page.figure import Figure, layout, text
from slicesim.report.page.run import Run

#: Colours of a cell by its bits: nothing, MSB alone, LSB alone, both.
CELLS = ("rgba(128,128,128,0.16)", "#56B4E9", "#E69F00", "#0072B2")
_NAMES = ("not resident", "MSB alone", "LSB alone", "MSB and LSB")
_WHOLE = ("not resident", "resident")


def maps(runs: list[Run]) -> Iterator[tuple[Figure, dict[str, Any]]]:
    """Yield a chart for each run that took snapshots, and what its slider goes through."""
    for run in runs:
        found = run.saved.residency()
        if found is None:
            continue
        model, trace = run.summary["model"], run.summary["trace"]
        sliced = any(model["lsb_bytes"])
        layers, experts = found.slices.shape[1:]
        names = _NAMES if sliced else _WHOLE
        frames = {
            "id": f"residency-{run.number}",
            "names": list(names),
            "experts": experts,
            "msb_bytes": model["msb_bytes"],
            "lsb_bytes": model["lsb_bytes"],
            "msb": MSB_RESIDENT,
            "lsb": LSB_RESIDENT,
            "when": [_when(request, token) for request, token in zip(found.request, found.token, strict=True)],
            "cells": ["".join(map(str, cells.reshape(-1).tolist())) for cells in found.slices],
        }
        last = found.slices[-1].astype(int)
        data = [
            {
                "type": "heatmap", "z": last.tolist(), "x": list(range(experts)), "y": trace["layers"], "zmin": 0,
                "zmax": 3, "showscale": False, "xgap": 1 if experts <= 128 else 0, "ygap": 1 if layers <= 64 else 0,
                "colorscale": _steps(), "hovertemplate": "layer %{y}, expert %{x}<extra></extra>",
            }
        ]  # fmt: skip
        chips = " ".join(
            f'<span class="chip"><i style="background:{colour}"></i>{name}</span>'
            for colour, name in zip(CELLS, names, strict=False)
            if name != "LSB alone" or (found.slices == LSB_RESIDENT).any()
        )
        heading = "What is in the cache" + f": {text(run.label)}" * (len(runs) > 1)
        ways = layout(
            [trace], "expert", "layer", height=min(640, 170 + 13 * layers), showlegend=False,
            xaxis={"showgrid": False}, yaxis={"rangemode": "normal", "autorange": "reversed", "showgrid": False},
        )  # fmt: skip
        reading = f"Move the slider to go through the run. {chips}"
        yield Figure(f"residency-{run.number}", heading, reading, data, ways, is_wide=len(runs) == 1), frames


def _steps() -> list[list[Any]]:
    """A colour scale without anything between its colours."""
    edges = np.linspace(0, 1, len(CELLS) + 1).tolist()
    return [[edge, colour] for place, colour in enumerate(CELLS) for edge in edges[place : place + 2]]


def _when(request: int, token: int) -> str:
    return f"after the prompt of request {request}" if token < 0 else f"after request {request}, token {token}"
