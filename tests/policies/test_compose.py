"""Presets, overlays and parts."""

from __future__ import annotations

import pytest

from slicesim.errors import UserError
from slicesim.policies import build_policy, load_preset, presets
from tests.devices import linked
from tests.kit import random_trace, run, scenario


def built(policy="slicemoe", *, has_logits=False, **keys):
    return build_policy(scenario(policy=policy, **keys), has_logits=has_logits)


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_whole_and_runs(name):
    preset = load_preset(name)
    assert preset.description
    assert preset.source
    several = {} if preset.placement.name == "none" else linked()
    result = run(random_trace(1, 16, prompt=4, logits=preset.routing.name != "stock"), policy=name, **several)
    assert result.summary["policy"] == name
    assert result.decode["tokens"] == 12


def test_slicemoe_takes_bias_with_logits_and_budget_without():
    assert built().constraint.name == "budget"
    with_logits = built(has_logits=True)
    assert (with_logits.constraint.name, with_logits.routing.name) == ("bias", "cache-prior")
    assert run(random_trace(1, 30, logits=True), policy="slicemoe").decode["constraint"]["name"] == "bias"
    assert run(random_trace(1, 30), policy="slicemoe").decode["constraint"]["name"] == "budget"


def test_a_parameter_alone_keeps_the_strategy_of_the_preset():
    policy = built(policy__constraint__target=0.2)
    assert (policy.constraint.name, policy.constraint.target, policy.constraint.start_step) == ("budget", 0.2, 10)
    assert built(has_logits=True, policy__constraint__target=0.2).constraint.name == "bias"


def test_another_strategy_forgets_the_old_parameters():
    policy = built(policy__constraint={"name": "none"})
    assert policy.constraint.name == "none"
    assert policy.label == "slicemoe+none"


def test_a_changed_part_shows_in_the_label():
    assert built("lru-high", policy__eviction={"name": "fifo"}).label == "lru-high+fifo"
    assert built("lru-high").label == "lru-high"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"policy__preset": "slicemo"}, "no preset 'slicemo' (did you mean 'slicemoe'?)"),
        ({"policy__eviction": {"name": "lruu"}}, "no eviction strategy 'lruu' (did you mean"),
        ({"policy__precision__threshold": 2}, "policy.precision.threshold: must be less than or equal to 1 (given: 2)"),
        ({"policy__warmup": {"name": "pcw", "decay": 1}}, "has no such parameter (it has: none)"),
        ({"policy__routing": {"name": "cache-prior"}}, "reroutes, but the trace holds only the top-k"),
        ({"policy__constraint": {"name": "bias"}}, "it needs routing cache-prior"),
        ({"policy__routing": {"name": "max-rank"}}, "policy.routing.max_rank: is missing"),
        ({"policy__eviction": {"name": "belady"}}, "it needs routing stock and constraint none"),
        (
            {"policy": "dbsc", "policy__routing": {"name": "skip"}, "policy__eviction": {"name": "belady"}},
            "belady knows the future of the recorded requests only: it needs routing stock and constraint none",
        ),
        (
            {"policy": "dbsc", "policy__routing": {"name": "buddy"}, "policy__eviction": {"name": "static"}},
            "it needs routing stock and constraint none",
        ),
        ({"policy__constraint": {"name": "bisect"}}, "bisect steers cache-prior: it needs routing cache-prior"),
        (
            {
                "has_logits": True,
                "policy__routing": {"name": "max-rank", "max_rank": 3},
                "policy__constraint": {"name": "bisect"},
            },
            "bisect steers cache-prior: it needs routing cache-prior",
        ),
        (
            {"has_logits": True, "policy__precision": {"name": "hobbit"}},
            "policy.precision.name: hobbit ranks the model's own choice, but cache-prior makes another one",
        ),
        (
            {"policy": "buddy", "policy__precision": {"name": "static-widths"}},
            "static-widths gives each expert one precision, but with buddy others serve at it: use routing stock",
        ),
        ({"policy": "hobbit-precision", "policy__precision__t2": 0.5}, "t1 (0.6) must not be above t2 (0.5)"),
        ({"policy": "skip", "policy__routing__beta": 1.5}, "must be less than or equal to 1 (given: 1.5)"),
        ({"policy": "top-1", "policy__precision__threshold": 2}, "must be less than or equal to 1 (given: 2)"),
    ],
)
def test_what_does_not_go_together_is_refused(keys, message):
    with pytest.raises(UserError) as error:
        built(**keys)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
