"""Tokens: a byte-level BPE of the training text, the training stream, and windows for evaluation."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .corpus import Document

BEGINNING = "<s>"


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE that opens every text with the beginning token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGINNING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGINNING} $A", special_tokens=[(BEGINNING, tokenizer.token_to_id(BEGINNING))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGINNING, eos_token=BEGINNING)


def encode(tokenizer: Any, documents: list[Document]) -> Tensor:
    """Return all documents as one stream of tokens, each opened by the beginning token."""
    return torch.cat([torch.tensor(tokenizer(each.text)["input_ids"]) for each in documents])


def windows(tokenizer: Any, documents: list[Document], length: int) -> Tensor:
    """Cut documents into windows [N, length], each opened by the beginning token, in an order mixed by a fixed seed."""
    cut = []
    for each in documents:
        tokens = torch.tensor(tokenizer(each.text)["input_ids"])[1:]
        full = tokens[: len(tokens) // (length - 1) * (length - 1)].view(-1, length - 1)
        cut.append(torch.cat((torch.full((len(full), 1), tokenizer.bos_token_id), full), dim=1))
    found = torch.cat(cut)
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]
