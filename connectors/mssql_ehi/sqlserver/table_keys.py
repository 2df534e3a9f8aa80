"""The key of a table at the destination, and the order in which it can be read.

A destination takes no other key for a table that has rows: so the key with which a table was
stored first stays, as long as it tells the rows apart.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .naming import Chosen, Name
from .restrictions import INTERNAL, MASKED
from .session import Session, Values
from .source_tables import Column, SourceTable

_WHOLE = ("tinyint", "smallint", "int", "bigint")
_TEXT = ("char", "varchar", "nchar", "nvarchar", "sysname")
_ALIKE = {
    **dict.fromkeys(_WHOLE, "whole"),
    **dict.fromkeys(_TEXT, "text"),
    **dict.fromkeys(("decimal", "numeric"), "decimal"),
    **dict.fromkeys(("binary", "varbinary", "timestamp", "rowversion"), "bytes"),
}


@dataclass(frozen=True, slots=True)
class Index:
    """A unique index or constraint, and its columns in order."""

    columns: tuple[str, ...]
    primary: bool
    clustered: bool


# Schema, table and name of an index, and whether it is switched off.
_Groups = dict[tuple[str, str, str], tuple[Index, bool]]
_CONSTRAINTS = (
    "SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.CONSTRAINT_NAME, "
    "CASE WHEN t.CONSTRAINT_TYPE = 'PRIMARY KEY' THEN 1 ELSE 0 END AS is_primary, "
    "0 AS is_clustered, 0 AS is_disabled, k.COLUMN_NAME "
    "FROM INFORMATION_SCHEMA.TABLE_CONSTRAINTS AS t "
    "JOIN INFORMATION_SCHEMA.KEY_COLUMN_USAGE AS k "
    "ON k.CONSTRAINT_SCHEMA = t.CONSTRAINT_SCHEMA "
    "AND k.CONSTRAINT_NAME = t.CONSTRAINT_NAME "
    "AND k.TABLE_SCHEMA = t.TABLE_SCHEMA AND k.TABLE_NAME = t.TABLE_NAME "
    "WHERE t.CONSTRAINT_TYPE IN ('PRIMARY KEY', 'UNIQUE'){} "
    "ORDER BY k.ORDINAL_POSITION"
)
_INDEXES = (
    "SELECT s.name AS schema_name, t.name AS table_name, i.name AS index_name, "
    "CAST(i.is_primary_key AS int) AS is_primary, "
    "CASE WHEN i.type = 1 THEN 1 ELSE 0 END AS is_clustered, "
    "CAST(i.is_disabled AS int) AS is_disabled, c.name AS column_name "
    "FROM sys.indexes AS i "
    "JOIN sys.index_columns AS x ON x.object_id = i.object_id AND x.index_id = i.index_id "
    "JOIN sys.columns AS c ON c.object_id = x.object_id AND c.column_id = x.column_id "
    "JOIN sys.tables AS t ON t.object_id = i.object_id "
    "JOIN sys.schemas AS s ON s.schema_id = t.schema_id "
    "WHERE i.is_unique = 1 AND i.is_hypothetical = 0 "
    "AND i.has_filter = 0 AND x.key_ordinal > 0{} "
    "ORDER BY x.key_ordinal"
)


def read(session: Session, chosen: Chosen) -> dict[Name, list[Index]]:
    """The unique indexes of the tables that are in force. A login always sees constraints, but not
    always other indexes. Raises SourceError."""

    def grouped(rows: Iterable[Values]) -> _Groups:
        return _grouped(row for row in rows if row[:2] in chosen.names)

    constraints: _Groups = session.with_retries(
        "the keys",
        lambda: grouped(session.each(_CONSTRAINTS.format(chosen.condition("t.TABLE_NAME")))),
    )
    indexes = session.optionally(
        "the unique indexes", _INDEXES.format(chosen.condition("t.name")), grouped
    )
    found: dict[Name, list[Index]] = defaultdict(list)
    # A constraint is an index of the same name, which alone says whether it is in force.
    for (schema, table, _), (index, disabled) in {**constraints, **(indexes or {})}.items():
        if not disabled:
            found[schema, table].append(index)
    return found


def _grouped(rows: Iterable[Values]) -> _Groups:
    groups: dict[Values, list[str]] = defaultdict(list)
    for *index, column in rows:
        groups[tuple(index)].append(column)
    return {
        (schema, table, name): (Index(tuple(columns), bool(primary), bool(clustered)), bool(off))
        for (schema, table, name, primary, clustered, off), columns in groups.items()
    }


class Keys:
    """The choice of a key for ``table``, whose columns are all that it has. ``excluded``: columns
    that are not read, and why; ``saved``: names of the columns of its key at the destination, None
    if it has none there yet; ``has_nulls`` asks the server whether a column does."""

    def __init__(
        self,
        table: SourceTable,
        indexes: Sequence[Index],
        excluded: Mapping[str, str],
        saved: Sequence[str] | None,
        has_nulls: Callable[[Column], bool],
    ) -> None:
        self._table, self._excluded, self._saved = table, excluded, saved
        self._has_nulls = has_nulls
        self._by_name = {column.name.casefold(): column for column in table.columns}
        self._by_name.update({column.name: column for column in table.columns})
        # A table that is altered just now may have an index of a column that was not listed.
        known = [i for i in indexes if all(self._column(name) for name in i.columns)]
        known = [i for i in known if not any(excluded.get(n) == INTERNAL for n in i.columns)]
        self._known = sorted(known, key=lambda i: (not i.primary, len(i.columns), i.columns))
        self._unique = [
            i for i in self._known if not any(c.nullable for c in self._columns(i.columns))
        ]

    def choose(self) -> tuple[SourceTable, list[str]]:
        """The table with its key and its order, or with the reason why it has none, without the
        columns that are excluded; and what the user should know.

        The order that costs the server least is that of the clustered index, if its columns can
        tell a position.
        """
        key, fault, warnings = self._choose_key()
        refused = bool(fault)
        for column in self._columns(key):
            fault = fault or self._obstacle(column)
        columns = tuple(c for c in self._table.columns if c.name not in self._excluded)
        if not columns:
            fault = fault or "none of its columns can be read"
        table = replace(
            self._table,
            columns=columns,
            excluded_columns=tuple(self._excluded),
            key=self._columns(key) if not fault else (),
            order=self._order() if not fault else (),
            fault=fault,
            key_refused=refused,
        )
        return table, warnings

    def _choose_key(self) -> tuple[Sequence[str], str, list[str]]:
        """The names of the key's columns; or why the destination refuses the key; and warnings.

        The key is that of the destination, if it still is one. Else it is the primary key, else a
        unique index without nulls.
        """
        saved, offered = self._saved, self._offered()
        if saved is None:
            return offered, "", []
        if sorted(self._present(saved)) == sorted(offered):
            return saved, "", []
        old, new = _listed(saved), _listed(offered)
        if self._tells_rows_apart(saved):
            warning = (
                f"{self._table.label}: its key was {old} and is {new} now: rows are stored under "
                "the old one, which the destination has and which still tells them apart"
            )
            return saved, "", [warning]
        fault = (
            f"its key was {old} and is {new} now, and the destination takes no other key for a "
            f"table that has rows. Either make {old} unique and NOT NULL again; or drop the table "
            "at the destination, name it in exclude_tables for one sync, then remove it there: it "
            "is reloaded under its new key"
        )
        return [], fault, []

    def _column(self, name: str) -> Column | None:
        return self._by_name.get(name) or self._by_name.get(name.casefold())

    def _columns(self, names: Iterable[str]) -> tuple[Column, ...]:
        return tuple(column for name in names if (column := self._column(name)))

    def _present(self, saved: Sequence[str]) -> list[str]:
        """The names as they are spelled now; those of columns that do not exist any more stay."""
        return [column.name if (column := self._column(name)) else name for name in saved]

    def _offered(self) -> list[str]:
        """The key that the source has: one that can be read, rather than a smaller one."""
        readable = [i for i in self._unique if not self._obstacles(i)]
        primary = [i for i in self._unique if i.primary]
        best = [*primary, *readable, *self._unique][:1]
        return [column.name for i in best for column in self._columns(i.columns)]

    def _obstacles(self, index: Index) -> list[str]:
        return [why for c in self._columns(index.columns) if (why := self._obstacle(c))]

    def _obstacle(self, column: Column) -> str:
        reason = self._excluded.get(column.name, MASKED if column.masked else "")
        return f"column {column.name} of its key {reason}" if reason else ""

    def _tells_rows_apart(self, saved: Sequence[str]) -> bool:
        if not saved:
            return True  # the destination generates a key
        columns = self._columns(saved)
        names = {column.name for column in columns}
        unique = any({c.name for c in self._columns(i.columns)} <= names for i in self._known)
        if len(columns) < len(saved) or not unique:
            return False
        return not any(column.nullable and self._has_nulls(column) for column in columns)

    def _order(self) -> tuple[Column, ...]:
        orders = sorted(
            (
                i
                for i in self._unique
                if not self._obstacles(i) and all(c.orderable for c in self._columns(i.columns))
            ),
            key=lambda i: (not i.clustered, not i.primary, len(i.columns), i.columns),
        )
        return self._columns(orders[0].columns) if orders else ()


def _listed(columns: Sequence[str]) -> str:
    return f"({', '.join(columns)})" if columns else "none"


def types_of(key: Iterable[Column]) -> list[str]:
    """The types of a key. Types whose values stay the same when one becomes another have one
    name."""
    return [_ALIKE.get(column.info.name, column.info.name) for column in key]
