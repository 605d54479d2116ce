"""A live model without its routed experts: those stay in their files, everything else lies in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from slicesim.checkpoint import Checkpoint, open_checkpoint
from slicesim.errors import UserError
from slicesim.live.blocks import MoeBlock
from slicesim.live.families import moe_blocks
from slicesim.live.layouts import Concatenated
from slicesim.live.load import LiveModel, check_source, one_line


def load_skeleton(model: str, dtype: str = "auto") -> LiveModel:
    """Load all of a model but its routed experts, which must not be computed by the model itself.

    model: a local folder; dtype: as for ``load_live``. The experts' parameters have shapes and no memory (torch's
    ``meta`` device). Raises UserError where that is not possible, or the files lack a tensor.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    check_source(model)
    if not Path(model).is_dir():
        raise UserError(f"{model}: experts are read from a local folder; download the model first")
    checkpoint = open_checkpoint(Path(model))
    with one_line(model):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        chosen = (config.dtype or torch.float32) if dtype == "auto" else getattr(torch, dtype)
        with torch.device("meta"):
            loaded = AutoModelForCausalLM.from_config(config, dtype=chosen, experts_implementation="eager")
    blocks = moe_blocks(loaded)
    if any(not isinstance(block.layout, Concatenated) for block in blocks):
        raise UserError(f"{model}: this family's experts have biases: they cannot be left in their files")
    _fill(loaded, blocks, checkpoint)
    return LiveModel(loaded.eval(), tokenizer, blocks)


def _fill(model: Any, blocks: list[MoeBlock], checkpoint: Checkpoint) -> None:
    """Read every parameter outside the experts, and make anew what no file holds."""
    experts = {id(parameter) for block in blocks for parameter in block.module.experts.parameters()}
    state = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in experts:
            tensor = checkpoint.tensors.get(name)
            if tensor is None or tensor.shape != tuple(parameter.shape):
                raise UserError(f"{checkpoint.path}: holds no tensor {name} {list(parameter.shape)}")
            weights = torch.from_numpy(tensor.floats(0, tensor.size)).reshape(tensor.shape)
            state[name] = weights.to(parameter.dtype)
    model.load_state_dict(state, strict=False, assign=True)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if any(buffer.is_meta for buffer in child.buffers(recurse=False)):
                setattr(module, name, _anew(child))


def _anew(module: nn.Module) -> nn.Module:
    """Return a module like this one (rotary angles) with its buffers computed: they follow from the configuration."""
    return type(module)(config=module.config)
