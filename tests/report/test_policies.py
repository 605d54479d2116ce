"""The list of policies and its page."""

from __future__ import annotations

import inspect

import pytest

from slicesim.policies import presets
from slicesim.policies.base import Strategy
from slicesim.policies.compose import KINDS
from slicesim.report.policies import GROUPS, list_policies, policies_page
from tests.kit import ROOT

SHIPPED = [
    (kind, name)
    for kind in KINDS
    for name, strategy in Strategy.registry[kind].items()
    if strategy.__module__.startswith("slicesim.")
]


def test_the_page_is_what_the_command_writes():
    """Else: slicesim policies --page docs/policies.md."""
    assert (ROOT / "docs" / "policies.md").read_text(encoding="utf-8") == policies_page()


def test_every_preset_is_listed_once():
    names = [row["policy"] for row in list_policies()]
    assert sorted(names) == sorted(presets())
    groups = [row["group"] for row in list_policies()]
    assert groups == sorted(groups, key=list(GROUPS).index)


def test_systems_say_what_was_simplified():
    page = policies_page()
    for row in list_policies():
        if row["group"] == "system":
            assert f"- `{row['policy']}`: " in page


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_every_strategy_says_where_it_is_from_and_what_checks_it(kind, name):
    strategy = Strategy.registry[kind][name]
    text = inspect.getdoc(strategy)
    assert "Source: " in text
    assert "Checked by: " in text
    assert all(field.description for field in strategy.model_fields.values())


def test_what_a_policy_asks_for():
    rows = {row["policy"]: row for row in list_policies()}
    assert rows["cache-prior"]["needs_logits"]
    assert rows["belady"]["knows_future"]
    assert rows["pre-gated-moe"]["reads_ahead"]
    assert not any(rows["successor"][key] for key in ("needs_logits", "knows_future", "reads_ahead"))
