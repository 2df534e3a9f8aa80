"""Whether a destination holds what its source does."""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from tests.sandbox.fivetran import Project
from tests.sandbox.standin import StandIn


def assert_equal_to_source(project: Project, sandbox: StandIn) -> None:
    """Compares every declared column of every live row, but for what each sync makes anew."""
    for table, expected in sandbox.expected().items():
        ignored = {*sandbox.sync_times, "additional_fields"}
        stored = [_plain(row, ignored) for row in project.rows(table)]
        wanted = [_plain(row, ignored) for row in expected]
        assert sorted(stored, key=repr) == sorted(wanted, key=repr), table


def _plain(row: Mapping[str, Any], ignored: set[str]) -> dict[str, Any]:
    return {
        name: value.astimezone(timezone.utc).isoformat() if isinstance(value, datetime) else value
        for name, value in sorted(row.items())
        if name not in ignored
    }
