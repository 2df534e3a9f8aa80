"""Whether a destination holds what its source does."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from tests.sandbox.fivetran import Project, load
from tests.sandbox.server import Sandbox
from tests.sandbox.simulator import Simulator

_SHOWN = 3  # rows of a difference


def assert_equal_to_source(project: Project, sandbox: Simulator, without: str = "") -> None:
    """Compares every declared column of every live row, but for what each sync makes anew, and
    for the table ``without``."""
    for table, expected in sandbox.expected().items():
        if table == without:
            continue
        ignored = {*sandbox.sync_times, "additional_fields"}
        stored = [_plain(row, ignored) for row in project.rows(table)]
        wanted = [_plain(row, ignored) for row in expected]
        difference = describe_difference(stored, wanted)
        assert not difference, f"{table}: {difference}"


def describe_difference(stored: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> str:
    """What a list of rows lacks and has beyond another one, whatever their order: for the first
    rows that are missing the columns in which the nearest stored row differs. Empty if they are
    equal."""
    missing = _without(wanted, stored)
    surplus = _without(stored, wanted)
    if not missing and not surplus:
        return ""
    counts = f"{len(stored)} rows are stored, {len(wanted)} expected"
    lines = [f"{counts}; {len(missing)} are missing, {len(surplus)} should not be there"]
    lines += [f"missing: {row}\n{_nearest(row, surplus)}" for row in missing[:_SHOWN]]
    if not missing:
        lines += [f"should not be there: {row}" for row in surplus[:_SHOWN]]
    return "\n".join(lines)


def _without(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of ``rows`` that are not in ``others``, each as often as it is missing there."""
    left = Counter(map(repr, others))
    found = []
    for row in sorted(rows, key=repr):
        if left[repr(row)]:
            left[repr(row)] -= 1
        else:
            found.append(row)
    return found


def _nearest(row: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """The columns in which the one of ``others`` that has most in common with ``row`` differs."""

    def differing(other: dict[str, Any]) -> list[str]:
        names = sorted({*row, *other})
        return [name for name in names if repr(row.get(name)) != repr(other.get(name))]

    other = min(others, key=lambda other: len(differing(other)), default=None)
    if other is None:
        return "  and no other row is stored in its place"
    return "\n".join(
        ["  the nearest stored row differs in:"]
        + [f"    {n}: {other.get(n)!r}, expected {row.get(n)!r}" for n in differing(other)]
    )


def differences(project: Project, sandbox: Simulator) -> tuple[Counter[str], Counter[str]]:
    """The rows that a destination lacks, and those that it should not have; every row that a
    source no longer has but a destination keeps may be there or not. Columns that only the
    destination has, from another configuration, do not count."""
    stored, wanted, kept = Counter[str](), Counter[str](), Counter[str]()
    ignored, remembered = {*sandbox.sync_times, "additional_fields"}, sandbox.remembered()

    def texts(table: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        return [f"{table}: {_plain(row, ignored)}" for row in rows]

    for table, rows in sandbox.expected().items():
        columns = {name for row in rows for name in row}
        found = project.rows(table)
        if columns:
            found = [{k: v for k, v in row.items() if k in columns} for row in found]
        stored.update(texts(table, found))
        wanted.update(texts(table, rows))
        kept.update(texts(table, remembered.get(table, ())))
    return wanted - stored - kept, stored - wanted - kept


def wrongly_deleted(project: Project, sandbox: Simulator) -> Counter[str]:
    """The rows that a destination has soft-deleted though the source has them, told by the keys
    of their tables; those of a table that a crash may leave emptied do not count."""
    found = Counter[str]()
    for entry in load(sandbox.name).schema(sandbox.configuration()):
        key = entry.get("primary_key")
        if not key or not isinstance(sandbox, Sandbox):
            continue
        table = entry["table"]
        listed = {_key(row, key) for row in sandbox.expected().get(table, [])}
        found.update(
            f"{table}: {text}"
            for row in project.rows(table, deleted=True)
            if (text := _key(row, key)) in listed
        )
    return found


def _key(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return repr([_told(row[name]) for name in names])


def _plain(row: Mapping[str, Any], ignored: set[str]) -> dict[str, Any]:
    return {name: _told(value) for name, value in sorted(row.items()) if name not in ignored}


def _told(value: Any) -> Any:
    """A value in a form whose text is the same for equal values: of numbers only the value
    counts, so that Decimal("12.50") is Decimal("12.5") and 12.5."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _number(value)
    if isinstance(value, datetime):
        # Without a zone it is in UTC; the local one could lead out of the years 1 to 9999.
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc).isoformat()
    return value.replace("\0", "") if isinstance(value, str) else value  # the platform does so


def _number(value: "float | Decimal") -> Any:
    exact = Decimal(value)
    if not exact.is_finite():
        return value
    text = format(exact, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return Decimal(text if exact else 0)
