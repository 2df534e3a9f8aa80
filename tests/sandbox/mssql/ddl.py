"""CREATE, ALTER, DROP and TRUNCATE."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from tests.sandbox.mssql import temporal, types, views
from tests.sandbox.mssql.collation import collation
from tests.sandbox.mssql.compiler import Compiler, Scope, Source
from tests.sandbox.mssql.errors import error, unsupported
from tests.sandbox.mssql.parser import Statement, name_parts, parse, parse_query
from tests.sandbox.mssql.store import ColumnDef, IndexDef, Store, TableDef, ViewDef
from tests.sandbox.mssql.types import SqlType, Stored

if TYPE_CHECKING:
    from tests.sandbox.mssql.session import Session

_NAME = r"((?:\[(?:[^\]]|\]\])+\]|[\w$#]+)(?:\s*\.\s*(?:\[(?:[^\]]|\]\])+\]|[\w$#]+))*)"


def define(session: Session, statement: Statement) -> None:
    """Runs one statement of data definition."""
    text = statement.text.strip()
    for pattern, handler in _PATTERNS:
        match = re.match(pattern, text, re.IGNORECASE | re.DOTALL)
        if match is not None:
            handler(session, match)
            return
    if views.define(session, text):
        return
    node = parse(text)
    if isinstance(node, exp.Create) and node.kind == "TABLE":
        _create_table(session, node)
    elif isinstance(node, exp.Create) and "INDEX" in (node.kind or ""):
        _create_index(session, node)
    elif isinstance(node, exp.Alter) and node.args.get("kind") == "TABLE":
        _alter_table(session, node)
    elif isinstance(node, exp.Drop) and node.args.get("kind") == "TABLE":
        _drop_table(session, node)
    elif isinstance(node, exp.TruncateTable):
        for item in node.expressions:
            session.writable()
            emptied = _table(session, item)
            temporal.refuse(emptied, 13545, session.database.name)
            session.store.truncate(emptied, session.connection)
    else:
        raise unsupported(" ".join(text.split()[:2]))


def _table(session: Session, node: exp.Expression) -> TableDef:
    parts = [part.name for part in node.parts] if isinstance(node, exp.Table) else [node.name]
    return _by_parts(session, parts)


def _by_parts(session: Session, parts: Sequence[str]) -> TableDef:
    schema = parts[-2] if len(parts) > 1 else "dbo"
    found = session.store.find(schema, parts[-1])
    if found is None:
        raise error(4902, ".".join(parts))
    return found


def _autocommit(session: Session) -> None:
    session.writable()


# CREATE TABLE


def _default(session: Session, node: exp.Expression, t: SqlType) -> Callable[[], Stored]:
    def value() -> Stored:
        compiler = Compiler(session)
        return compiler.build.cast(compiler.expr(node, Scope()), t).value

    value()  # an unknown function is an error now
    return value


def computed_type(session: Session, table: TableDef, text: str) -> tuple[SqlType, bool]:
    """(type, nullable) of a computed column's expression."""
    compiler = Compiler(session)
    source = Source(table.name, (), [])
    compiler.fill_columns(source, table, "t")
    found = compiler.expr(parse_query(f"SELECT {text}").expressions[0], Scope([source]))
    return found.type, found.nullable


def column_def(session: Session, number: int, node: exp.ColumnDef) -> tuple[ColumnDef, list[str]]:
    """The column and the kinds of key that stand beside it."""
    keys: list[str] = []
    column = ColumnDef(number, node.name, types.INT)
    declared = node.args.get("kind")
    if declared is not None:
        column.type = types.parse_type(
            str(declared.args.get("kind")), collation=session.database.collation
        )
    if column.type.name == "timestamp":
        column.nullable = False
    for constraint in node.args.get("constraints") or []:
        kind = constraint.args["kind"]
        if isinstance(kind, exp.NotNullColumnConstraint):
            column.nullable = bool(kind.args.get("allow_null"))
        elif isinstance(kind, exp.GeneratedAsIdentityColumnConstraint):
            column.identity, column.nullable = True, False
        elif isinstance(kind, exp.GeneratedAsRowColumnConstraint):
            column.generated = 1 if kind.args.get("start") else 2
            column.hidden = bool(kind.args.get("hidden"))
        elif isinstance(kind, exp.CollateColumnConstraint):
            rules = collation(kind.this.name)
            if rules is None:
                raise error(448, kind.this.name)
            column.type = types.with_collation(column.type, rules.name)
        elif isinstance(kind, exp.DefaultColumnConstraint):
            column.default = _default(session, kind.this, column.type)
        elif isinstance(kind, exp.PrimaryKeyColumnConstraint):
            keys.append("primary")
            column.nullable = False
        elif isinstance(kind, exp.UniqueColumnConstraint):
            keys.append("unique")
        elif isinstance(kind, exp.ComputedColumnConstraint):
            inner = kind.this.this if isinstance(kind.this, exp.Paren) else kind.this
            column.computed = inner.sql(dialect="tsql")
        elif not isinstance(
            kind, (exp.ClusteredColumnConstraint, exp.NonClusteredColumnConstraint)
        ):
            raise unsupported(kind.sql()[:40])
    return column, keys


