"""Live models, run by transformers: loading, their MoE blocks, capture of routing traces (extra ``capture``)."""

from importlib.util import find_spec

from slicesim.errors import UserError

_NEEDED = ("torch", "transformers", "safetensors")


def require_live() -> None:
    """Raise UserError, naming the extra, where a library that runs live models is missing."""
    missing = [name for name in _NEEDED if not _is_installed(name)]
    if missing:
        raise UserError(f'live models need {" and ".join(missing)}: pip install "slicesim[capture]"')


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # blocked, or half imported
        return False
