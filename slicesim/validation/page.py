"""The page of errors: measured, simulated, error, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from slicesim.errors import UserError
from slicesim.hardware.flash import FlashTier
from slicesim.hardware.flash_law import FlashLaw
from slicesim.scenario import Scenario
from slicesim.scenario.device import Flash
from slicesim.validation.block_sizes import block_size_table
from slicesim.validation.hit_rates import hit_rate_table
from slicesim.validation.in_memory import in_memory_table
from slicesim.validation.phone import phone_log_table, phone_table
from slicesim.validation.rows import Row, Table
from slicesim.validation.tiers import dram_table, gemm_table, nvme_table, ufs_table

NOT_HERE = "not regenerated here"
_HEAD = "| row | what | measured | simulated | error | kind | note |\n|---|---|--:|--:|--:|---|---|"


def all_tables(hwconfigs: Path, data: Path | None) -> list[Table]:
    """Work every row out. hwconfigs: folder of devices; data: folder of files that do not ship, if it is at hand.

    Raises UserError where a device file is missing.
    """
    phone, paper = hwconfigs / "oneplus-15r.yaml", hwconfigs / "mobile.yaml"
    nvme_part = hwconfigs / "parts" / "flash-nvme-pcie4.yaml"
    for path in (phone, paper, nvme_part):
        if not path.is_file():
            raise UserError(f"{path}: no such file; the devices that rows are run on come with a checkout of slicesim")
    device = Scenario.load(phone).settings.device
    nvme = _part(nvme_part)
    return [
        phone_table(phone),
        phone_log_table(phone, data),
        in_memory_table(phone),
        hit_rate_table(paper, data),
        ufs_table(FlashTier(device.flash).law),
        nvme_table(nvme),
        block_size_table(nvme),
        dram_table(),
        gemm_table(),
    ]


def _part(path: Path) -> FlashLaw:
    return FlashTier(Flash.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))).law


def render(tables: Sequence[Table], earlier: str = "") -> str:
    """Write the page. Rows that were not worked out keep what they say in ``earlier``, the page as it was."""
    before = _by_key(earlier)
    parts = [
        "# Validation",
        "Written by `slicesim validate`; do not edit. Rows marked * need files that do not ship (`--data PATH`): "
        f"where those are missing the last figures stay, with the note *{NOT_HERE}*. *fitted*: parameters were chosen"
        " on the row; *predicted*: on other rows or on none; *input*: given to the simulator.",
        "\n".join(f"- {line}" for line in summary(tables)),
    ]
    for table in tables:
        lines = "\n".join(_line(row, before) for row in table.rows)
        parts += [f"## {table.title}", table.text, f"{_HEAD}\n{lines}"]
    parts += [
        "## The paper's headline",
        f"{_HEAD}\n| SliceMoE against Cache-Prior | gains in energy and latency | - | - | - | - | issue 7 |",
    ]
    return "\n\n".join(parts) + "\n"


def summary(tables: Iterable[Table]) -> list[str]:
    """One line for each kind of row: mean and worst error. Only rows that ship, so that every machine says the same."""
    rows = [row for table in tables for row in table.rows if not row.needs_data]
    predicted = [row for row in rows if row.kind == "predicted"]
    groups = {
        "predicted tokens/s": [row for row in predicted if row.is_speed],
        "all predicted rows": predicted,
        "fitted tokens/s": [row for row in rows if row.kind == "fitted" and row.is_speed],
        "all fitted rows": [row for row in rows if row.kind == "fitted"],
    }
    return [f"{name} ({len(group)}): {_mean_and_worst(group)}" for name, group in groups.items()]


def _mean_and_worst(rows: Sequence[Row]) -> str:
    errors = {row: abs(row.error) for row in rows if row.error is not None}
    worst = max(errors, key=lambda row: errors[row])
    return (
        f"mean error {100 * sum(errors.values()) / len(errors):.1f} %, worst {100 * errors[worst]:.1f} % "
        f"({worst.name}, {worst.what})"
    )


def _line(row: Row, before: Mapping[tuple[str, str], str]) -> str:
    name = f"{row.name} *" if row.needs_data else row.name
    if row.simulated is None or row.error is None:
        old = before.get((name, row.what))
        return old or f"| {name} | {row.what} | {_figure(row.measured)} | - | - | {row.kind} | {NOT_HERE} |"
    figures = f"{_figure(row.measured)} | {_figure(row.simulated)} | {100 * row.error:+.1f} %"
    return f"| {name} | {row.what} | {figures} | {row.kind} | {row.note} |"


def _figure(value: float) -> str:
    """Four digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _by_key(page: str) -> dict[tuple[str, str], str]:
    """Rows of an earlier page by name and what they show, with the note that they are old."""
    return dict(_old_rows(page))


def _old_rows(page: str) -> Iterator[tuple[tuple[str, str], str]]:
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 7:
            note = cells[6] if NOT_HERE in cells[6] else f"{cells[6]} {NOT_HERE}".strip()
            yield (cells[0], cells[1]), f"| {' | '.join([*cells[:6], note])} |"
