"""Work that kills its process; light, since worker processes import it."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def double(value: int, marks: str, deaths: int) -> int:
    """Die so many times over the value 3, else return twice the value."""
    died = len(list(Path(marks).iterdir()))
    if value == 3 and died < deaths:
        (Path(marks) / str(died)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * value
