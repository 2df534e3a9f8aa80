"""Which columns of a table a login cannot read, or reads masked, and why.

https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-columns-transact-sql
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from .naming import ColumnName, Name
from .session import Session

_COLUMNS = (
    "SELECT s.name AS schema_name, t.name AS table_name, c.name AS column_name "
    "FROM sys.columns AS c JOIN sys.tables AS t ON t.object_id = c.object_id "
    "JOIN sys.schemas AS s ON s.schema_id = t.schema_id WHERE "
)
_TABLE = "QUOTENAME(s.name) + N'.' + QUOTENAME(t.name)"
# Below SQL Server 2022 there is only the right on the whole database, and none for a column.
_NOT_UNMASKED = (
    "ISNULL(HAS_PERMS_BY_NAME(QUOTENAME(DB_NAME()), 'DATABASE', 'UNMASK'), 0) = 0 "
    f"AND ISNULL(HAS_PERMS_BY_NAME({_TABLE}, 'OBJECT', 'UNMASK', c.name, 'COLUMN'), 0) = 0"
)
# Asked for each column: Microsoft does not say that a right on the whole table, for which to ask
# is quicker, is one on all of its columns. A DENY may be on a single one, and so may a GRANT.
# https://learn.microsoft.com/sql/t-sql/functions/has-perms-by-name-transact-sql
_DENIED = f"HAS_PERMS_BY_NAME({_TABLE}, 'OBJECT', 'SELECT', c.name, 'COLUMN') = 0"
# Of a node or an edge: those that hold numbers of the server's own, which cannot be selected.
_INTERNAL = "c.graph_type IN (1, 3, 4, 6, 7)"
_TABLES_AT_ONCE = 500

ENCRYPTED = "is encrypted by the client (Always Encrypted), whose key the connector does not have"
DENIED = "may not be read by mssql_user"
EXCLUDED = "is named in exclude_columns"
INTERNAL = "is an internal one of a graph table"
MASKED = "is masked for mssql_user"


@dataclass
class Restrictions:
    """Columns of a table: why some are ``excluded``, and which ones are ``masked``."""

    excluded: dict[str, str] = field(default_factory=dict)
    masked: set[str] = field(default_factory=set)


def read(
    session: Session,
    tables: Collection[Name],
    object_ids: Sequence[int],
    by_settings: Iterable[ColumnName],
) -> dict[Name, Restrictions]:
    """The restrictions of each of ``tables``, as far as the server tells: masks and encryption
    came with SQL Server 2016, graphs with 2017. ``object_ids`` are those of the tables,
    ``by_settings`` the columns that the settings exclude."""

    def found(doing: str, condition: str) -> set[ColumnName]:
        rows = session.optional(doing, _COLUMNS + condition) or []
        return {(schema, table, c) for schema, table, c in rows if (schema, table) in tables}

    excluded: dict[ColumnName, str] = {}
    for start in range(0, len(object_ids), _TABLES_AT_ONCE):
        listed = ", ".join(map(str, object_ids[start : start + _TABLES_AT_ONCE]))
        condition = f"c.object_id IN ({listed}) AND {_DENIED}"
        excluded |= dict.fromkeys(found("the rights on single columns", condition), DENIED)
    encrypted = found("which columns are encrypted", "c.encryption_type IS NOT NULL")
    excluded |= dict.fromkeys(encrypted, ENCRYPTED)
    excluded |= dict.fromkeys(found("which columns are internal ones", _INTERNAL), INTERNAL)
    excluded |= dict.fromkeys((name for name in by_settings if name[:2] in tables), EXCLUDED)
    masked = found("which columns are masked", f"c.is_masked = 1 AND {_NOT_UNMASKED}")
    restrictions: dict[Name, Restrictions] = defaultdict(Restrictions)
    for (schema, table, column), why in excluded.items():
        restrictions[schema, table].excluded[column] = why
    for schema, table, column in masked - excluded.keys():
        restrictions[schema, table].masked.add(column)
    return restrictions


def warnings(label: str, excluded: dict[str, str], masked: Iterable[str]) -> list[str]:
    """What the user should know, which is neither what the settings say nor what nobody can
    read."""
    lines = []
    for reason, advice in (
        (ENCRYPTED, "is not read"),
        (DENIED, "is not read. Grant SELECT on it, or name it in exclude_columns"),
    ):
        columns = sorted(name for name, why in excluded.items() if why == reason)
        lines += [f"{label}: {_each(columns)} {reason}, and {advice}"] if columns else []
    if columns := sorted(masked):
        lines.append(
            f"{label}: {_each(columns)} {MASKED}: the mask is stored, not the value. GRANT UNMASK "
            "to mssql_user, or name it in exclude_columns"
        )
    return lines


def _each(columns: Sequence[str]) -> str:
    return f"column {columns[0]}" if len(columns) == 1 else f"each of {', '.join(columns)}"
