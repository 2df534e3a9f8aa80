"""T-SQL text that both the simulator and a real server run: definitions, calls of procedures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tests.sandbox.mssql.parser import name_parts, quote

if TYPE_CHECKING:
    from tests.sandbox.mssql.server import ColumnSpec


def column_definition(spec: ColumnSpec, in_key: bool) -> str:
    if spec.computed is not None:
        return f"{quote(spec.name)} AS ({spec.computed})"
    identity = " IDENTITY(1,1)" if spec.identity else ""
    collate = f" COLLATE {spec.collation}" if spec.collation else ""
    null = "NULL" if spec.nullable and not in_key and not identity else "NOT NULL"
    null = "NOT NULL" if spec.type.lower() in ("rowversion", "timestamp") else null
    return f"{quote(spec.name)} {spec.type}{identity}{collate} {null}"


def listed(columns: Sequence[str]) -> str:
    """The columns of an index; a name may end in " DESC"."""
    return ", ".join(
        quote(part.removesuffix(" DESC")) + (" DESC" if part.endswith(" DESC") else "")
        for part in columns
    )


def temporal_table(
    schema: str,
    name: str,
    specs: Iterable[ColumnSpec],
    *,
    key: Sequence[str],
    period: tuple[str, str],
    hidden: bool,
    history: str,
) -> str:
    """CREATE TABLE of a system-versioned table."""
    in_key = {part.removesuffix(" DESC").lower() for part in key}
    parts = [column_definition(spec, spec.name.lower() in in_key) for spec in specs]
    word = " HIDDEN" if hidden else ""
    for column, end in zip(period, ("START", "END"), strict=True):
        parts.append(f"{quote(column)} datetime2(7) GENERATED ALWAYS AS ROW {end}{word} NOT NULL")
    parts.append(f"PERIOD FOR SYSTEM_TIME ({', '.join(map(quote, period))})")
    parts.append(f"CONSTRAINT {quote('PK_' + name)} PRIMARY KEY ({listed(key)})")
    return (
        f"CREATE TABLE {quote(schema)}.{quote(name)} ({', '.join(parts)}) WITH "
        f"(SYSTEM_VERSIONING = ON (HISTORY_TABLE = {quote(schema)}.{quote(history)}))"
    )


def procedure_call(name: str, arguments: Mapping[str, object]) -> str:
    """EXEC with named arguments; one that is None is left out, but for the gating role."""
    parts = []
    for parameter, value in arguments.items():
        if isinstance(value, str):
            text = value.replace("'", "''")
            parts.append(f"@{parameter} = N'{text}'")
        elif value is not None or parameter == "role_name":
            parts.append(f"@{parameter} = {'NULL' if value is None else value}")
    return f"EXEC {name} {', '.join(parts)}"


def enable_table(
    table: str,
    instance: str | None,
    role: str | None,
    net: bool | None,
    columns: Sequence[str],
    index: str | None,
) -> str:
    """EXEC of sp_cdc_enable_table."""
    arguments = _instance(table, instance)
    arguments |= {
        "role_name": role,
        "supports_net_changes": None if net is None else int(net),
        "captured_column_list": ",".join(map(quote, columns)) or None,
        "index_name": index,
    }
    return procedure_call("sys.sp_cdc_enable_table", arguments)


def disable_table(table: str, instance: str) -> str:
    """EXEC of sp_cdc_disable_table."""
    return procedure_call("sys.sp_cdc_disable_table", _instance(table, instance))


def _instance(table: str, instance: str | None) -> dict[str, object]:
    parts = name_parts(table)
    return {
        "source_schema": parts[-2] if len(parts) > 1 else "dbo",
        "source_name": parts[-1],
        "capture_instance": instance,
    }
