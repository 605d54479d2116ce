"""Damage of every kind: to bytes, to text, and to nested data."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

#: Values that stand in for another one: types, units, sizes, infinities, tags.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 0.0, -0.0, 0.5, 1.5, -1.5, 1e-9, 1e9, 1e18, 1e300, 5e-324, 2**31, 2**53, 2**63,
    -(2**63) - 1, 2**64, 10**30, 10**400, float("inf"), float("-inf"), float("nan"), "", " ", "x", "nan", "1e3",
    "2.4 GB", "1,5", "µs", "\u2028", "a\nb", "\x1b[31m", "null", "../..", "/dev/null", ".", "a.b.c", "%s", "{}", "'",
    [], [1], [[]], [1, "a", None], {}, {"value": 1}, {"value": 2, "source": "x"}, {"name": "lru"}, {"a": {"b": 1}},
    "dbsc", "lru-high", "slicemoe", "lru", "reference", "serial", "prefetch", "x" * 5000, [0] * 300, "all-decode",
)  # fmt: skip

#: Texts that YAML, JSON or CSV may trip over.
TOKENS = (
    "\t", "\r", "\r\n", "\n", "\x00", "\ufeff", "\u2028", "\x85", "\x0c", "\x1b", ":", ": ", "- ", "? ", "#", ",", '"',
    "'", "{", "}", "[", "]", "&a ", "*a", "<<: *a", "!!python/object/apply:os.system [id]", "!!binary x", "!!set {a}",
    "!!float x", "!!int x", "!!timestamp x", "!x y", "%YAML 9.9", "---", "...", "|", ">-", "@", "`", ".nan", ".inf",
    "-.inf", "1e999", "1_000", "0x1F", "0o17", "12:30:45", "2020-01-01", "yes", "~", "NaN", "Infinity", "-1",
    "9" * 30, "9" * 5000, "[" * 3000, "{" * 40, "{a: " * 2000, '{"a":' * 2000, "- " * 2000, "\ud7ff", "٣", "\uff11",
    "1.5", "-", "é", "\U0001f600", "decode", "prefill", "=", ".", "..", "/", "\\", "\\ud800", '"\\ud800"',
)  # fmt: skip

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{key}: &{key} [{','.join([f'*{below}'] * 9)}]\n" for below, key in zip("abcdefghi", "bcdefghij", strict=True)
)


def damaged_bytes(choice: random.Random, data: bytes) -> bytes:
    """Flip, cut, repeat, insert or zero."""
    out = bytearray(data)
    for _ in range(choice.choice((1, 1, 1, 2, 5))):
        place = choice.randrange(len(out) + 1)
        match choice.randrange(7):
            case 0 if place < len(out):
                out[place] ^= 1 << choice.randrange(8)
            case 1 if place < len(out):
                out[place] = choice.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del out[place:]
            case 3:
                del out[place : place + choice.choice((1, 2, 4, 8, 100))]
            case 4:
                out[place:place] = choice.choice((b"\x00", b"\xff" * 8, b"\x80", b"PAR1", b"PK\x03\x04", b"\n"))
            case 5:
                out[place:place] = out[place : place + choice.choice((1, 8, 64))]
            case _:
                out[place : place + 8] = bytes(8)
    return bytes(out)


def damaged_text(choice: random.Random, text: str) -> bytes:
    """Damage lines, words and characters, then how they are encoded."""
    for _ in range(choice.choice((1, 1, 1, 2, 4))):
        text = _text_step(choice, text)
    match choice.randrange(14):
        case 0:
            return text.encode("utf-16")
        case 1:
            return text.encode("latin-1", errors="replace") + b"\xe9\xff"
        case 2:
            return b"\xef\xbb\xbf" + text.encode(errors="surrogatepass")
        case 3:
            return text.replace("\n", "\r\n").encode(errors="surrogatepass")
        case 4:
            return damaged_bytes(choice, text.encode(errors="surrogatepass"))
    return text.encode(errors="surrogatepass")


def _text_step(choice: random.Random, text: str) -> str:
    lines = text.split("\n")
    line, place = choice.randrange(len(lines)), choice.randrange(len(text) + 1)
    token = choice.choice(TOKENS)
    match choice.randrange(11):
        case 0:
            return text[:place] + token + text[place:]
        case 1:
            return text[:place] + token + text[place + len(token) :]
        case 2:
            del lines[line]
        case 3:
            lines.insert(line, lines[choice.randrange(len(lines))])
        case 4:
            other = choice.randrange(len(lines))
            lines[line], lines[other] = lines[other], lines[line]
        case 5:
            lines[line] = " " * choice.randrange(4) + lines[line]
        case 6:
            return text[:place]
        case 7:
            return choice.choice(("", "\n", token, f"{token}\n{text}", text + token, text + text))
        case 8:
            lines[line] = _word_changed(choice, lines[line], token)
        case 9:
            lines[line] = _word_changed(choice, lines[line], str(choice.choice(VALUES[:30])))
        case _:
            lines.insert(line, token)
    return "\n".join(lines)


def _word_changed(choice: random.Random, line: str, word: str) -> str:
    separator = "," if "," in line and choice.random() < 0.7 else " "
    words = line.split(separator)
    words[choice.randrange(len(words))] = word
    return separator.join(words)


def damaged_tree(choice: random.Random, data: Any, values: tuple[Any, ...] = VALUES) -> Any:
    """Change, drop, rename, add, double or move values of nested data."""
    data = copy.deepcopy(data)
    for _ in range(choice.choice((1, 1, 1, 2, 3))):
        places = list(_places(data))
        if not places:
            return data
        node, key = choice.choice(places)
        match choice.randrange(9):
            case 0:
                del node[key]
            case 1:
                other, far = choice.choice(places)
                node[key] = copy.deepcopy(other[far])
            case 2 if isinstance(node, dict):
                node[choice.choice(("x", "value", "name", "preset", "kind", f"{key}s", "a b", "é", "1"))] = node.pop(
                    key
                )
            case 3 if isinstance(node, dict):
                node[choice.choice(("x", "value", "source", "name", "memory", "channels", "tile_kib"))] = choice.choice(
                    values
                )
            case 4 if type(node[key]) in (int, float):
                node[key] = _scaled(choice, node[key])
            case 5:
                node[key] = [node[key]]
            case 6:
                node[key] = {"value": node[key], "source": "x"}
            case _:
                node[key] = choice.choice(values)
    return data


def _scaled(choice: random.Random, number: float) -> float:
    factor = choice.choice((0, -1, 1000, 1000000, 0.001, 1e-9, 1e12, 0.9, 1.1))
    return type(number)(number * factor)


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of every value."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(entries):
        yield data, key
        yield from _places(value)