def _create_table(session: Session, node: exp.Create) -> None:
    schema_node = node.this
    if not isinstance(schema_node, exp.Schema):
        raise unsupported("CREATE TABLE ... AS")
    parts = [part.name for part in schema_node.this.parts]
    if parts[-1].startswith("#"):
        raise unsupported(parts[-1])
    schema = parts[-2] if len(parts) > 1 else "dbo"
    created = session.instance.created()
    table = TableDef(session.store.new_id(), schema, parts[-1], [], created=created)
    pending: list[tuple[str, list[tuple[str, bool]], bool, bool]] = []
    period: exp.Expression | None = None
    for item in schema_node.expressions:
        if isinstance(item, exp.ColumnDef):
            column, keys = column_def(session, len(table.columns) + 1, item)
            table.columns.append(column)
            for key in keys:
                primary = key == "primary"
                prefix = "PK" if primary else "UQ"
                name = f"{prefix}__{table.name[:9]}__{table.id:08X}{column.id:04X}"
                pending.append((name, [(column.name, False)], primary, primary))
        elif isinstance(item, exp.PeriodForSystemTimeConstraint):
            period = item
        else:
            pending.append(_table_constraint(item, table))
    temporal.set_period(table, period)
    _build(session, table, pending)
    for prop in temporal.system_versioning(node):
        temporal.set_versioning(session, table, prop)


def _build(
    session: Session,
    table: TableDef,
    pending: Sequence[tuple[str, list[tuple[str, bool]], bool, bool]],
) -> None:
    for column in table.columns:
        if column.computed is not None:
            stored = TableDef(table.id, table.schema, table.name, table.stored_columns)
            column.type, column.nullable = computed_type(session, stored, column.computed)
    for _, columns, primary, _ in pending:
        for name, _ in columns:
            if primary:
                table.column(name).nullable = False
    session.writable()
    session.store.create_table(table, session.connection)
    for name, columns, primary, clustered in pending:
        add_index(session.store, table, name, columns, primary=primary, clustered=clustered,
                  constraint=True, connection=session.connection)  # fmt: skip


def add_index(
    store: Store,
    table: TableDef,
    name: str,
    columns: list[tuple[str, bool]],
    *,
    unique: bool = True,
    primary: bool = False,
    clustered: bool = False,
    constraint: bool = False,
    connection: object = None,
) -> IndexDef:
    """Adds an index; a second clustered one becomes nonclustered, as PRIMARY KEY does."""
    taken = {index.id for index in table.indexes}
    number = 1 if clustered and 1 not in taken else max([1, *taken]) + 1
    index = IndexDef(
        number,
        name,
        columns,
        unique=unique,
        clustered=number == 1,
        primary=primary,
        constraint=constraint,
        constraint_id=store.new_id() if constraint else 0,
    )
    store.create_index(table, index, connection)  # type: ignore[arg-type]
    return index


def _table_constraint(
    node: exp.Expression, table: TableDef
) -> tuple[str, list[tuple[str, bool]], bool, bool]:
    """(name, columns, primary, clustered) of a key."""
    name, parts = "", [node]
    if isinstance(node, exp.Constraint):
        name, parts = node.name, node.expressions
    primary = any(isinstance(p, (exp.PrimaryKey, exp.PrimaryKeyColumnConstraint)) for p in parts)
    unique = any(isinstance(p, exp.UniqueColumnConstraint) for p in parts)
    if not (primary or unique):
        raise unsupported(node.sql()[:40])
    clustered = primary and not any(p.find(exp.NonClusteredColumnConstraint) for p in parts)
    clustered = clustered or any(p.find(exp.ClusteredColumnConstraint) for p in parts)
    columns: list[tuple[str, bool]] = []
    for part in parts:
        for found in part.find_all(exp.Ordered, exp.Identifier):
            if isinstance(found, exp.Ordered):
                columns.append((found.this.name, bool(found.args.get("desc"))))
            elif not found.find_ancestor(exp.Ordered) and found.name != name:
                columns.append((found.name, False))
    prefix = "PK" if primary else "UQ"
    return name or f"{prefix}__{table.name[:9]}__{table.id:016X}", columns, primary, clustered


