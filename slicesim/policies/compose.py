"""Put a policy together: preset, its overlay for traces with logits, then the user's own parts."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from slicesim.errors import UserError
from slicesim.policies import constraint, eviction, fetch, placement, precision, prefetch, routing, warmup
from slicesim.policies import listed as _listed  # noqa: F401 - known by name from then on
from slicesim.policies import reuse as _reuse  # noqa: F401
from slicesim.policies import scored as _scored  # noqa: F401
from slicesim.policies import successor as _successor  # noqa: F401
from slicesim.policies.base import Strategy
from slicesim.scenario.document import read_document
from slicesim.scenario.scenario import Scenario, plain_message, validate
from slicesim.scenario.schema import Policy as PolicySection
from slicesim.scenario.schema import PolicyParts, Schedule, StrategyChoice

KINDS: dict[str, type[Strategy]] = {
    "routing": routing.Routing,
    "precision": precision.Precision,
    "eviction": eviction.Eviction,
    "fetch": fetch.Fetch,
    "prefetch": prefetch.Prefetch,
    "warmup": warmup.Warmup,
    "constraint": constraint.Constraint,
    "placement": placement.Placement,
}


class Preset(PolicyParts):
    """A preset file: its strategies, and what changes where the trace holds logits. Without placement: one device.

    group: what it stands for; simplified: what was left out of a system, or changed, against its paper.
    schedule: keys of the scenario's ``schedule`` section that the policy needs (see ``policies.wishes``).
    """

    description: str
    source: str
    group: Literal["baseline", "eviction", "routing", "precision", "prefetch", "system", "own"]
    simplified: str = ""
    placement: StrategyChoice | None = StrategyChoice(name=placement.OneDevice.name)
    with_logits: PolicyParts = PolicyParts()
    schedule: dict[str, Any] = Field(default_factory=dict)

    @field_validator("schedule")
    @classmethod
    def _known_keys(cls, wishes: dict[str, Any]) -> dict[str, Any]:
        unknown = ", ".join(wishes.keys() - Schedule.model_fields.keys())
        if unknown:
            raise ValueError(f"the schedule has no key {unknown} (it has: {', '.join(Schedule.model_fields)})")
        Schedule.model_validate(wishes)
        return wishes


@dataclass(frozen=True)
class Policy:
    """All strategies, checked and ready."""

    label: str
    preset: str
    routing: routing.Routing
    precision: precision.Precision
    eviction: eviction.Eviction
    fetch: fetch.Fetch
    prefetch: prefetch.Prefetch
    warmup: warmup.Warmup
    constraint: constraint.Constraint
    placement: placement.Placement
    prefill_high: bool

    @property
    def needs_future(self) -> bool:
        """Whether a strategy looks at what the trace has not told yet."""
        return any(part.needs_future for part in (self.eviction, self.precision, self.prefetch, self.constraint))

    def describe(self) -> dict[str, Any]:
        """Return the resolved policy as plain data: every strategy with its name and all parameters."""
        parts: dict[str, Any] = {
            kind: {"name": _label(getattr(self, kind)), **getattr(self, kind).model_dump()} for kind in KINDS
        }
        return {"preset": self.preset, **parts, "prefill_precision": "high" if self.prefill_high else "threshold"}

    def file_digests(self) -> list[str]:
        """SHA-256 of the files that its strategies read."""
        return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in self.precision.files]

    def code_digests(self) -> dict[str, str]:
        """SHA-256 of the files that hold the user's own strategies, by kind; empty where all are slicesim's."""
        own = {kind: sys.modules[type(getattr(self, kind)).__module__] for kind in KINDS}
        return {
            kind: hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
            for kind, module in own.items()
            if not module.__name__.startswith("slicesim.") and getattr(module, "__file__", None)
        }


def presets() -> dict[str, Path]:
    """Names and files of the presets that come with slicesim."""
    folder = Path(str(resources.files("slicesim.policies"))) / "presets"  # the package itself would hide this function
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def build_policy(scenario: Scenario, *, has_logits: bool) -> Policy:
    """Resolve the scenario's policy for a trace with or without logits.

    Raises UserError for an unknown preset or strategy, wrong parameters, or parts that do not go together.
    """
    chosen = scenario.settings.policy
    preset = load_preset(chosen.preset, scenario)
    parts: dict[str, Any] = {}
    for layer in (preset, preset.with_logits if has_logits else None, chosen):
        for kind in KINDS:
            choice = getattr(layer, kind, None)
            if choice is not None:
                parts[kind] = _lay_over(parts.get(kind), choice)
    built = {kind: _strategy(kind, choice, scenario) for kind, choice in parts.items()}
    policy = Policy(
        label=_policy_label(preset, chosen, built),
        preset=chosen.preset,
        prefill_high=(chosen.prefill_precision or preset.prefill_precision) != "threshold",
        **built,  # type: ignore[arg-type]
    )
    _check(policy, scenario, has_logits)
    return policy


def load_preset(name: str, scenario: Scenario | None = None) -> Preset:
    """Read one preset by name."""
    known = presets()
    if name not in known:
        where = scenario.where("policy", "preset") if scenario else "policy"
        raise UserError(f"{where}: policy.preset: no preset {name!r}{_hint(name, known)}")
    return validate(Preset, read_document(known[name]))


def _lay_over(below: StrategyChoice | None, above: StrategyChoice) -> StrategyChoice:
    """Keep the parameters below when the strategy stays the same; a choice without name means the one below."""
    if below is None:
        return above
    if above.name not in (None, below.name):
        return above
    return StrategyChoice(name=below.name, **{**below.parameters, **above.parameters})


def _strategy(kind: str, choice: StrategyChoice, scenario: Scenario) -> Strategy:
    name = choice.name or ""
    cls = _from_file(kind, name, scenario) if ".py:" in name else Strategy.registry[kind].get(name)
    if cls is None:
        known = Strategy.registry[kind]
        raise scenario.error("policy", kind, "name", message=f"no {kind} strategy {name!r}{_hint(name, known)}")
    try:
        return cls.model_validate(choice.parameters, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        key = fault["loc"][0] if fault["loc"] else "name"
        known_keys = ", ".join(cls.model_fields) or "none"
        unknown = f"{kind} strategy {name!r} has no such parameter (it has: {known_keys})"
        message = unknown if fault["type"] == "extra_forbidden" else plain_message(fault)
        raise scenario.error("policy", kind, key, message=message) from None


def _from_file(kind: str, name: str, scenario: Scenario) -> type[Strategy]:
    """Load ``file.py:Class``. This runs the user's file, as any import would."""
    file, _, class_name = name.rpartition(":")
    path = Path(file)

    def fail(message: str) -> UserError:
        where = scenario.where("policy", kind, "name")
        return UserError(f"{where}: {message}" if where.endswith(name) else f"{where}: {name}: {message}")

    if not os.path.isfile(path):
        raise fail("no such file")
    spec = importlib.util.spec_from_file_location(f"slicesim_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise fail("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise fail(f"cannot be imported ({type(error).__name__}: {error})") from None
    cls = getattr(module, class_name, None)
    base = KINDS[kind]
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise fail(f"must be a class that derives from slicesim.policies.{base.__name__}")
    return cls


def _check(policy: Policy, scenario: Scenario, has_logits: bool) -> None:
    if policy.routing.sees_logits and not has_logits:
        raise scenario.error(
            "policy", "routing", "name",
            message=f"{_label(policy.routing)} reroutes, but the trace holds only the top-k; "
            "use a trace with logits, or routing stock",
        )  # fmt: skip
    if policy.constraint.steers and not policy.routing.steered:
        raise scenario.error(
            "policy", "constraint", "name",
            message=f"{_label(policy.constraint)} steers cache-prior: it needs routing cache-prior (and logits)",
        )  # fmt: skip
    _check_precision(policy, scenario)
    _check_placement(policy, scenario)
    overlap = scenario.settings.schedule.overlap
    if policy.prefetch.layers_ahead and overlap != "prefetch":
        raise scenario.error(
            "policy", "prefetch", "name",
            message=f"{_label(policy.prefetch)} reads ahead, which needs schedule.overlap=prefetch (it is {overlap})",
        )  # fmt: skip
    if policy.eviction.needs_future and (policy.routing.changes_choice or policy.constraint.watch() is not None):
        raise scenario.error(
            "policy", "eviction", "name",
            message=f"{_label(policy.eviction)} knows the future of the recorded requests only: "
            "it needs routing stock and constraint none",
        )  # fmt: skip


def _check_precision(policy: Policy, scenario: Scenario) -> None:
    """Refuse a precision that does not say what another choice of experts runs at."""
    own, routing = _label(policy.precision), _label(policy.routing)
    if policy.precision.skips and policy.routing.sees_logits:
        message = f"{own} ranks the model's own choice, but {routing} makes another one: use routing stock"
    elif policy.precision.by_expert and policy.routing.substitutes:
        message = f"{own} gives each expert one precision, but with {routing} others serve at it: use routing stock"
    else:
        return
    raise scenario.error("policy", "precision", "name", message=message)


def _check_placement(policy: Policy, scenario: Scenario) -> None:
    """Several devices hold all experts between them, and only several devices can share them."""
    own, eviction = _label(policy.placement), _label(policy.eviction)
    if scenario.settings.device.interconnect is None:
        if policy.placement.shares:
            raise scenario.error(
                "policy", "placement", "name",
                message=f"{own} shares experts among devices: it needs device.interconnect "
                "(as in hwconfigs/expert-parallel.yaml)",
            )  # fmt: skip
    elif not policy.eviction.keeps_all:
        raise scenario.error(
            "policy", "eviction", "name",
            message=f"with device.interconnect all experts are resident, but {eviction} evicts: "
            "use expert-parallel, speculative-moe or all-in-dram",
        )  # fmt: skip
    elif policy.routing.changes_choice:
        raise scenario.error(
            "policy", "routing", "name",
            message=f"with device.interconnect all experts are resident, so {_label(policy.routing)} "
            "has nothing to go by: use routing stock",
        )  # fmt: skip


def _policy_label(preset: Preset, chosen: PolicySection, built: Mapping[str, Strategy]) -> str:
    """The preset's name, and those of strategies that the user put in place of its own."""
    replaced = [
        _label(built[kind])
        for kind in KINDS
        if (choice := getattr(chosen, kind)) is not None
        and choice.name is not None
        and choice.name not in (getattr(preset, kind).name, getattr(getattr(preset.with_logits, kind), "name", None))
    ]
    return "+".join([chosen.preset, *replaced])


def _label(strategy: Strategy) -> str:
    return strategy.name or type(strategy).__name__


def _hint(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(sorted(known))})"
