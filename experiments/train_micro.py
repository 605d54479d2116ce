"""Train a micro model: the routing geometry of a real Mixture-of-Experts model, with tiny widths.

    python experiments/train_micro.py deepseek-v2-lite traces/micro/deepseek-v2-lite --steps 2000

Needs torch, transformers, tokenizers and safetensors. Text: the standard library of the Python that runs it. The
state is kept in --scratch (safetensors); a run that was killed goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from micro import corpus, measure
from micro.experts import compute_in_batches
from micro.families import CONTEXT, FAMILIES, HIDDEN, build
from micro.text import encode, train_tokenizer, windows
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

VOCABULARY = 1024
BATCH = 4
PEAK_RATE, WARM_UP_STEPS, DECAY_FROM = 1e-2, 50, 0.65
CLIP = 1.0
BALANCE = 0.003
REPORT_STEPS, SAVE_STEPS = 25, 100
HELD_OUT_WINDOWS = 24


class Trainer:
    """Model, optimiser and the step they are at. Everything that is drawn follows from seed and step."""

    def __init__(self, model: Any, stream: Tensor, beginning: int, options: argparse.Namespace) -> None:
        self.model, self.stream, self.beginning, self.options = model, stream, beginning, options
        compute_in_batches(model)
        self.optimiser = torch.optim.Adam(_groups(model), betas=(0.9, 0.95), fused=True)
        self.routers = measure.Routers(model)
        self.step = 0

    def run(self) -> Iterator[tuple[int, float, float]]:
        """Train to the last step; after each, give its number, cross-entropy and balance loss."""
        while self.step < self.options.steps:
            yield self._one_step()

    def _one_step(self) -> tuple[int, float, float]:
        rate = _rate(self.step, self.options.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        batch = self._batch()
        self.model.train()
        with self.routers as routed:
            logits = self.model(batch, use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        balance = torch.stack([measure.balance_loss(*each) for each in routed]).sum()
        (loss + BALANCE * balance).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        return self.step, loss.item(), balance.item() / len(routed)

    def _batch(self) -> Tensor:
        """Draw windows of the training text, each opened by the beginning token: [BATCH, CONTEXT]."""
        draw = torch.Generator().manual_seed(self.options.seed * 1_000_003 + self.step)
        starts = torch.randint(len(self.stream) - CONTEXT, (BATCH, 1), generator=draw)
        text = self.stream[starts + torch.arange(CONTEXT - 1)]
        return torch.cat((torch.full((BATCH, 1), self.beginning), text), dim=1)

    def save(self, path: Path) -> None:
        """Write parameters, both moments and the step."""
        state = {"step": torch.tensor(self.step)}
        for name, parameter in self.model.named_parameters():
            state[f"weight/{name}"] = parameter.detach()
            for key, value in self.optimiser.state[parameter].items():
                state[f"{key}/{name}"] = value
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Take up what ``save`` wrote."""
        state = load_file(path)
        self.step = int(state["step"])
        for name, parameter in self.model.named_parameters():
            parameter.copy_(state[f"weight/{name}"])
            self.optimiser.state[parameter] = {key: state[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}


def _groups(model: Any) -> list[dict[str, Any]]:
    """Take the smaller a rate the wider a matrix's input beyond the hidden width, or wide blocks drown the experts."""
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        inputs = parameter.shape[-1] if name.endswith("down_proj.weight") else HIDDEN
        groups.setdefault(HIDDEN / inputs, []).append(parameter)
    return [{"params": found, "share": share} for share, found in groups.items()]


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, constant, linear to 0: until the decay begins, a run does not depend on its last step."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return PEAK_RATE * warm * min(1.0, (steps - step) / (steps * (1 - DECAY_FROM)))


def _keep_memory() -> None:
    """Tell glibc to keep freed memory: fresh pages for every tensor took half of the time."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except OSError:
        return
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(option, 2**30)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(FAMILIES))
    parser.add_argument("output", type=Path, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", type=Path, default=Path("results/train-micro"), help="folder for the state")
    return parser.parse_args()


def main() -> None:
    """Train and write the checkpoint."""
    options = _arguments()
    torch.set_num_threads(options.threads)
    _keep_memory()
    texts = corpus.documents()
    training = [each for each in texts if not each.is_held_out]
    held_out = [each for each in texts if each.is_held_out]
    tokenizer = train_tokenizer([each.text for each in training], VOCABULARY)
    stream = encode(tokenizer, training)
    probe = windows(tokenizer, held_out, CONTEXT)
    model = build(FAMILIES[options.model], len(tokenizer), tokenizer.bos_token_id, options.seed)
    print(
        f"{options.model}: {sum(each.numel() for each in model.parameters()):,} parameters; "
        f"text {corpus.digest(texts)}: {len(training)} documents, {len(stream):,} tokens; "
        f"held out: {len(held_out)} documents, {len(probe)} windows",
        flush=True,
    )
    rows = _train(Trainer(model, stream, tokenizer.bos_token_id, options), probe[:HELD_OUT_WINDOWS])
    model.to(torch.float16).save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    _write_rows(options.output / "loss.csv", rows)


def _train(trainer: Trainer, probe: Tensor) -> list[dict[str, Any]]:
    """Train from where the state is to the last step; return the loss curve, a row every REPORT_STEPS."""
    options = trainer.options
    state, log = options.scratch / f"{options.model}.safetensors", options.scratch / f"{options.model}.csv"
    if state.is_file():
        trainer.load(state)
    rows = _rows_until(log, trainer.step)
    started, since = time.monotonic(), list[tuple[float, float]]()
    for step, loss, balance in trainer.run():
        since.append((loss, balance))
        if step % REPORT_STEPS and step != options.steps:
            continue
        losses, balances = zip(*since, strict=True)
        row = {
            "step": step,
            "tokens": step * BATCH * CONTEXT,
            "train_loss": round(sum(losses) / len(losses), 4),
            "balance": round(sum(balances) / len(balances), 4),
            "held_out_loss": "",
        }
        if step % SAVE_STEPS == 0 or step == options.steps:
            row["held_out_loss"] = round(measure.loss(trainer.model, probe), 4)
            trainer.save(state)
        rows.append(row)
        _write_rows(log, rows)
        since.clear()
        print(row, f"{time.monotonic() - started:.0f} s", flush=True)
    return rows


def _rows_until(log: Path, step: int) -> list[dict[str, Any]]:
    if not log.is_file():
        return []
    with log.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file) if int(row["step"]) <= step]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
