"""Prompt files: plain text with one prompt a line, or JSON lines (``.jsonl``)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from slicesim.errors import UserError


class Prompt(NamedTuple):
    """A prompt as text, or as the messages of a chat; ``place``: its file and line, for messages."""

    place: str
    text: str
    messages: list[dict[str, Any]] | None = None

    def token_ids(self, tokenizer: Any) -> list[int]:
        """Return its tokens, special ones as the tokenizer adds them. Raises UserError if there is none."""
        if self.messages is None:
            ids = tokenizer(self.text)["input_ids"]
        elif tokenizer.chat_template is None:
            raise UserError(f"{self.place}: the model's tokenizer has no chat template; give a 'prompt' instead")
        else:
            ids = _chat_ids(tokenizer, self.messages, self.place)
        if not ids:
            raise UserError(f"{self.place}: the prompt has no token")
        return [int(token) for token in ids]


@dataclass(frozen=True)
class Prompts:
    """The prompts of a file, and its name and SHA-256."""

    prompts: tuple[Prompt, ...]
    name: str
    digest: str


def read_prompts(path: Path) -> Prompts:
    """Read a prompt file. Empty lines are skipped.

    JSON lines hold ``{"prompt": text}`` or ``{"messages": [{"role": ..., "content": ...}, ...]}``.
    Raises UserError, naming the line, where the file is missing, holds no prompt, or a line is no prompt.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such prompt file")
    data = path.read_bytes()
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    parse = _from_json if path.suffix == ".jsonl" else _from_text
    prompts = tuple(parse(line, f"{path}: line {number}") for number, line in enumerate(lines, 1) if line.strip())
    if not prompts:
        raise UserError(f"{path}: holds no prompt")
    return Prompts(prompts, path.name, hashlib.sha256(data).hexdigest())


def _from_text(line: str, place: str) -> Prompt:
    return Prompt(place, line.rstrip("\r"))


def _from_json(line: str, place: str) -> Prompt:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error})") from None
    if isinstance(entry, dict):
        text, messages = entry.get("prompt"), entry.get("messages")
        if isinstance(text, str) and text and messages is None:
            return Prompt(place, text)
        if text is None and isinstance(messages, list) and messages and all(map(_is_message, messages)):
            return Prompt(place, "", messages)
    raise UserError(f'{place}: needs {{"prompt": text}} or {{"messages": [{{"role": ..., "content": ...}}]}}')


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _chat_ids(tokenizer: Any, messages: list[dict[str, Any]], place: str) -> Any:
    from jinja2 import TemplateError

    try:
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    except TemplateError as error:
        raise UserError(f"{place}: refused by the model's chat template ({error})") from None
    return encoded["input_ids"]
