"""``slicesim quality`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slicesim.trace import load_trace  # noqa: E402
from tests.kit import MOBILE  # noqa: E402
from tests.quality.conftest import EXPERT_BYTES, geometry, make_subject  # noqa: E402


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model that calls itself a micro model, a text, and what every call needs."""
    folder = tmp_path_factory.mktemp("command")
    subject = make_subject("deepseek-v2", folder, slicesim_micro_model=True)
    text = folder / "text.txt"
    text.write_text(" ".join(f"w{number * number % 90}" for number in range(200)))
    sizes = [f"model={geometry(subject, folder)}", f"cache.capacity_gb={8 * EXPERT_BYTES / 1e9}"]
    base = [subject.path, "--config", str(MOBILE), "--text", str(text), "--tokens", "60", "--prompt-tokens", "20"]
    base += ["--requests", "1"]
    return {"folder": folder, "text": text, "base": base, "sets": [part for size in sizes for part in ("--set", size)]}


def slicesim(place: dict[str, Any], *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slicesim", "quality", *place["base"], *place["sets"], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place["folder"], check=False)
    assert done.returncode == code, done.stderr
    return done


def test_one_table_and_a_folder(place):
    out = place["folder"] / "found"
    done = slicesim(place, "--policies", "lru-high,lru-low,slicemoe", "--requests", "2", "--out", str(out))
    for heading in ("perplexity", "accuracy", "miss rate", "ms/token", "mJ/token", "full precision", "MICRO MODEL"):
        assert heading in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert [row["policy"] for row in summary["rows"]] == ["full precision", "lru-high", "lru-low", "slicemoe"]
    assert summary["live_model"]["micro_model"] is True
    assert summary["texts"]["scored_tokens"] == 2 * 39
    assert summary["rows"][0]["decode"] is None
    assert summary["rows"][0]["quality"]["agreement"] == 1.0
    for row in summary["rows"][1:]:
        trace = load_trace(out / f"{row['policy']}.parquet")
        assert trace.header.micro_model
        assert row["decode"]["tokens"] == 2 * 39


def test_the_saved_trace_replays_to_the_same_figures(place):
    """``slicesim run --trace`` of the written trace, same scenario: the very numbers of the table."""
    out = place["folder"] / "replay"
    slicesim(place, "--policy", "slicemoe", "--out", str(out))
    (row,) = json.loads((out / "summary.json").read_text())["rows"][1:]
    run = [sys.executable, "-m", "slicesim", "run", str(MOBILE), "--json", "--policy", "slicemoe", *place["sets"]]
    run += ["--trace", str(out / "slicemoe.parquet"), "--out", str(place["folder"] / "run")]
    again = subprocess.run(run, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["decode"] == row["decode"]


def test_json_is_the_summary(place):
    out = place["folder"] / "json"
    done = slicesim(place, "--policies", "dbsc", "--json", "--whole-batch", "--weights", "original", "--out", str(out))
    printed = json.loads(done.stdout)
    assert printed == json.loads((out / "summary.json").read_text())
    assert printed["weights"] == "original"
    assert printed["rows"][1]["quality"]["perplexity_at_once"] > 0


def test_experts_in_files_give_the_same_figures(place):
    """Left in the checkpoint, or packed and read slice by slice: the summary is the same to the last digit."""
    found = []
    packed = place["folder"] / "packed.safetensors"
    pack = [sys.executable, "-m", "slicesim", "amat", "pack", place["base"][0], "-o", str(packed)]
    subprocess.run(pack, capture_output=True, text=True, check=True)
    for number, more in enumerate(
        [(), ("--lazy",), ("--lazy", "--keep", "0"), ("--packed", str(packed)), ("--packed", str(packed), "--lazy")]
    ):
        done = slicesim(place, "--policy", "dbsc", "--json", *more, "--out", str(place["folder"] / f"files{number}"))
        found.append(json.loads(done.stdout))
    assert found[0]["rows"][1]["quality"]["perplexity_ratio"] != 1.0
    assert all(other == found[0] for other in found)


def test_packed_with_other_bits_is_refused(place):
    packed = place["folder"] / "packed63.safetensors"
    pack = [
        sys.executable,
        "-m",
        "slicesim",
        "amat",
        "pack",
        place["base"][0],
        "-o",
        str(packed),
        "--high",
        "6",
        "--low",
        "3",
    ]
    subprocess.run(pack, capture_output=True, text=True, check=True)
    done = slicesim(place, "--policy", "dbsc", "--packed", str(packed), code=2)
    assert "packed as 6/3, group 32; the scenario has 8/4, group 32" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policies", "belady"), "policy belady: eviction belady knows the future"),
        (("--weights", "int8"), "--weights: 'int8' is neither amat nor original"),
        (("--tokens", "21"), "--tokens: 21 tokens with 20 of prompt leave nothing to score; give at least 22"),
        (("--tokens", "500"), "--tokens: the model takes at most 128 tokens"),
        (("--prompt-tokens", "0"), "--prompt-tokens: must be at least 1"),
        (("--prompts", "none.jsonl"), "none.jsonl: no such prompt file"),
        (("--text", "none.txt"), "none.txt: No such file"),
        (("--set", "trace.max_tokens=4"), "--set trace.max_tokens: the loop records its own trace"),
        (("--set", "model=mixtral-8x7b"), "has 2 MoE layers (from layer 1) of 8 experts, top-3"),
    ],
)
def test_a_mistake_is_one_line(place, arguments, message):
    done = slicesim(place, *arguments, code=2)
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr


def test_a_text_that_is_too_short(place):
    short = place["folder"] / "short.txt"
    short.write_text("w1 w2 w3")
    done = slicesim(place, "--text", str(short), code=2)
    assert f"{short}: holds 3 tokens, too few" in done.stderr


def test_prompts_are_texts_too(place):
    prompts = place["folder"] / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": " ".join(f"w{n + k}" for n in range(50))}) for k in range(3)))
    more = ("--requests", "2", "--policy", "dbsc", "--json", "--out", str(place["folder"] / "p"))
    done = slicesim(place, "--prompts", str(prompts), *more)
    texts = json.loads(done.stdout)["texts"]
    assert texts["requests"] == 4
    assert texts["scored_tokens"] == 2 * 39 + 2 * (50 - 20 - 1)
