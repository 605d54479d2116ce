"""Write the texts that go with the micro models: prompts to capture from, and held-out texts to score.

    python experiments/micro_texts.py          # traces/micro/prompts.jsonl and traces/micro/held-out.jsonl

Both are cut from held-out documents of the running Python's library (licence: PSF-2.0). No torch needed.
"""

from __future__ import annotations

import json
from pathlib import Path

from micro.corpus import Document, documents

FOLDER = Path(__file__).resolve().parents[1] / "traces" / "micro"
#: Two pieces of code, two of prose.
PROMPTED = ("uuid.py", "enum.py", "topic/objects", "topic/comparisons")
PROMPT_CHARACTERS, PROMPT_AT = 400, 0.25
#: Enough for 256 tokens of almost any text. Documents shorter than 5000 characters are left out.
SCORED_CHARACTERS, SCORED_AT, SHORTEST = 1000, 0.5, 5000
#: Files with a licence of their own are left out.
OTHER_LICENCE = "Permission to use"


def excerpt(document: Document, at: float, characters: int) -> str:
    """Return a piece of a document that begins with the first line after the share ``at`` of it."""
    start = document.text.index("\n", int(at * len(document.text))) + 1
    return document.text[start : start + characters]


def write(path: Path, found: list[tuple[str, str]]) -> None:
    """Write (document's name, text) as JSON lines."""
    lines = [json.dumps({"prompt": text, "document": name}) for name, text in found]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Write both files."""
    held_out = {each.name: each for each in documents() if each.is_held_out}
    prompts = [(name, excerpt(held_out[name], PROMPT_AT, PROMPT_CHARACTERS)) for name in PROMPTED]
    scored = [each for each in held_out.values() if len(each.text) >= SHORTEST and OTHER_LICENCE not in each.text]
    write(FOLDER / "prompts.jsonl", prompts)
    write(FOLDER / "held-out.jsonl", [(each.name, excerpt(each, SCORED_AT, SCORED_CHARACTERS)) for each in scored])


if __name__ == "__main__":
    main()
