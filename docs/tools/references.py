"""Write the pages of docs/ that follow from code: ``python docs/tools/references.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(DOCS.parent))  # run as a script from any folder: this checkout's tools and slicesim

from docs.tools.api_page import api_page  # noqa: E402
from docs.tools.cli_page import cli_page  # noqa: E402
from docs.tools.scenario_page import scenario_page  # noqa: E402
from slicesim.report.policies import policies_page  # noqa: E402

PAGES: dict[str, Callable[[], str]] = {
    "api.md": api_page,
    "cli.md": cli_page,
    "policies.md": policies_page,
    "scenario.md": scenario_page,
}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"written: docs/{name}")


if __name__ == "__main__":
    main()
