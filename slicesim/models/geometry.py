"""MoE geometry: a model file's few figures, and every size that follows from them (semantics, section 3)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from slicesim.errors import UserError
from slicesim.scenario.document import read_document
from slicesim.scenario.scenario import validate
from slicesim.scenario.section import Section

PositiveInt = Annotated[int, Field(ge=1, le=10**9)]

#: Beyond these a figure is a slip, and sizes in bits would overflow.
MOST_LAYERS, MOST_EXPERTS, MOST_WEIGHTS = 10_000, 65_536, 10**15

#: Non-expert weights are INT8, symmetric, with one fp16 scale per group of this many (slicemoe.md 1.3).
NON_EXPERT_GROUP = 128
SCALE_BYTES = 2

#: So many matrices of n outputs and k inputs: (count, n, k).
Matrices = tuple[int, int, int]


class LatentAttention(Section):
    """Multi-head latent attention (DeepSeek-V2): keys and values are kept as one compressed vector."""

    kind: Literal["mla"] = Field(description="which kind of attention")
    heads: PositiveInt = Field(description="`num_attention_heads` of config.json")
    kv_lora_rank: PositiveInt = Field(description="width of the compressed keys and values")
    q_lora_rank: PositiveInt | None = Field(None, description="width of the compressed query; none: not compressed")
    rope_head_dim: PositiveInt = Field(description="`qk_rope_head_dim`")
    nope_head_dim: PositiveInt = Field(description="`qk_nope_head_dim`")
    value_head_dim: PositiveInt = Field(description="`v_head_dim`")
    source: str = Field(description="where the figures come from")

    def matrices(self, hidden: int) -> tuple[Matrices, ...]:
        """Weight matrices of one layer's attention; each head's up-projection is absorbed into query and value."""
        query_out = self.heads * (self.nope_head_dim + self.rope_head_dim)
        rank = self.q_lora_rank
        query = ((1, query_out, hidden),) if rank is None else ((1, rank, hidden), (1, query_out, rank))
        down = (1, self.kv_lora_rank + self.rope_head_dim, hidden)
        up = ((self.heads, self.kv_lora_rank, self.nope_head_dim), (self.heads, self.value_head_dim, self.kv_lora_rank))
        return (*query, down, *up, (1, hidden, self.heads * self.value_head_dim))

    def score_products(self, reach: int) -> tuple[tuple[int, int, int, int], ...]:
        """(count, rows for each token, n, k) of scores and values: all heads read the one cached vector."""
        latent = self.kv_lora_rank
        return (1, self.heads, reach, latent + self.rope_head_dim), (1, self.heads, latent, reach)

    def kv_bytes_per_token(self) -> int:
        """INT8 bytes that one token leaves in one layer's cache."""
        return self.kv_lora_rank + self.rope_head_dim

    def score_macs_per_token(self) -> int:
        """MACs against one cached token in one layer, in the absorbed form (query in the latent space)."""
        return self.heads * (2 * self.kv_lora_rank + self.rope_head_dim)


class GroupedAttention(Section):
    """Grouped-query attention; ``kv_heads == heads`` is plain multi-head attention."""

    kind: Literal["gqa"] = Field(description="which kind of attention")
    heads: PositiveInt = Field(description="`num_attention_heads` of config.json")
    kv_heads: PositiveInt = Field(description="`num_key_value_heads`")
    head_dim: PositiveInt = Field(description="width of one head")
    source: str = Field(description="where the figures come from")

    def matrices(self, hidden: int) -> tuple[Matrices, ...]:
        """Weight matrices of one layer's attention: query, key, value, output."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (1, query, hidden), (2, key, hidden), (1, hidden, query)

    def score_products(self, reach: int) -> tuple[tuple[int, int, int, int], ...]:
        """(count, rows for each token, n, k) of scores and values: the heads of a group read one key and one value."""
        shared = -(-self.heads // self.kv_heads)
        return (self.kv_heads, shared, reach, self.head_dim), (self.kv_heads, shared, self.head_dim, reach)

    def kv_bytes_per_token(self) -> int:
        """INT8 bytes that one token leaves in one layer's cache."""
        return 2 * self.kv_heads * self.head_dim

    def score_macs_per_token(self) -> int:
        """MACs against one cached token in one layer: scores, then the weighted sum of values."""
        return 2 * self.heads * self.head_dim


