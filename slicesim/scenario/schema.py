"""What a scenario may say: the schema behind every YAML file, ``--set`` and ``slicesim schema``.

Every key carries its unit. Every coefficient of the device carries its source (semantics, sections 2 and 9).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """A mapping in which unknown keys, wrong types and later changes are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Coefficient(Section):
    """One number of the hardware, with where it comes from; its unit stands in the key that holds it."""

    value: float = Field(allow_inf_nan=False)
    source: str = Field(min_length=1)
    low: float | None = Field(None, allow_inf_nan=False, description="lowest plausible value, same unit")
    high: float | None = Field(None, allow_inf_nan=False, description="highest plausible value, same unit")

    @model_validator(mode="before")
    @classmethod
    def _needs_source(cls, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            return data
        raise ValueError(f"a coefficient needs its source: write {{value: {data}, source: where it comes from}}")

    @model_validator(mode="after")
    def _inside_its_range(self) -> Coefficient:
        if self.low is not None and self.value < self.low:
            raise ValueError(f"value {self.value:g} lies below its own low of {self.low:g}")
        if self.high is not None and self.value > self.high:
            raise ValueError(f"value {self.value:g} lies above its own high of {self.high:g}")
        return self


#: Beyond these a figure is a slip of the unit, and times and energies would overflow.
_LEAST, _MOST, _MOST_UNITS = 1e-6, 1e9, 10**6


def _positive(c: Coefficient) -> Coefficient:
    if c.value <= 0:
        raise ValueError(f"must be above 0, is {c.value:g}")
    if c.value < _LEAST:
        raise ValueError(f"must be at least {_LEAST:g} in the unit of the key, is {c.value:g}")
    return _plausible(c)


def _not_negative(c: Coefficient) -> Coefficient:
    if c.value < 0:
        raise ValueError(f"must not be negative, is {c.value:g}")
    return _plausible(c)


def _plausible(c: Coefficient) -> Coefficient:
    if c.value > _MOST:
        raise ValueError(f"must be at most {_MOST:g} in the unit of the key, is {c.value:g}")
    return c


def _share(c: Coefficient) -> Coefficient:
    if not _LEAST <= c.value <= 1:
        raise ValueError(f"must lie above 0 and at most 1, is {c.value:g}")
    return c


def _count(c: Coefficient) -> Coefficient:
    if not 1 <= c.value <= _MOST_UNITS or c.value != int(c.value):
        raise ValueError(f"must be a whole number from 1 to {_MOST_UNITS}, is {c.value:g}")
    return c


Positive = Annotated[Coefficient, AfterValidator(_positive)]
NotNegative = Annotated[Coefficient, AfterValidator(_not_negative)]
Share = Annotated[Coefficient, AfterValidator(_share)]
Count = Annotated[Coefficient, AfterValidator(_count)]


class Flash(Section):
    """Flash storage: lanes behind one queue, and a pipe that they share."""

    kind: str
    capacity_gb: Positive
    bandwidth_gbs: Positive = Field(description="ceiling of the shared pipe")
    lanes: Count = Field(description="reads in service at once")
    lane_bandwidth_gbs: Positive = Field(description="rate of one lane")
    latency_us: NotNegative = Field(description="t0: from taking a lane to the first byte")
    gap_us: NotNegative | None = Field(
        None, description="the pipe stands empty for gap / reads in flight between two reads in a row; none: 0"
    )
    queue_depth: Count | None = Field(None, description="commands that one queue holds; none: as many as lanes")
    queues: Count | None = Field(None, description="command queues; none: one (UFS)")
    hot_share: Share | None = Field(None, description="ceiling of the hot device over that of the cold one; none: 1")
    hot_time_constant_s: Positive | None = Field(None, description="busy time in which the device warms up (1 - 1/e)")
    energy_pj_per_bit: NotNegative
    background_power_mw: NotNegative

    @model_validator(mode="after")
    def _warms_up_wholly(self) -> Flash:
        if (self.hot_share is None) != (self.hot_time_constant_s is None):
            raise ValueError("give hot_share and hot_time_constant_s together, or neither")
        return self


class Dram(Section):
    """DRAM as its client sees it: one pipe with an effective rate."""

    kind: str
    capacity_gb: Positive
    bandwidth_gbs: Positive = Field(description="effective rate, all channels together")
    energy_pj_per_bit: NotNegative = Field(description="read or write, without row activation")
    row_kib: Positive = Field(description="bytes opened by one row activation, over all channels")
    activation_energy_pj: NotNegative = Field(description="one row activation and precharge")
    background_power_mw: NotNegative


class Sram(Section):
    """On-chip scratchpad that double-buffers weight tiles."""

    capacity_kib: Positive
    tile_kib: Positive = Field(description="one of the two halves of the double buffer")
    read_energy_pj_per_byte: NotNegative | None = None
    write_energy_pj_per_byte: NotNegative | None = None
    leakage_power_mw: NotNegative | None = None


class Npu(Section):
    """MAC array with one sequencer; give either the all-in efficiency or the separate coefficients."""

    macs_per_cycle: Count = Field(description="INT8 x INT8 multiply-accumulates in one cycle")
    clock_ghz: Positive
    gemv_utilisation: Share = Field(description="share of the array in use at batch 1")
    gemm_utilisation: Share = Field(description="share of the array in use in prefill")
    bit_cost: Literal["proportional", "bricks"] = Field(
        description="work of narrow weights: bits / 8, or 2-bit bricks ceil(a/2) x ceil(w/2)"
    )
    efficiency_tops_per_w: Positive | None = Field(None, description="all-in: MACs, SRAM and leakage together")
    mac_energy_pj: NotNegative | None = Field(None, description="one INT8 MAC with accumulation")
    dequant_energy_pj_per_weight: NotNegative | None = None
    background_power_mw: NotNegative | None = None


class Device(Section):
    """The memory tiers and the NPU."""

    name: str
    flash: Flash
    dram: Dram
    sram: Sram
    npu: Npu

    @model_validator(mode="after")
    def _energy_given_once(self) -> Device:
        separate = {
            "npu.mac_energy_pj": self.npu.mac_energy_pj,
            "npu.dequant_energy_pj_per_weight": self.npu.dequant_energy_pj_per_weight,
            "npu.background_power_mw": self.npu.background_power_mw,
            "sram.read_energy_pj_per_byte": self.sram.read_energy_pj_per_byte,
            "sram.write_energy_pj_per_byte": self.sram.write_energy_pj_per_byte,
            "sram.leakage_power_mw": self.sram.leakage_power_mw,
        }
        if self.npu.efficiency_tops_per_w is not None:
            twice = [key for key, value in separate.items() if value is not None]
            if twice:
                raise ValueError(
                    f"npu.efficiency_tops_per_w is all-in (SRAM and leakage included): remove {', '.join(twice)}, "
                    "or it would be counted twice"
                )
        else:
            missing = [key for key, value in separate.items() if value is None]
            if missing:
                raise ValueError(f"give npu.efficiency_tops_per_w, or all of: {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _tiles_fit(self) -> Device:
        if 2 * self.sram.tile_kib.value > self.sram.capacity_kib.value:
            raise ValueError("sram.tile_kib: two tiles (the double buffer) must fit sram.capacity_kib")
        return self


class TraceSection(Section):
    """Which routing trace, and how it is cut."""

    path: str = Field(min_length=1)
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

    high_bits: int = Field(8, ge=3, le=8)
    low_bits: int = Field(4, ge=2, le=7)
    group: int = Field(32, ge=1, le=4096)

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
    """The seven strategies that make a policy; a part left out is taken from the preset."""

    routing: StrategyChoice | None = None
    precision: StrategyChoice | None = None
    eviction: StrategyChoice | None = None
    fetch: StrategyChoice | None = None
    prefetch: StrategyChoice | None = None
    warmup: StrategyChoice | None = None
    constraint: StrategyChoice | None = None
    prefill_precision: Literal["high", "threshold"] | None = Field(
        None, description="slices streamed in prefill: all of them, or by the decode rule"
    )


class Policy(PolicyParts):
    """A preset, its parts replaced one by one where given."""

    preset: str = "slicemoe"


class Schedule(Section):
    """Which engine puts the demand table on the clock, and what may overlap."""

    engine: Literal["fast", "reference"] = Field("fast", description="compiled, or SimPy: the same picoseconds")
    overlap: Literal["serial", "layer", "prefetch"] = "layer"
    timeline_tokens: int = Field(200, ge=0, description="decode tokens written to timeline.json")


class Software(Section):
    """What the inference engine costs the processor beside computing; left out: nothing.

    An engine that keeps experts commits pages, takes the page faults of the copy, and gives the pages of what it evicts
    back: so much for each batch of reads (a layer that misses), and so much for each byte.
    """

    insert_latency_us: NotNegative = Field(description="once for each layer that reads into the cache")
    insert_bandwidth_gbs: Positive = Field(description="rate at which missed bytes are put into the cache")


class Settings(Section):
    """The whole scenario as written in YAML."""

    device: Device
    model: str = Field(min_length=1, description="name of a shipped model, or path of a model file")
    trace: TraceSection
    amat: Amat = Amat()
    cache: Cache
    policy: Policy = Policy()
    schedule: Schedule = Schedule()
    software: Software | None = None
    seed: int = Field(0, ge=0)


def scenario_schema() -> dict[str, Any]:
    """JSON Schema of a scenario file; ``extends`` may give part of it by another file."""
    schema = Settings.model_json_schema()
    schema["title"] = "slicesim scenario"
    schema["properties"]["extends"] = {"type": "string", "description": "YAML file that this one is laid over"}
    return schema