def _create_index(session: Session, node: exp.Create) -> None:
    index = node.this
    columns = [
        (item.this.name, bool(item.args.get("desc")))
        for item in index.args["params"].args["columns"]
    ]
    parts = [part.name for part in index.args["table"].parts]
    found = session.store.find_object(parts[-2] if len(parts) > 1 else "dbo", parts[-1])
    if isinstance(found, ViewDef):
        views.create_index(session, found, index.name, columns, unique=bool(node.args["unique"]))
        return
    table = _table(session, index.args["table"])
    clustered = "NONCLUSTERED" not in str(node.kind) and "CLUSTERED" in str(node.kind)
    session.writable()
    add_index(session.store, table, index.name, columns, unique=bool(node.args.get("unique")),
              clustered=clustered, connection=session.connection)  # fmt: skip


def _alter_table(session: Session, node: exp.Alter) -> None:
    table = _table(session, node.this)
    session.writable()
    for action in node.args["actions"]:
        if table.history_of is not None:
            temporal.refuse(table, 13551 if isinstance(action, exp.Drop) else 13550,
                            session.database.name)  # fmt: skip
        if isinstance(action, exp.ColumnDef):
            column, _ = column_def(session, table.next_column_id, action)
            if column.computed is not None:
                column.type, column.nullable = computed_type(session, table, column.computed)
            value = column.default() if column.default and not column.nullable else None
            session.store.add_column(table, column, value, session.connection)
        elif isinstance(action, exp.Drop) and action.args.get("kind") == "COLUMN":
            for item in action.args["tables"]:
                session.store.drop_column(table, item.name, session.connection)
        elif isinstance(action, exp.AddConstraint):
            for item in action.expressions:
                name, columns, primary, clustered = _table_constraint(item, table)
                add_index(session.store, table, name, columns, primary=primary,
                          clustered=clustered, constraint=True,
                          connection=session.connection)  # fmt: skip
        elif versioning := temporal.system_versioning(action):
            temporal.set_versioning(session, table, versioning[0])
        else:
            raise unsupported(action.sql()[:40])


def _drop_table(session: Session, node: exp.Drop) -> None:
    for item in node.args["tables"]:
        parts = [part.name for part in item.parts]
        schema = parts[-2] if len(parts) > 1 else "dbo"
        table = session.store.find(schema, parts[-1])
        if table is None:
            if session.store.find_object(schema, parts[-1]):
                raise error(3705, "TABLE", ".".join(parts), "view", "VIEW")
            if node.args.get("exists"):
                continue
            raise error(3701, "table", ".".join(parts))
        temporal.refuse(table, 13552, session.database.name)
        session.writable()
        session.store.drop_table(table, session.connection)


# Statements that are simple enough for a pattern


def _create_schema(session: Session, match: re.Match[str]) -> None:
    session.store.create_schema(name_parts(match[1])[-1])


def _tracking(session: Session, match: re.Match[str]) -> None:
    table = _by_parts(session, name_parts(match[1]))
    if match[2].upper() == "ENABLE":
        if not session.database.tracking:
            raise error(22116)
        session.store.enable_tracking(table)
    else:
        session.store.disable_tracking(table)


def _alter_database(session: Session, match: re.Match[str]) -> None:
    name = name_parts(match[1])[-1]
    found = session.database if name.upper() == "CURRENT" else session.find_database(name)
    if found is None:
        raise error(911, name)
    option, on = match[2].upper(), match[3].upper() == "ON"
    if option == "ALLOW_SNAPSHOT_ISOLATION":
        found.snapshot = on
    elif option == "READ_COMMITTED_SNAPSHOT":
        found.read_committed_snapshot = on
    else:
        found.tracking = on


def _create_database(session: Session, match: re.Match[str]) -> None:
    name = name_parts(match[1])[-1]
    if session.find_database(name) is not None:
        raise error(1801, name)
    session.instance.add_database(name, session.database.collation)