class ModelGeometry(Section):
    """A MoE model as slicesim needs it."""

    name: str = Field(description="as traces name it")
    source: str = Field(min_length=1, description="where the figures come from")
    layers: int = Field(ge=1, le=MOST_LAYERS, description="all layers, dense ones included")
    dense_layers: int = Field(0, ge=0, description="leading layers with a dense feed-forward block")
    dense_inner: int = Field(0, ge=0, description="inner width of a dense block")
    hidden: PositiveInt = Field(description="width of the residual stream")
    experts: int = Field(ge=1, le=MOST_EXPERTS, description="routed experts of one layer")
    top_k: PositiveInt = Field(description="routed experts that one token uses")
    expert_inner: PositiveInt = Field(description="inner width of one routed expert")
    shared_inner: int = Field(0, ge=0, description="inner width of all shared experts together")
    attention: Annotated[LatentAttention | GroupedAttention, Field(discriminator="kind")] = Field(
        description="by its kind"
    )
    sliding_window: PositiveInt | None = Field(None, description="window of every second layer, from layer 0")
    vocabulary: PositiveInt = Field(description="tokens that the LM head tells apart")
    tied_embeddings: bool = Field(False, description="LM head and embedding share their weights")
    gate: Literal["softmax", "renormalised"] = Field(
        description="gate weights: softmax over all experts as they are, or scaled to sum to 1 over the top-k"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ModelGeometry:
        if self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) is above the number of experts ({self.experts})")
        if self.dense_layers >= self.layers:
            raise ValueError("dense_layers must be below layers: no MoE layer would be left")
        if bool(self.dense_layers) != bool(self.dense_inner):
            raise ValueError("dense_layers and dense_inner go together")
        if self.total_weights > MOST_WEIGHTS:
            raise ValueError(f"is a model of {self.total_weights:,} weights, more than any has; is a figure too large?")
        return self

    @property
    def moe_layers(self) -> range:
        """Numbers of the layers that hold routed experts."""
        return range(self.dense_layers, self.layers)

    @property
    def expert_weights(self) -> int:
        """Weights of one routed expert: gate, up and down projection."""
        return 3 * self.hidden * self.expert_inner

    @property
    def expert_matrices(self) -> int:
        """Matrices of one routed expert; each is one flash read per slice."""
        return 3

    @property
    def shared_weights(self) -> int:
        """Weights of one layer's shared experts."""
        return 3 * self.hidden * self.shared_inner

    @property
    def dense_weights(self) -> int:
        """Weights of one dense layer's feed-forward block."""
        return 3 * self.hidden * self.dense_inner

    @property
    def router_weights(self) -> int:
        """Weights of one layer's router."""
        return self.hidden * self.experts

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's attention."""
        return sum(count * n * k for count, n, k in self.attention.matrices(self.hidden))

    @property
    def head_weights(self) -> int:
        """Weights of the LM head, read once per token."""
        return self.hidden * self.vocabulary

    @property
    def non_expert_weights(self) -> int:
        """All weights that stay in DRAM: embeddings, attention, routers, shared experts, dense layers, LM head."""
        moe = len(self.moe_layers) * (self.router_weights + self.shared_weights)
        embeddings = 0 if self.tied_embeddings else self.head_weights
        dense = self.dense_layers * self.dense_weights
        return self.layers * self.attention_weights + moe + dense + self.head_weights + embeddings

    @property
    def total_weights(self) -> int:
        """All weights of the model (norms and biases left out)."""
        return self.non_expert_weights + len(self.moe_layers) * self.experts * self.expert_weights

    def attended_tokens(self, layer: int, context: int) -> int:
        """Tokens that attention reads in a layer when ``context`` tokens are cached."""
        slides = self.sliding_window is not None and layer % 2 == 0
        return min(context, self.sliding_window) if slides and self.sliding_window else context

    def kv_cache_bytes(self, context: int) -> int:
        """INT8 bytes of the whole KV cache at a context length."""
        tokens = sum(self.attended_tokens(layer, context) for layer in range(self.layers))
        return tokens * self.attention.kv_bytes_per_token()


def int8_bytes(weights: int) -> int:
    """Bytes of non-expert weights: INT8 and one fp16 scale per group of 128."""
    return weights + -(-weights // NON_EXPERT_GROUP) * SCALE_BYTES


def slice_bytes(weights: int, high_bits: int, low_bits: int, group: int) -> tuple[int, int]:
    """Bytes of the MSB and the LSB slice of ``weights`` weights (slicemoe.md 1.9).

    The MSB slice carries its group's metadata: one fp16 scale and one zero point of ``high_bits`` bits.
    """
    groups = -(-weights // group)
    metadata_bits = groups * (8 * SCALE_BYTES + high_bits)
    msb_bits = weights * low_bits + metadata_bits
    return -(-msb_bits // 8), -(-weights * (high_bits - low_bits) // 8)


def shipped_models() -> Mapping[str, Path]:
    """Names and files of the models that come with slicesim."""
    folder = Path(str(resources.files("slicesim.models")))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def load_model(name_or_path: str, where: str = "model") -> ModelGeometry:
    """Load a shipped model by name, or a model file by path.

    Raises UserError when there is no such model or its file is not valid.
    """
    shipped = shipped_models()
    path = shipped.get(name_or_path.lower(), Path(name_or_path))
    if path.suffix not in (".yaml", ".yml") or not os.path.isfile(path):
        raise UserError(
            f"{where}: no model {name_or_path!r}; shipped: {', '.join(shipped)} (or give the path of a model YAML)"
        )
    return validate(ModelGeometry, read_document(path))
