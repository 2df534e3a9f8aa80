# ruff: noqa: S608 - the text is translated
"""INSERT, UPDATE and DELETE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from tests.sandbox.mssql import temporal
from tests.sandbox.mssql.compiler import Compiler, Scope, Source
from tests.sandbox.mssql.errors import error, unsupported
from tests.sandbox.mssql.expressions import Expr, const
from tests.sandbox.mssql.store import ColumnDef, Row, TableDef

if TYPE_CHECKING:
    from tests.sandbox.mssql.session import Session


def modify(session: Session, node: exp.Expression) -> int:
    """Runs the statement; returns how many rows it changed."""
    session.writable()
    if isinstance(node, exp.Insert):
        return _insert(session, node)
    if isinstance(node, exp.Update):
        return _update(session, node)
    if isinstance(node, exp.Delete):
        return _delete(session, node)
    raise unsupported(node.key.upper())


def find_table(session: Session, node: exp.Expression, permission: str) -> TableDef:
    if not isinstance(node, exp.Table):
        raise unsupported(node.sql()[:40])
    parts = [part.name for part in node.parts]
    schema = parts[-2] if len(parts) > 1 else "dbo"
    found = session.store.find(schema, parts[-1])
    if found is None:
        if session.store.find_object(schema, parts[-1]):
            raise unsupported("a view that is written to")
        raise error(208, ".".join(parts))
    temporal.refuse_write(found, session.database.name, permission)
    Compiler(session).check_permission(found, permission)
    return found


def _insert(session: Session, node: exp.Insert) -> int:
    target = node.this
    names: list[str] = []
    if isinstance(target, exp.Schema):
        names = [item.name for item in target.expressions]
        target = target.this
    table = find_table(session, target, "INSERT")
    allowed = session.identity_insert == table.name.lower()
    if names:
        columns = [table.column(name) for name in names]
    else:
        given = [c for c in table.columns if c.writable or (c.generated and not c.hidden)]
        columns = [column for column in given if allowed or not column.identity]
    for column in columns:
        if column.computed is not None:
            raise error(271, column.name)
        if column.identity and not allowed:
            raise error(544, table.name)
        if column.type.name == "timestamp":
            raise error(273)
    moment = session.store.moment(session.connection)
    rows = [
        session.store.complete_row(table, dict(given), moment)
        for given in _inserted(session, node, columns)
    ]
    return session.store.insert(table, rows, session.connection)


def _inserted(
    session: Session, node: exp.Insert, columns: Sequence[ColumnDef]
) -> list[list[tuple[str, object]]]:
    """(lower-case name, stored value) pairs of each new row; DEFAULT leaves its column out."""
    source = node.expression
    compiler = Compiler(session)
    if node.args.get("default"):
        return [[]]
    if isinstance(source, exp.Values):
        rows = []
        for item in source.expressions:
            cells = item.expressions if isinstance(item, exp.Tuple) else [item.this]
            if len(cells) != len(columns):
                raise error(213)
            given = []
            for column, cell in zip(columns, cells, strict=True):
                if isinstance(cell, (exp.Column, exp.Var)) and cell.name.upper() == "DEFAULT":
                    continue
                cast = compiler.build.cast(compiler.expr(cell, Scope()), column.type)
                if not cast.constant:
                    result = session.open(compiler, compiler.query(exp.select(cell.copy())))
                    cast = _constant_of(compiler, result.columns[0].type, next(result.rows)[0])
                    cast = compiler.build.cast(cast, column.type)
                given.append((column.name.lower(), cast.value))
            rows.append(given)
        return rows
    query = compiler.query(source)
    if len(query.columns) != len(columns):
        raise error(213)
    result = session.open(compiler, query)
    from tests.sandbox.mssql.convert import convert

    kinds = list(zip(columns, result.columns, strict=True))
    return [
        [
            (column.name.lower(), convert(value, made.type, column.type))
            for (column, made), value in zip(kinds, row, strict=True)
        ]
        for row in result.rows
    ]


def _constant_of(compiler: Compiler, t: object, value: object) -> Expr:
    from tests.sandbox.mssql.types import SqlType

    assert isinstance(t, SqlType)
    return const(value, t)


def _matching(
    session: Session,
    compiler: Compiler,
    table: TableDef,
    node: exp.Expression,
    values: Sequence[Expr],
) -> list[Row]:
    """(rowid, values) of the rows that WHERE selects."""
    parts = [f"{table.sql}.rowid", *(value.sql.text for value in values)]
    args = tuple(arg for value in values for arg in value.sql.args)
    text = f"SELECT {', '.join(parts)} FROM main.{table.sql}"
    where = node.args.get("where")
    if where is not None:
        condition = compiler._where(where.this, _scope(compiler, table, node))
        text, args = f"{text} WHERE {condition.text}", args + condition.args
    return session.execute(compiler, text, args).fetchall()


def _scope(compiler: Compiler, table: TableDef, node: exp.Expression) -> Scope:
    source = Source(node.this.alias or table.name, (table.schema, table.name), [])
    compiler.fill_columns(source, table, table.sql)
    return Scope([source])


def _update(session: Session, node: exp.Update) -> int:
    if node.args.get("from_"):
        raise unsupported("UPDATE ... FROM")
    table = find_table(session, node.this, "UPDATE")
    compiler = Compiler(session)
    scope = _scope(compiler, table, node)
    columns, values = [], []
    for item in node.expressions:
        column = table.column(item.this.name)
        if column.generated:
            raise error(13537, f"{session.database.name}.{table.full_name}")
        if not column.writable:
            raise error(271, column.name)
        if column.identity:
            raise error(8102, column.name)
        columns.append(column)
        values.append(compiler.build.cast(compiler.expr(item.expression, scope), column.type))
    found = _matching(session, compiler, table, node, values)
    changes = [(row[0], row[1:]) for row in found]
    return session.store.update(table, columns, changes, session.connection)


def _delete(session: Session, node: exp.Delete) -> int:
    if node.args.get("using"):
        raise unsupported("DELETE ... FROM")
    table = find_table(session, node.this, "DELETE")
    compiler = Compiler(session)
    rowids = [row[0] for row in _matching(session, compiler, table, node, [])]
    return session.store.delete(table, rowids, session.connection)
