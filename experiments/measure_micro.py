"""Measure the micro models: held-out perplexity, whole, without routed experts and quantised; routing.

    python experiments/measure_micro.py                 # prints two tables, writes figures.json beside each checkpoint

Held-out text: `traces/micro/held-out.jsonl`, the first 256 tokens of each. Weights as stored, computed in float32.
Quantised: every routed expert's three matrices, directly at so many bits (AMAT's code, groups of 32 along the input).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from micro import measure
from micro.experts import compute_in_batches
from micro.families import CONTEXT, FAMILIES
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from slicesim.amat.quantise import dequantise, quantise

FOLDER = Path(__file__).resolve().parents[1] / "traces" / "micro"
BITS = (8, 6, 4, 3, 2)


def held_out_windows(tokenizer: Any) -> tuple[Tensor, int]:
    """Return the texts' first tokens [N, CONTEXT], and the bytes that all but the beginning token stand for."""
    lines = (FOLDER / "held-out.jsonl").read_text(encoding="utf-8").splitlines()
    tokens = [tokenizer(json.loads(line)["prompt"])["input_ids"][:CONTEXT] for line in lines]
    whole = [each for each in tokens if len(each) == CONTEXT]
    byte_count = sum(len(tokenizer.decode(each[1:]).encode()) for each in whole)
    return torch.tensor(whole), byte_count


@contextmanager
def changed_experts(model: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put other weights in the place of all routed experts' weights for a while."""
    experts = [layer.mlp.experts for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    kept = [(parameter, parameter.data) for each in experts for parameter in each.parameters()]
    for parameter, weights in kept:
        parameter.data = change(weights)
    yield
    for parameter, weights in kept:
        parameter.data = weights


def quantised(weights: Tensor, bits: int) -> Tensor:
    """Return the weights as a code of so many bits gives them back."""
    back = dequantise(quantise(weights.numpy(), bits))
    return torch.as_tensor(back, dtype=weights.dtype).reshape(weights.shape)


def figures(folder: Path) -> dict[str, Any]:
    """Measure one checkpoint."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    compute_in_batches(model)
    windows, byte_count = held_out_windows(tokenizer)
    whole = measure.loss(model, windows)
    perplexity = {"full precision": math.exp(whole)}
    for bits in BITS:
        with changed_experts(model, lambda weights, bits=bits: quantised(weights, bits)):
            perplexity[f"experts at {bits} bits"] = math.exp(measure.loss(model, windows))
    with changed_experts(model, torch.zeros_like):
        perplexity["routed experts off"] = math.exp(measure.loss(model, windows))
    scored = windows[:, 1:].numel()
    return {
        "held_out_tokens": scored,
        "held_out_loss": whole,
        "bits_per_byte": whole * scored / byte_count / math.log(2),
        "perplexity": perplexity,
        "routing": measure.routing(model, windows),
    }


def table(by_model: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table, one column per model."""
    lines = ["| | " + " | ".join(by_model) + " |", "|---|" + "---|" * len(by_model)]
    first = next(iter(by_model.values()))
    lines += [f"| {key} | " + " | ".join(f"{own[key]:.4g}" for own in by_model.values()) + " |" for key in first]
    return "\n".join(lines)


def main() -> None:
    """Measure both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    found = {}
    for name in FAMILIES:
        found[name] = figures(FOLDER / name)
        (FOLDER / name / "figures.json").write_text(json.dumps(found[name], indent=1) + "\n", encoding="utf-8")
    single = ("held_out_tokens", "held_out_loss", "bits_per_byte")
    print(table({name: {key: own[key] for key in single} | own["perplexity"] for name, own in found.items()}))
    print()
    print(table({name: own["routing"] for name, own in found.items()}))


if __name__ == "__main__":
    main()
