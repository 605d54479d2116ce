"""A folder with a scenario and a sweep, and a nursery in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import here
from tests.kills.nursery import Nursery
from tests.sweeps.conftest import SWEEP

__all__ = ["here"]

#: Those of the sweep.
POLICIES = ("lru-high", "dbsc", "slicemoe")


@pytest.fixture
def nursery(here: Path) -> Iterator[Nursery]:
    (here / "s.yaml").write_text(SWEEP, encoding="utf-8")
    # No sweep among them: it reads Parquet, and Arrow's threads do not live on in children.
    found = Nursery(here, [["run", "c.yaml", "--policy", name, "--out", "warm"] for name in POLICIES])
    yield found
    found.close()
