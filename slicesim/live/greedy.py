"""Greedy decoding of one request, with what every router said of every token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from slicesim.live.load import LiveModel
from slicesim.trace.table import DECODE, PREFILL, TraceBlock

#: Decode tokens that are gathered before they are passed on.
DECODE_BLOCK = 256


class Step(NamedTuple):
    """Tokens that went through the model in one forward pass: their ids, phase and routing."""

    tokens: tuple[int, ...]
    phase: int
    ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    logits: NDArray[np.float32]


def steps(live: LiveModel, prompt: Sequence[int], new_tokens: int, prefill_chunk: int) -> Iterator[Step]:
    """Run a request: the prompt in chunks, then one forward pass for each new token, with a KV cache.

    Each new token is the likeliest one after those before it. All but one that ends the text go through the model, so
    ``new_tokens`` decode steps are yielded unless the text ends earlier.
    """
    cache = DynamicCache(config=live.config)
    device = _input_device(live.model)
    ends = _end_tokens(live.model)

    def forward(tokens: Sequence[int], phase: int) -> tuple[Step, int]:
        with torch.inference_mode(), _listening(live) as heard:
            inputs = torch.tensor([tokens], device=device)
            output = live.model(input_ids=inputs, cache=cache, use_cache=True, logits_to_keep=1)
            return _step(live, tokens, phase, heard), int(output.logits[0, -1].float().argmax())

    for start in range(0, len(prompt), prefill_chunk):
        step, following = forward(prompt[start : start + prefill_chunk], PREFILL)
        yield step
    for _ in range(new_tokens):
        if following in ends:
            return
        step, following = forward([following], DECODE)
        yield step


def blocks(request: int, taken: Iterator[Step]) -> Iterator[TraceBlock]:
    """Turn a request's steps into blocks of a trace; decode steps are gathered by ``DECODE_BLOCK``."""
    position, gathered = 0, list[Step]()
    for step in taken:
        if gathered and (step.phase == PREFILL or gathered[0].phase == PREFILL or len(gathered) == DECODE_BLOCK):
            yield _block(request, position, gathered)
            position += sum(len(own.tokens) for own in gathered)
            gathered = []
        gathered.append(step)
    yield _block(request, position, gathered)


def _block(request: int, position: int, gathered: list[Step]) -> TraceBlock:
    phase = np.concatenate([np.full(len(step.tokens), step.phase, np.int8) for step in gathered])
    return TraceBlock(
        request=np.full(len(phase), request, np.int64),
        token=np.arange(position, position + len(phase), dtype=np.int64),
        phase=phase,
        ids=np.concatenate([step.ids for step in gathered]),
        scores=np.concatenate([step.scores for step in gathered]),
        logits=np.concatenate([step.logits for step in gathered]),
    )


@contextmanager
def _listening(live: LiveModel) -> Iterator[dict[int, Any]]:
    """Collect what each layer's router returns, by layer number."""
    heard: dict[int, Any] = {}
    with ExitStack() as stack:
        for block in live.blocks:

            def keep(_: object, __: object, routed: Any, layer: int = block.layer) -> None:
                heard[layer] = routed

            stack.callback(block.router.register_forward_hook(keep).remove)
        yield heard


def _step(live: LiveModel, tokens: Sequence[int], phase: int, heard: dict[int, Any]) -> Step:
    routings = [block.read(heard[block.layer]) for block in live.blocks]

    def joined(name: str) -> NDArray[Any]:
        values: Tensor = torch.stack([getattr(routing, name).cpu() for routing in routings], dim=1)
        return np.asarray(values.numpy())

    return Step(
        tuple(tokens),
        phase,
        joined("ids").astype(np.int32),
        joined("scores").astype(np.float64),
        joined("logits"),
    )


def _end_tokens(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else set() if ends is None else {ends}


def _input_device(model: Any) -> torch.device:
    device = model.get_input_embeddings().weight.device
    return torch.device("cpu") if device.type == "meta" else device
