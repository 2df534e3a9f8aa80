"""States that older versions wrote, one of each form: the next sync resumes with them."""

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
import time_machine

from tests.compare import assert_equal_to_source
from tests.contract.helpers import known, succeeded
from tests.sandbox import create, names
from tests.sandbox.fivetran import Project
from tests.sandbox.server import Sandbox

STATES = Path(__file__).parent.parent / "fixtures" / "states"
NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (path.parent.name, path.stem)
        for name in names(Sandbox)
        for path in sorted((STATES / name).glob("*.json"))
    ],
)
def test_a_state_of_an_older_version_is_resumed(name: str, form: str, tmp_path: Path) -> None:
    """What changed since it was written arrives, and nothing that was there is lost."""
    project = Project(name, tmp_path)
    with time_machine.travel(NOW), create(name) as source:
        succeeded(project.sync(source.configuration()))
        source.change_something()
        state = json.loads((STATES / name / f"{form}.json").read_text())
        succeeded(project.sync(source.configuration(), state))
        refreshed = known(source, {"reconcile_hours": "0"})  # for deletes
        succeeded(project.sync(source.configuration(**refreshed)))
        assert_equal_to_source(project, source)