def _drop_database(session: Session, match: re.Match[str]) -> None:
    name = name_parts(match[1])[-1]
    if session.find_database(name) is None:
        raise error(3701, "database", name)
    session.instance.drop_database(name)


def _permission(session: Session, match: re.Match[str]) -> None:
    parts = name_parts(match[3])
    schema = parts[-2] if len(parts) > 1 else "dbo"
    table = session.store.find_object(schema, parts[-1]) or _by_parts(session, parts)
    change = table.denied.add if match[1].upper() == "DENY" else table.denied.discard
    change(" ".join(match[2].upper().split()))


def _drop_index(session: Session, match: re.Match[str]) -> None:
    table = _by_parts(session, name_parts(match[2]))
    name = name_parts(match[1])[-1].lower()
    index = next((i for i in table.indexes if i.name.lower() == name), None)
    if index is None:
        raise error(3701, "index", match[1])
    _remove_index(session, table, index)


def _remove_index(session: Session, table: TableDef, index: IndexDef) -> None:
    session.writable()
    with session.store.writing(session.connection) as used:
        used.execute(f'DROP INDEX IF EXISTS "i{table.id}_{index.id}"')
    table.indexes.remove(index)
    session.store._schema_changed(table)


def _drop_constraint(session: Session, match: re.Match[str]) -> None:
    table, name = _by_parts(session, name_parts(match[1])), name_parts(match[2])[-1].lower()
    index = next((i for i in table.indexes if i.constraint and i.name.lower() == name), None)
    if index is None:
        raise error(3728, name)
    _remove_index(session, table, index)


def _switch_index(session: Session, match: re.Match[str]) -> None:
    table, name = _by_parts(session, name_parts(match[2])), name_parts(match[1])[-1].lower()
    for index in table.indexes:
        if index.name.lower() == name:
            index.disabled = match[3].upper() == "DISABLE"
            session.store._schema_changed(table)


def _rename(session: Session, match: re.Match[str]) -> None:
    """sp_rename of a table or of a column."""
    parts, new = name_parts(match[1]), match[2]
    store = session.store
    if match[3]:
        table = _by_parts(session, parts[:-1])
        column = table.column(parts[-1])
        if table.captures:
            raise error(4928, column.name, "REPLICATED")
        for index in table.indexes:
            index.columns = [
                (new if table.column(name) is column else name, way) for name, way in index.columns
            ]
        column.name = new
    else:
        table = _by_parts(session, parts)
        del store.tables[store.fold(table.schema), store.fold(table.name)]
        table.name = new
        store.tables[store.fold(table.schema), store.fold(new)] = table
    store._schema_changed(table)


_PATTERNS: tuple[tuple[str, Callable[[Session, re.Match[str]], None]], ...] = (
    (rf"CREATE\s+DATABASE\s+{_NAME}\s*$", _create_database),
    (rf"DROP\s+DATABASE\s+{_NAME}\s*$", _drop_database),
    (rf"CREATE\s+SCHEMA\s+{_NAME}\s*$", _create_schema),
    (rf"ALTER\s+TABLE\s+{_NAME}\s+(ENABLE|DISABLE)\s+CHANGE_TRACKING\b.*$", _tracking),
    (
        (
            rf"ALTER\s+DATABASE\s+{_NAME}\s+SET\s+(ALLOW_SNAPSHOT_ISOLATION|READ_COMMITTED_SNAPSHOT"
            r"|CHANGE_TRACKING)\s*=?\s*(ON|OFF)\b.*$"
        ),
        _alter_database,
    ),
    (rf"(DENY|GRANT)\s+([A-Z ]+?)\s+ON\s+(?:OBJECT\s*::\s*)?{_NAME}\s+TO\s+.+$", _permission),
    (rf"DROP\s+INDEX\s+{_NAME}\s+ON\s+{_NAME}\s*$", _drop_index),
    (rf"ALTER\s+TABLE\s+{_NAME}\s+DROP\s+CONSTRAINT\s+{_NAME}\s*$", _drop_constraint),
    (rf"ALTER\s+INDEX\s+{_NAME}\s+ON\s+{_NAME}\s+(DISABLE|REBUILD)\s*$", _switch_index),
    (r"EXEC\s+sp_rename\s+N?'([^']+)'\s*,\s*N?'([^']+)'(\s*,\s*'COLUMN')?\s*$", _rename),
)
