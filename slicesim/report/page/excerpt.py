"""The timeline's excerpt: the first decode tokens, one track under the other."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from slicesim.report.page.figure import Figure, layout, listed, text
from slicesim.report.page.run import Run
from slicesim.report.plots import COLOURS

#: Bars of the excerpt, and tokens, at most; one token is always shown.
MOST_BARS = 2500
MOST_TOKENS = 3

#: Times are written in microseconds, so that one token may seem to begin before the other has ended.
_ROUNDING_US = 1e-3

_TOKEN_TRACK = "token"
#: Colour by the word that a track's name holds; the first that fits.
_TRACK_COLOURS = (
    ("flash stall", COLOURS["denied"]), ("DRAM stall", COLOURS["low"]), ("waits", COLOURS["denied"]),
    ("token", COLOURS["background"]), ("NPU", COLOURS["npu"]), ("DRAM", COLOURS["dram"]),
    ("interconnect", COLOURS["interconnect"]), ("flash", COLOURS["flash"]),
)  # fmt: skip


def excerpts(runs: list[Run]) -> Iterator[Figure]:
    """Yield one chart for each run that recorded a timeline."""
    for run in runs:
        events = run.saved.events()
        if len(events):
            yield _excerpt(run, _first_tokens(events), of_several=len(runs) > 1)


def _first_tokens(events: pd.DataFrame) -> pd.DataFrame:
    """Cut out the first decode tokens, or the first prompt where nothing is decoded."""
    tokens = events[events["track"] == _TOKEN_TRACK].sort_values("start_us")
    decoded = tokens[~tokens["name"].str.contains(" prefill ")]
    shown = decoded if len(decoded) else tokens[:1]
    if not len(shown):
        return events[:MOST_BARS]
    start = shown["start_us"].iloc[0]
    chosen = events[:0]
    for end in (shown["start_us"] + shown["duration_us"])[:MOST_TOKENS]:
        more = events[(events["start_us"] >= start) & (events["start_us"] < end - _ROUNDING_US)]
        if len(chosen) and len(more) > MOST_BARS:
            break
        chosen = more
    return chosen[: 2 * MOST_BARS].assign(start_us=lambda frame: frame["start_us"] - start)


def _excerpt(run: Run, events: pd.DataFrame, of_several: bool) -> Figure:
    tracks = events.drop_duplicates("track").sort_values("order")["track"].tolist()
    data = []
    for track in tracks:
        own = events[events["track"] == track]
        colour = next((colour for word, colour in _TRACK_COLOURS if word in track), COLOURS["background"])
        data.append(
            {
                "type": "bar", "orientation": "h", "name": text(track), "y": [text(track)] * len(own),
                "base": listed(own["start_us"] / 1e3), "x": listed(own["duration_us"] / 1e3),
                "customdata": [text(name) for name in own["name"]],
                "marker": {"color": colour, "line": {"width": 0}},
                "hovertemplate": "%{customdata}<br>at %{base:.4f} ms, for %{x:.4f} ms<extra>%{y}</extra>",
            }
        )  # fmt: skip
    names = events[events["track"] == _TOKEN_TRACK]["name"].tolist()
    span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" if names else "the first events"
    reading = (
        f"What each part was busy with ({text(span)}); drag over the chart to zoom in, double-click to go back. All "
        "recorded tokens are in <code>timeline.json</code>, for ui.perfetto.dev."
    )
    return Figure(
        f"timeline-{run.number}", "Timeline" + f": {text(run.label)}" * of_several, reading, data,
        layout(
            [run.summary["trace"]], "time (ms)", "", barmode="overlay", bargap=0.25, showlegend=False,
            yaxis={"autorange": "reversed", "automargin": True, "type": "category"}, height=90 + 34 * len(tracks),
        ),
        is_wide=True,
    )  # fmt: skip
