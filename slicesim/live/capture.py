"""Capture a routing trace from a live model: greedy decoding, one request for each prompt, resumed after a kill."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from slicesim.errors import UserError
from slicesim.live import describe, require_live
from slicesim.live.load import LiveModel, LoadOptions, load_live
from slicesim.live.parts import Parts
from slicesim.live.prompts import Prompts
from slicesim.trace.table import TraceHeader
from slicesim.version import __version__

if TYPE_CHECKING:
    from slicesim.simulation import Progress


@dataclass(frozen=True)
class CaptureOptions:
    """What is captured.

    max_new_tokens: decode tokens of a request; max_prompt_tokens: longer prompts lose their end; prefill_chunk:
    prompt tokens in one forward pass; threads: of torch; licence: of the trace, if the model's is not to be taken.
    """

    max_new_tokens: int = 128
    max_prompt_tokens: int | None = None
    prefill_chunk: int = 512
    threads: int | None = None
    licence: str | None = None
    load: LoadOptions = field(default_factory=LoadOptions)

    def words(self) -> list[str]:
        """Return the options of the command that bear on the rows."""
        load = self.load
        given = {
            "--max-new-tokens": self.max_new_tokens,
            "--max-prompt-tokens": self.max_prompt_tokens,
            "--prefill-chunk": self.prefill_chunk,
            "--dtype": load.dtype,
            "--device-map": load.device_map,
            "--threads": self.threads,
        }
        return [str(word) for name, value in given.items() if value is not None for word in (name, value)]


class Captured(NamedTuple):
    """What a capture came to; ``resumed``: requests that were found finished."""

    header: TraceHeader
    requests: int
    resumed: int
    tokens: int


def capture(
    model: str,
    prompts: Prompts,
    out: Path,
    options: CaptureOptions = CaptureOptions(),
    *,
    restart: bool = False,
    progress: Progress | None = None,
) -> Captured:
    """Run a model on prompts (``read_prompts``) and write the trace of its routers.

    Finished requests are kept in ``OUT.parts`` until the trace is whole: a capture that was killed goes on from there
    when it is called in the same way; ``restart`` throws them away. ``progress`` is called with the number of finished
    requests. Raises UserError for any mistake in what was given.
    """
    require_live()
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give the name of a file with --out")
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    live = load_live(model, options.load)
    requests = _tokenised(live, prompts, options)
    header = _header(model, live, prompts, options)
    parts = Parts(out, _identity(model, live, header))
    with parts.opened(restart):
        return _capture(live, requests, header, parts, options, progress)


def _capture(
    live: LiveModel,
    requests: Sequence[Sequence[int]],
    header: TraceHeader,
    parts: Parts,
    options: CaptureOptions,
    progress: Progress | None,
) -> Captured:
    from slicesim.live.greedy import blocks, steps

    resumed = 0
    for request, prompt in enumerate(requests):
        if parts.has(request):
            resumed += 1
        else:
            taken = steps(live, prompt, options.max_new_tokens, options.prefill_chunk)
            parts.put(request, header, blocks(request, taken))
        if progress:
            progress(request + 1)
    return Captured(header, len(requests), resumed, parts.join(header, len(requests)))


def _tokenised(live: LiveModel, prompts: Prompts, options: CaptureOptions) -> list[list[int]]:
    """Return all prompts' tokens; raises UserError, before anything is run, for one that the model cannot take."""
    requests = []
    for prompt in prompts.prompts:
        tokens = prompt.token_ids(live.tokenizer)[: options.max_prompt_tokens]
        context, needed = live.config.max_position_embeddings, len(tokens) + options.max_new_tokens
        if needed > context:
            raise UserError(
                f"{prompt.place}: {len(tokens)} prompt tokens and {options.max_new_tokens} new ones are more than the "
                f"model's context of {context}: lower --max-prompt-tokens or --max-new-tokens"
            )
        if max(tokens) >= live.config.vocab_size:
            raise UserError(f"{prompt.place}: token {max(tokens)} is outside the model's {live.config.vocab_size}")
        requests.append(tokens)
    return requests


def _header(model: str, live: LiveModel, prompts: Prompts, options: CaptureOptions) -> TraceHeader:
    import torch
    import transformers

    first, config, source = live.blocks[0], live.config, describe.source_id(model)
    command = ["slicesim", "capture", source, "--prompts", prompts.name, *options.words()]
    dtype = str(live.model.dtype).removeprefix("torch.")
    return TraceHeader(
        model=describe.model_name(model, config),
        layers=[block.layer for block in live.blocks],
        experts=first.experts,
        top_k=first.top_k,
        score_kind=first.score_kind,
        has_logits=True,
        micro_model=describe.is_micro_model(config),
        source=f"captured from {describe.provenance(model, config)} ({type(live.model).__name__}), "
        f"prompts {prompts.name} (SHA-256 {prompts.digest})",
        licence=options.licence or describe.licence(model, config),
        tool_version=__version__,
        notes=f"{shlex.join(command)}; greedy, weights as {dtype}, "
        f"transformers {transformers.__version__}, torch {torch.__version__}",
    )


def _identity(model: str, live: LiveModel, header: TraceHeader) -> dict[str, Any]:
    """All that the rows depend on; the header names prompts, options and versions."""
    return {**header.model_dump(mode="json"), "weights": describe.weights_identity(model, live.config)}
