"""Texts to be scored: files of plain text, cut into requests of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slicesim.errors import UserError
from slicesim.live.prompts import read_prompts
from slicesim.quality.loop import Text


@dataclass(frozen=True)
class Cut:
    """How files become requests: of each file at most so many, of so many tokens (prompt included, which comes first).

    A text is cut into pieces; of a prompt file the first prompts are taken.
    """

    tokens: int = 192
    prompt_tokens: int = 64
    requests: int = 4

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1:
            raise UserError(f"--prompt-tokens: must be at least 1 (given: {self.prompt_tokens})")
        if self.requests < 1:
            raise UserError(f"--requests: must be at least 1 (given: {self.requests})")
        if self.tokens < self.prompt_tokens + 2:
            raise UserError(
                f"--tokens: {self.tokens} tokens with {self.prompt_tokens} of prompt leave nothing to score; "
                f"give at least {self.prompt_tokens + 2}"
            )


def read_texts(
    files: Sequence[Path], prompts: Path | None, tokenizer: Any, cut: Cut, context: int | None
) -> list[Text]:
    """Read and tokenize text files, and a prompt file, each of whose prompts is one text.

    context: tokens that the model can take, where its configuration says so.
    Raises UserError for a file that cannot be read or is too short, and for requests longer than the context.
    """
    if context is not None and cut.tokens > context:
        raise UserError(f"--tokens: the model takes at most {context} tokens (given: {cut.tokens})")
    if not files and prompts is None:
        raise UserError("nothing to score: give --text FILE or --prompts FILE")
    texts = [text for file in files for text in _cut(file, tokenizer, cut)]
    if prompts is not None:
        for prompt in read_prompts(prompts).prompts[: cut.requests]:
            ids = prompt.token_ids(tokenizer)[: cut.tokens]
            _check_length(prompt.place, len(ids), cut)
            texts.append(Text(prompt.place, np.array(ids, dtype=np.int64), cut.prompt_tokens))
    return texts


def _check_length(place: str, tokens: int, cut: Cut) -> None:
    if tokens < cut.prompt_tokens + 2:
        raise UserError(
            f"{place}: holds {tokens} tokens, too few: {cut.prompt_tokens} of prompt and at least 2 more are needed"
        )


def _cut(file: Path, tokenizer: Any, cut: Cut) -> list[Text]:
    try:
        content = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not UTF-8 text") from None
    head = _head(tokenizer)
    ids = tokenizer(content, add_special_tokens=False).input_ids
    fresh = cut.tokens - len(head)
    pieces = [[*head, *ids[start : start + fresh]] for start in range(0, cut.requests * fresh, fresh)]
    whole = [piece for piece in pieces if len(piece) == cut.tokens] or pieces[:1]
    _check_length(str(file), len(whole[0]), cut)
    return [Text(file.name, np.array(piece, dtype=np.int64), cut.prompt_tokens) for piece in whole]


def _head(tokenizer: Any) -> list[int]:
    """Return the tokens that the tokenizer puts before a text: its beginning-of-text token, or nothing."""
    first, begin = tokenizer("a").input_ids[:1], tokenizer.bos_token_id
    return [begin] if begin is not None and first == [begin] else []
