"""What a scenario may say: the schema behind every YAML file, ``--set`` and ``slicesim schema``.

Every key carries its unit. The device's part is in ``device.py`` (semantics, sections 2 and 9).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from slicesim.scenario.device import Coefficient, Device, Flash
from slicesim.scenario.section import Section
from slicesim.scenario.software import Software


class TraceSection(Section):
    """Which routing trace, and how it is cut."""

    path: str = Field(min_length=1, description="Parquet, or any format that can be imported")
    split: Literal["recorded", "all-decode"] | float = Field(
        "recorded", description="recorded phases, all-decode, or the fraction of each request that is prompt"
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="replay only the first tokens")
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        None, description="declare that the trace was recorded with another top-k than the model's"
    )
    layer_subset: bool = Field(False, description="declare that the trace covers only some of the MoE layers")

    @field_validator("split", mode="before")
    @classmethod
    def _known_split(cls, split: Any) -> Any:
        is_fraction = isinstance(split, float) and 0 < split < 1
        if is_fraction or split in ("recorded", "all-decode"):
            return split
        raise ValueError(f"must be recorded, all-decode, or a fraction between 0 and 1 (given: {split!r})")


class Amat(Section):
    """Bit pair and group of the asymmetric code (SliceMoE, section on AMAT)."""

    high_bits: int = Field(8, ge=3, le=8, description="bits of a weight from MSB and LSB slice together")
    low_bits: int = Field(4, ge=2, le=7, description="bits of a weight from the MSB slice alone; below high_bits")
    group: int = Field(32, ge=1, le=4096, description="weights that share a scale and a zero point")

    @model_validator(mode="after")
    def _high_above_low(self) -> Amat:
        if self.high_bits <= self.low_bits:
            raise ValueError(f"high_bits ({self.high_bits}) must be above low_bits ({self.low_bits})")
        return self


class Cache(Section):
    """The expert cache in DRAM."""

    capacity_gb: float = Field(gt=0, le=1e6, allow_inf_nan=False, description="decimal gigabytes (1e9 bytes)")
    scope: Literal["global", "layer"] = Field("global", description="one cache, or equal shares for each layer")
    reset: Literal["never", "request"] = Field("never", description="empty the cache when a request begins")
    object_bytes: Literal["geometry", "trace"] = Field(
        "geometry", description="expert sizes from the model's geometry, or as the trace recorded them"
    )


class StrategyChoice(BaseModel):
    """A strategy by name (or ``file.py:Class``) with its parameters beside the name; without a name, the preset's."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str | None = Field(None, min_length=1)

    @property
    def parameters(self) -> dict[str, Any]:
        """All keys beside the name."""
        return dict(self.model_extra or {})


class PolicyParts(Section):
    """The strategies that make a policy; a part left out is taken from the preset."""

    routing: StrategyChoice | None = Field(None, description="which experts a token is sent to")
    precision: StrategyChoice | None = Field(None, description="which experts need high precision")
    eviction: StrategyChoice | None = Field(None, description="who leaves the cache")
    fetch: StrategyChoice | None = Field(None, description="what is read on demand")
    prefetch: StrategyChoice | None = Field(None, description="what is read before it is asked for")
    warmup: StrategyChoice | None = Field(None, description="what prefill leaves for decode")
    constraint: StrategyChoice | None = Field(None, description="how a miss rate is held")
    placement: StrategyChoice | None = Field(None, description="which of several devices holds which expert")
    prefill_precision: Literal["high", "threshold"] | None = Field(
        None, description="slices streamed in prefill: all of them, or by the decode rule"
    )


class Policy(PolicyParts):
    """A preset, its parts replaced one by one where given."""

    preset: str = Field("slicemoe", description="`slicesim policies` lists them")


class Schedule(Section):
    """Which engine puts the demand table on the clock, and what may overlap."""

    engine: Literal["fast", "reference"] = Field("fast", description="compiled, or SimPy: the same picoseconds")
    overlap: Literal["serial", "layer", "prefetch"] = Field(
        "layer",
        description="a layer waits for all its reads (serial), an expert for its own ones (layer), or as layer with "
        "reads ahead (prefetch)",
    )
    pipeline: Literal["expert", "matrix"] = Field(
        "expert", description="an expert is one operation, or one for each weight matrix, waiting for its own reads"
    )
    prefill: Literal["layer", "stream"] = Field(
        "layer",
        description="a prompt's reads of a layer go out with its own router, or with that of the layer before "
        "(stream; needs overlap prefetch)",
    )
    read_kib: Annotated[float, Field(ge=0.25, allow_inf_nan=False)] | None = Field(
        None, description="longest flash read in KiB; null: one read for each weight matrix of a slice"
    )
    timeline_tokens: int = Field(200, ge=0, description="decode tokens written to timeline.json")


class Settings(Section):
    """The whole scenario as written in YAML."""

    device: Device = Field(description="the hardware")
    model: str = Field(min_length=1, description="name of a shipped model, or path of a model file")
    trace: TraceSection = Field(description="the recorded or made routing")
    amat: Amat = Field(Amat(), description="how experts are quantised and sliced")
    cache: Cache = Field(description="experts in DRAM")
    policy: Policy = Field(Policy(), description="who decides what is cached, read and computed how")
    schedule: Schedule = Field(Schedule(), description="what may run at the same time")
    software: Software | None = Field(None, description="costs of the inference engine; none: nothing")
    seed: int = Field(0, ge=0, description="of strategies that draw lots")


def scenario_schema() -> dict[str, Any]:
    """JSON Schema of a scenario file; ``extends`` may give part of it by another file."""
    schema = Settings.model_json_schema()
    schema["title"] = "slicesim scenario"
    schema["properties"]["extends"] = {"type": "string", "description": "YAML file that this one is laid over"}
    return schema


__all__ = [
    "Amat",
    "Cache",
    "Coefficient",
    "Device",
    "Flash",
    "Policy",
    "PolicyParts",
    "Schedule",
    "Section",
    "Settings",
    "StrategyChoice",
    "TraceSection",
    "scenario_schema",
]
