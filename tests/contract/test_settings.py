"""Settings are checked before the first request, and so is the state."""

import json
import re
from typing import Any

import pytest

from shared.settings import declared
from tests.compare import assert_equal_to_source
from tests.contract.helpers import failed, succeeded
from tests.sandbox.fivetran import load
from tests.width import wide


def test_every_wrong_setting_is_named_before_any_request(sync: Any, sandbox: Any) -> None:
    """One message holds all errors, and shows no value."""
    wrong, keys = "no such value \x07", declared(load(sandbox.name).Settings)
    result = failed(sync(**dict.fromkeys(keys, wrong)))
    lenient = {key for key, setting in keys.items() if setting.kind.expected == "text"}
    for key in keys.keys() - lenient:
        assert re.search(rf"^\s*{key} must be ", result.output, re.M), key
    assert "no such value" not in result.output
    assert sandbox.requests == []


@pytest.mark.parametrize("value", [*wide("", "  "), "<A_PLACEHOLDER>"])
def test_what_is_required_must_be_given(sync: Any, sandbox: Any, value: str) -> None:
    """A required key that is empty or a placeholder is missing; an optional one has its
    default."""
    keys = declared(load(sandbox.name).Settings)
    optional = {key for key, setting in keys.items() if setting.default is not None}
    succeeded(sync(**dict.fromkeys(optional - {*sandbox.addresses}, value)))
    before = len(sandbox.requests)
    required = keys.keys() - optional
    result = failed(sync(**dict.fromkeys(required, value)))
    assert all(f"{key} is missing" in result.output for key in required)
    assert len(sandbox.requests) == before


def test_an_unknown_key_is_a_warning(sync: Any) -> None:
    """The warning names the nearest known key."""
    output = succeeded(sync(retry_attempt="5")).output
    assert "'retry_attempt' is not known" in output
    assert "did you mean retry_attempts?" in output


@pytest.mark.parametrize(
    "state",
    [
        {"version": 2, "tables": {}},
        {"something": "else"},
        {"version": 1, "tables": {"x": {"cursor": "yesterday"}}},
        {"last_sync_time": 17.5e300},
    ],
)
def test_a_state_of_another_form_is_an_error(
    project: Any, sandbox: Any, state: dict[str, Any]
) -> None:
    """A fresh start would hide the loss; nothing is requested."""
    result = failed(project.sync(sandbox.configuration(), state))
    assert "state is not one of version 1" in result.output
    assert sandbox.requests == []


def test_the_state_of_an_older_connector_is_taken(project: Any, sandbox: Any) -> None:
    """`last_sync_time` as a bare string is the specification's form."""
    succeeded(project.sync(sandbox.configuration(), {"last_sync_time": "2026-11-20T08:00:00Z"}))
    assert_equal_to_source(project, sandbox)


def test_a_state_ahead_of_the_clock_loses_nothing(project: Any, sandbox: Any) -> None:
    """A cursor that a wrong clock has written leads to a full refresh, not to a gap."""
    succeeded(project.sync(sandbox.configuration()))
    ahead = re.sub(r'": "20\d\d-', '": "2096-', json.dumps(project.state))
    sandbox.change_something()
    succeeded(project.sync(sandbox.configuration(), json.loads(ahead)))
    assert_equal_to_source(project, sandbox)
