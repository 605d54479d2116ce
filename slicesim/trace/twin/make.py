"""From trace files to a profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from slicesim.errors import UserError
from slicesim.models import load_model
from slicesim.trace.load import load_trace
from slicesim.trace.twin.fill import Filling
from slicesim.trace.twin.fit import fit_twin
from slicesim.trace.twin.profile import Profile, make_profile
from slicesim.trace.twin.recording import Recording, read_recording


def fit_profile(
    paths: Sequence[Path],
    name: str,
    *,
    model: str | None = None,
    fill_layers: bool = False,
    adjacent_reuse: float | None = None,
    srp_16: float | None = None,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> Profile:
    """Fit a twin to traces of one model and describe it.

    model: shipped model or model YAML that was recorded; fill_layers: make up its layers that were not recorded, with
    ``adjacent_reuse`` and ``srp_16`` as reuse at lag 1 and SRP(16) over all layers, where given. Raises UserError for
    traces that cannot be fitted together, and for a model that they do not fit.
    """
    recording = read_recording([load_trace(path, model=model) for path in paths])
    geometry = load_model(model) if model else None
    filling = None
    if fill_layers:
        if geometry is None:
            raise UserError("--fill-layers: name the model whose layers are to be filled in, with --model")
        filling = Filling(
            _recorded(recording, tuple(geometry.moe_layers), paths[0]),
            tuple(geometry.moe_layers),
            adjacent_reuse,
            srp_16,
        )
    elif adjacent_reuse is not None or srp_16 is not None:
        raise UserError("--adjacent-reuse and --srp-16: are for layers that are filled in; give --fill-layers too")
    twin = fit_twin(recording, seed, filling, progress)
    files = " ".join(path.name for path in paths)
    options = f" --model {model}" if model else ""
    if fill_layers:
        options += " --fill-layers"
    if adjacent_reuse is not None:
        options += f" --adjacent-reuse {adjacent_reuse:g}"
    if srp_16 is not None:
        options += f" --srp-16 {srp_16:g}"
    made_by = f"slicesim trace fit {files}{options} --seed {seed}"
    return make_profile(name, recording, twin, made_by, geometry.name if geometry else None, filling)


def _recorded(recording: Recording, layers: tuple[int, ...], path: Path) -> tuple[int, ...]:
    recorded = tuple(recording.header.layers)
    if len(recorded) < 2:
        raise UserError(f"{path}: --fill-layers needs at least 2 recorded layers, has {len(recorded)}")
    strange = sorted(set(recorded) - set(layers))
    if strange:
        raise UserError(f"{path}: layer {strange[0]} is none of the model's MoE layers ({layers[0]} to {layers[-1]})")
    return recorded
