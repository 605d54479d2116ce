"""What a live model says of itself: name, licence, weights, and whether it is a micro model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from slicesim.checkpoint.files import MICRO_MODEL

#: Entry of config.json by which a micro model names the model that it stands for.
MODEL_NAME = "slicesim_model"


def source_id(model: str) -> str:
    """Return a hub id as it is, and a folder by its name alone: where it lay on this machine is nobody's business."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model


def provenance(model: str, config: Any) -> str:
    """Return what a trace says of its origin: the model, and that it is a micro model where it is one."""
    return f"micro model {source_id(model)}" if is_micro_model(config) else source_id(model)


def model_name(model: str, config: Any) -> str:
    """Return the model's name: the config's own entry, or the last part of folder or hub id."""
    return str(getattr(config, MODEL_NAME, None) or source_id(model).rsplit("/", 1)[-1])


def is_micro_model(config: Any) -> bool:
    """Tell whether the config says that the model is one of slicesim's micro models."""
    return bool(getattr(config, MICRO_MODEL, False))


def licence(model: str, config: Any) -> str:
    """Return the licence that the config or the model card states, or that none is stated."""
    stated = getattr(config, "license", None) or _card_licence(model)
    return f"{stated} (the model's)" if stated else "not stated by the model"


def weights_identity(model: str, config: Any) -> list[list[Any]]:
    """Return what tells one state of the weights from another: files with size and time, or the hub's revision."""
    folder = Path(model)
    if not folder.is_dir():
        return [["revision", getattr(config, "_commit_hash", None)]]
    digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    files = [(file.name, file.stat()) for file in sorted(folder.glob("*.safetensors"))]
    return [["config.json", digest], *([name, stat.st_size, stat.st_mtime_ns] for name, stat in files)]


def _card_licence(model: str) -> str | None:
    card = _card(model)
    if card is None or not card.startswith("---\n"):
        return None
    try:
        front = yaml.safe_load(card[4:].split("\n---", 1)[0])
    except yaml.YAMLError:
        return None
    stated = front.get("license") if isinstance(front, dict) else None
    return stated if isinstance(stated, str) else None


def _card(model: str) -> str | None:
    if Path(model).is_dir():
        path = Path(model) / "README.md"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model, "README.md")).read_text(encoding="utf-8", errors="replace")
    except OSError:  # no card, or no network
        return None
