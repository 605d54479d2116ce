"""The table of published figures against ours, from the CSVs that the figures wrote.

    python experiments/figures/table.py [--out FOLDER]

Prints it; where FOLDER is docs/images, the marked part of docs/paper.md is replaced too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import kit
import pandas as pd
import warmup

PAGE = kit.ROOT / "docs" / "paper.md"
BEGIN, END = "<!-- experiments/figures/table.py: begin -->", "<!-- end -->"
DEEPSEEK, QWEN = kit.MODELS
HIGH_BITS = ("Cache-Prior, high bits", "budget, high bits")


#: Columns of the table: which routing, and what they are called.
COLUMNS = {"real": "real routing, as recorded", "imputed": "real routing, logits imputed", "twin": "twins (SYNTHETIC)"}


class Claim(NamedTuple):
    """A published figure. key: of the CSV's ratios; up_to: the largest over the cache sizes."""

    model: str
    key: str
    published: str


CLAIMS = (
    Claim(DEEPSEEK, "energy_ratio", "up to 2.37x less energy"),
    Claim(DEEPSEEK, "latency_ratio", "up to 1.81x faster"),
    Claim(QWEN, "energy_ratio", "up to 2.85x less energy"),
    Claim(QWEN, "latency_ratio", "up to 1.64x faster"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and put them on the page."""
    given = kit.read_arguments(__doc__, arguments)
    text = "\n\n".join("\n".join(part) for part in (_published(given), _reasons(given), _warm_up(given)) if part)
    print(text)
    if given.out.resolve() == kit.IMAGES:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        kit.in_place(
            PAGE, lambda path: path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")
        )


def _read(given: kit.Given, name: str, kind: str) -> pd.DataFrame:
    """Return the rows of a figure's CSV; none where it was not drawn."""
    path = given.path(name, ".csv", kind)
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _published(given: kit.Given) -> list[str]:
    heads = ["", "published", *COLUMNS.values(), "what moves it (twin)"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    frames = [_read(given, "equal_quality", kind) for kind in COLUMNS]
    for claim in CLAIMS:
        for high, low in kit.PAIRS:
            cells = [_range(frame, claim, high) for frame in frames]
            if any(cell != "-" for cell in cells):
                moves = _moves(given, claim) if (high, low) == kit.PAIRS[0] else ""
                lines.append(_line([f"{kit.MODELS[claim.model]}, {high}/{low} bits", claim.published, *cells, moves]))
    starts = [_read(given, "warmup", kind) for kind in COLUMNS]
    for regime in warmup.REGIMES:
        for steps in (10, 100, 500):
            cells = [_start(frame, regime, steps) for frame in starts]
            if any(cell != "-" for cell in cells):
                lines.append(_line([f"PCW, {regime}, first {steps} steps", "2.31x / 1.96x", *cells, ""]))
    return lines


#: Reasons that the table names beside a published figure, by their words in the CSV of gaps.
MOVERS = {
    "energy_ratio": (
        "expert traffic alone", "SliceMoE reads every missing LSB", "both steered to 5 % misses, not equal quality",
        "every miss read, both at a proxy of 0.02",
    ),
    "latency_ratio": (
        "expert traffic alone", "flash 1.75 and DRAM 16 GB/s", "reads overlap within a layer",
        "both steered to 5 % misses, not equal quality", "every miss read, both at a proxy of 0.02",
    ),
}  # fmt: skip


def _moves(given: kit.Given, claim: Claim) -> str:
    """Each reason with what it makes of the ratio, at the smallest and the largest cache."""
    path = given.path("gaps", ".csv")
    if not path.exists():
        return ""
    frame = pd.read_csv(path)
    frame = frame[(frame["model"] == claim.model) & (frame["claim"] == "decode")].sort_values("capacity_gb")
    parts = []
    for reason in MOVERS[claim.key]:
        ratios = frame.loc[frame["reason"] == reason, claim.key]
        parts.append(f"{reason}: {ratios.iloc[0]:.2f} to {ratios.iloc[-1]:.2f}")
    return "; ".join(parts)


def _range(frame: pd.DataFrame, claim: Claim, high: int) -> str:
    """The ratios by rising cache size; a star where quality is not equal."""
    if frame.empty:
        return "-"
    own = frame[(frame["model"] == claim.model) & (frame["high_bits"] == high) & frame["system"].isin(HIGH_BITS)]
    marked = zip(
        own.sort_values("capacity_gb")[claim.key], own.sort_values("capacity_gb")["equal_quality"], strict=True
    )
    return " / ".join(f"{ratio:.2f}{'' if met else '*'}" for ratio, met in marked) or "-"


def _start(frame: pd.DataFrame, regime: str, steps: int) -> str:
    """Energy / latency of an empty start by PCW's, for each routing."""
    if frame.empty:
        return "-"
    own = frame[(frame["start"] == "empty") & (frame["steps"] == steps) & (frame["regime"] == regime)]
    return "; ".join(
        f"{kit.MODELS[str(row.model)].split('-')[0]} {row.energy_ratio:.2f} / {row.latency_ratio:.2f}"
        for row in own.itertuples()
    ) or "-"  # fmt: skip


def _parts(given: kit.Given, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each routing, recorded ones first."""
    for kind in COLUMNS:
        frame = _read(given, name, kind)
        for routing, rows in frame.groupby("routing", sort=False) if len(frame) else ():
            yield f"{routing}{' (SYNTHETIC)' * (kind == 'twin')}", rows


def _reasons(given: kit.Given) -> list[str]:
    parts = [(name, frame[frame["claim"] == "decode"]) for name, frame in _parts(given, "gaps")]
    parts = [(name, frame) for name, frame in parts if len(frame)]
    if not parts:
        return []
    heads = [f"{name}: {what}" for name, _ in parts for what in ("energy", "latency")]
    lines = [_line(["decode, 8/4 bits, 1.8 / 2.4 / 3.6 GB", *heads]), _line(["---"] * (1 + len(heads)))]
    for reason in dict.fromkeys(reason for _, frame in parts for reason in frame["reason"]):
        cells = []
        for _, frame in parts:
            own = frame[frame["reason"] == reason].sort_values("capacity_gb")
            for key in ("energy_ratio", "latency_ratio"):
                marked = zip(own[key], own["equal_quality"], strict=True)
                cells.append(" / ".join(f"{ratio:.2f}{'' if met else '*'}" for ratio, met in marked))
        lines.append(_line([reason, *cells]))
    return lines


def _warm_up(given: kit.Given) -> list[str]:
    parts = [(name, frame[frame["claim"].str.startswith("warm-up")]) for name, frame in _parts(given, "gaps")]
    parts = [(name, frame) for name, frame in parts if len(frame)]
    if not parts:
        return []
    heads = ["regime", "routing", "10 steps", "100 steps", "500 steps", "energy at 2.31x or more up to"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for reason in dict.fromkeys(reason for _, frame in parts for reason in frame["reason"]):
        for name, frame in parts:
            own = frame[frame["reason"] == reason].set_index("claim")
            cells = [_windows(own, steps) for steps in (10, 100, 500)]
            reached = int(own["published_up_to_steps"].max())
            lines.append(_line([reason, name, *cells, f"{reached} steps" if reached else "never"]))
    return lines


def _windows(frame: pd.DataFrame, steps: int) -> str:
    """Energy (of experts alone) / latency."""
    key = f"warm-up, {steps} steps"
    if key not in frame.index:
        return "-"
    row = frame.loc[key]
    return f"{row['energy_ratio']:.2f} ({row['expert_energy_ratio']:.2f}) / {row['latency_ratio']:.2f}"


if __name__ == "__main__":
    kit.run(main)
