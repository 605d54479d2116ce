"""Load a causal language model and its tokenizer: from a folder or the hub, safetensors only, no code from there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, NamedTuple, get_args

from slicesim.errors import UserError
from slicesim.live import require_live

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class LoadOptions:
    """How a model is laid into memory.

    dtype: ``auto`` is what the checkpoint holds. device_map: as accelerate takes it (``auto``, ``cpu``, ...); with an
    off-load folder, layers that do not fit into memory, or into max_memory_gb of main memory, are read from disk.
    """

    dtype: str = "auto"
    device_map: str | None = None
    offload_folder: Path | None = None
    max_memory_gb: float | None = None


class LiveModel(NamedTuple):
    """A model in evaluation mode, its tokenizer and its MoE blocks."""

    model: Any
    tokenizer: Any
    blocks: list[Any]

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config


def load_live(model: str, options: LoadOptions = LoadOptions()) -> LiveModel:
    """Load a model from a local folder or by its hub id.

    Experts are computed one after another (transformers' ``eager``), so that a block that is computed from parts has
    the model's own bits. Raises UserError where libraries, files or weights are missing, weights are not safetensors,
    or the model is of no known family.
    """
    require_live()
    _check_options(options)
    check_source(model)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from slicesim.live.families import moe_blocks

    with _one_line(model):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        loaded, told = AutoModelForCausalLM.from_pretrained(
            model,
            dtype=options.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            experts_implementation="eager",
            output_loading_info=True,
            **_placing(options),
            **_unpacking(config),
        )
    if told["missing_keys"]:
        first = sorted(told["missing_keys"])[0]
        raise UserError(f"{model}: the weight files lack {len(told['missing_keys'])} tensors of the model, as {first}")
    return LiveModel(loaded.eval(), tokenizer, moe_blocks(loaded))


def check_source(model: str) -> None:
    """Refuse a folder that is not there, has no config, or holds no safetensors (one line each)."""
    folder = Path(model)
    if not folder.is_dir():
        if folder.exists() or folder.is_absolute() or model.startswith(".") or model.count("/") > 1:
            raise UserError(f"{model}: no such model folder")
        return
    if not (folder / "config.json").is_file():
        raise UserError(f"{model}: no model folder (it has no config.json)")
    if any(folder.glob("*.safetensors")):
        return
    unsafe = sorted(file.name for pattern in _UNSAFE for file in folder.glob(pattern))
    if unsafe:
        raise UserError(
            f"{model}: {unsafe[0]} is a pickle, which can run any code: only safetensors are loaded; convert it first"
        )
    raise UserError(f"{model}: holds no weights (*.safetensors)")


def _placing(options: LoadOptions) -> dict[str, Any]:
    """Return where weights go, as transformers wants to hear it."""
    if options.device_map is None:
        return {}
    memory = None
    if options.max_memory_gb is not None:
        from accelerate.utils import get_max_memory

        memory = {**get_max_memory(), "cpu": int(options.max_memory_gb * 1e9)}
    return {"device_map": options.device_map, "offload_folder": options.offload_folder, "max_memory": memory}


def _unpacking(config: Any) -> dict[str, Any]:
    """MXFP4 weights (gpt-oss) are unpacked to plain matrices; else kernels, which are code, might come from the hub."""
    packing = getattr(config, "quantization_config", None) or {}
    if packing.get("quant_method") != "mxfp4":
        return {}
    from transformers import Mxfp4Config

    return {"quantization_config": Mxfp4Config(dequantize=True)}


def _check_options(options: LoadOptions) -> None:
    if options.dtype not in get_args(Dtype):
        raise UserError(f"--dtype: {options.dtype!r} is none of {', '.join(get_args(Dtype))}")
    if options.device_map is None and (options.offload_folder is not None or options.max_memory_gb is not None):
        raise UserError("--offload-folder, --max-memory: give --device-map auto too, or nothing is off-loaded")
    if options.max_memory_gb is not None and options.offload_folder is None:
        raise UserError("--max-memory: give --offload-folder too, for the layers that it leaves out")
    if options.device_map is not None and find_spec("accelerate") is None:
        raise UserError("--device-map needs accelerate: pip install accelerate")


@contextmanager
def _one_line(model: str) -> Iterator[None]:
    """Turn what transformers says of a model that it cannot load into one line."""
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    bar, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{model}: cannot be loaded ({shorten(text, 400, placeholder=' ...')})") from None
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
