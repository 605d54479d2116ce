"""Prompt files: what is read, and each mistake by its line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from slicesim.errors import UserError
from slicesim.live.prompts import Prompt, read_prompts


class Words:
    """A tokenizer that counts letters and knows no chats."""

    chat_template = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [len(word) for word in text.split()]}


class Chats(Words):
    """A tokenizer whose chats are the words of all messages and a 0 for the answer."""

    chat_template = "yes"

    def apply_chat_template(self, messages, add_generation_prompt: bool, return_dict: bool):
        assert add_generation_prompt
        assert return_dict
        ids = [number for message in messages for number in self(message["content"])["input_ids"]]
        return {"input_ids": [*ids, 0]}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_text_has_one_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", 'one\r\n\n  two words\n{"prompt": "no JSON here"}')
    read = read_prompts(path)
    assert [prompt.text for prompt in read.prompts] == ["one", "  two words", '{"prompt": "no JSON here"}']
    assert [prompt.place for prompt in read.prompts] == [f"{path}: line {number}" for number in (1, 3, 4)]
    assert (read.name, read.digest) == ("p.txt", hashlib.sha256(path.read_bytes()).hexdigest())


def test_json_lines_hold_prompts_of_many_lines_and_chats(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")  # comes with the extra, for the templates of chats
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    lines = [json.dumps({"prompt": "a\nbb"}), "", json.dumps({"messages": chat})]
    prompts = read_prompts(write(tmp_path / "p.jsonl", "\n".join(lines))).prompts
    assert [prompt.token_ids(Chats()) for prompt in prompts] == [[1, 2], [2, 5, 5, 0]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "", "holds no prompt"),
        ("p.txt", " \n\t\n", "holds no prompt"),
        ("p.jsonl", '{"prompt": "x"}\nplain', "line 2: not JSON"),
        ("p.jsonl", '{"text": "x"}', "line 1: needs {"),
        ("p.jsonl", '{"prompt": ""}', "line 1: needs {"),
        ("p.jsonl", '["x"]', "line 1: needs {"),
        ("p.jsonl", '{"prompt": "x", "messages": []}', "line 1: needs {"),
        ("p.jsonl", '{"messages": [{"role": "user"}]}', "line 1: needs {"),
    ],
)
def test_mistakes(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_prompts(write(tmp_path / name, text))
    (line,) = str(error.value).splitlines()
    assert line.startswith(str(tmp_path / name))
    assert message in line


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such prompt file"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match=r"b\.txt: not UTF-8 text \(byte 2\)"):
        read_prompts(tmp_path / "b.txt")


def test_prompts_that_give_no_tokens() -> None:
    with pytest.raises(UserError, match="here: the prompt has no token"):
        Prompt("here", "   ").token_ids(Words())
    with pytest.raises(UserError, match="here: the model's tokenizer has no chat template"):
        Prompt("here", "", [{"role": "user", "content": "x"}]).token_ids(Words())
