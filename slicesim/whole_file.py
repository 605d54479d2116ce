"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slicesim.errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the place to write to, beside ``path``; it takes that name when the block ends well, else it is removed.

    Its name is always the same: what a killed run left behind is written over by the next one.
    Raises UserError where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise  # another file, which names itself
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)
