# ruff: noqa: S608 - SQL is what this module makes
"""T-SQL queries to SQLite queries: names, types, comparisons as the server makes them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from sqlglot import exp

from tests.sandbox.mssql import catalogue, cdc, functions, types
from tests.sandbox.mssql.capture import VISIBLE
from tests.sandbox.mssql.collation import collation, sqlite_name
from tests.sandbox.mssql.errors import SqlError, error, unsupported
from tests.sandbox.mssql.expressions import (
    NULL,
    Builder,
    Expr,
    Sql,
    common_type,
    const,
    join,
    same_storage,
)
from tests.sandbox.mssql.parser import name_parts
from tests.sandbox.mssql.store import Store, TableDef, ViewDef, order_sql
from tests.sandbox.mssql.types import BIGINT, FLOAT, INT, SqlType, Stored, nvarchar, varchar
from tests.sandbox.mssql.wire import Column, Parameter


class Environment(Protocol):
    """What a statement sees of its session and server."""

    store: Store
    database: catalogue.DatabaseInfo
    user: str
    host: str
    application: str
    version: str
    spid: int
    transaction_count: int
    last_count: int
    lock_timeout: int
    variables: dict[str, Parameter]
    privileged: bool

    @property
    def databases(self) -> list[catalogue.DatabaseInfo]: ...

    @property
    def refused_views(self) -> dict[str, list[Exception]]: ...

    def clock(self) -> tuple[int, int]:
        """(UTC ticks, minutes that the server's local clock is ahead of UTC)."""
        ...

    def find_database(self, name: str) -> catalogue.DatabaseInfo | None: ...


@dataclass
class Source:
    """One entry of FROM: its name, where it comes from, and its columns."""

    alias: str
    qualifier: tuple[str, ...]
    columns: list[tuple[str, Expr]]
    refused: dict[str, SqlError] = field(default_factory=dict)  # by column
    hidden: frozenset[str] = frozenset()  # columns that are not in SELECT *


@dataclass
class Scope:
    """The names that an expression may use, and those of the queries around it."""

    sources: list[Source] = field(default_factory=list)
    parent: Scope | None = None
    ctes: dict[str, Query] = field(default_factory=dict)
    aggregates: bool = True

    def cte(self, name: str) -> Query | None:
        scope: Scope | None = self
        while scope is not None:
            if name.lower() in scope.ctes:
                return scope.ctes[name.lower()]
            scope = scope.parent
        return None


@dataclass
class Query:
    """A translated query and the description of its result."""

    sql: Sql
    columns: list[Column]


_COMPARISONS: dict[type[exp.Expression], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=",
}  # fmt: skip
_ARITHMETIC: dict[type[exp.Expression], str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%",
}  # fmt: skip
_WINDOW_ONLY = {"ROW_NUMBER", "RANK", "DENSE_RANK", "LAG", "LEAD"}
_INTERNAL_GRAPH_TYPES = (1, 3, 4, 6, 7)


def _encrypted(text: str) -> bytes:
    """Bytes as Always Encrypted sends them: a version, and what cannot be read."""
    return b"\x01" + text.encode("utf-16-le")[::-1]


class Compiler:
    """Translates one statement. Afterwards `build.functions` and `tables` belong to it."""

    def __init__(self, env: Environment) -> None:
        self.env: Environment = env
        self.build = Builder()
        self.tables: list[TableDef] = []
        self.views: set[str] = set()
        self._aliases = 0
        self._within: list[ViewDef] = []  # the views whose definitions are being translated
        self.checks: list[Sql] = []  # expressions that raise what is wrong with an argument
        self.captured = False  # whether it asks for Change Data Capture

    # Queries

    def query(self, node: exp.Expression, parent: Scope | None = None) -> Query:
        """A SELECT, a UNION, or one of them in parentheses."""
        if isinstance(node, exp.Subquery):
            return self.query(node.this, parent)
        scope = Scope(parent=parent)
        if with_ := node.args.get("with_"):
            for cte in with_.expressions:
                inner = self.query(cte.this, scope)
                names = [column.name for column in (cte.args["alias"].args.get("columns") or [])]
                if names:
                    inner.columns = [
                        replace(column, name=name)
                        for column, name in zip(inner.columns, names, strict=True)
                    ]
                scope.ctes[cte.alias.lower()] = inner
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, scope)
        if isinstance(node, exp.Select):
            return self._select(node, scope)
        if isinstance(node, exp.Values):
            return self._values(node, scope)
        raise unsupported(node.key.upper())

    def _set_operation(self, node: exp.SetOperation, scope: Scope) -> Query:
        first, *others = [self.query(side, scope) for side in _sides(node)]
        columns = first.columns
        for other in others:
            if len(columns) != len(other.columns):
                raise error(205)
            columns = [
                Column(a.name, common_type(a.type, b.type), a.nullable or b.nullable)
                for a, b in zip(columns, other.columns, strict=True)
            ]
        word = {exp.Union: "UNION", exp.Except: "EXCEPT", exp.Intersect: "INTERSECT"}[type(node)]
        if _is_union_all(node):
            word = "UNION ALL"
        sql = join(f" {word} ", [self._converted(side, columns) for side in (first, *others)])
        order = self._order_by_output(node, columns)
        limits = self._limits(node, scope)
        return Query(join(" ", [sql, *order, *limits]), columns)

    def _converted(self, side: Query, columns: Sequence[Column]) -> Sql:
        """A side of a UNION with its columns in the types of the result."""
        parts = []
        for i, (column, target) in enumerate(zip(side.columns, columns, strict=True)):
            inner = Expr(Sql(f'"c{i}"'), column.type)
            cast = (
                inner
                if same_storage(column.type, target.type)
                else self.build.cast(inner, target.type)
            )
            text = (
                order_sql(cast.sql.text, target.type)
                if target.type.family == "str"
                else (cast.sql.text)
            )
            parts.append(f'{text} AS "c{i}"')
        return Sql(f"SELECT {', '.join(parts)} FROM ({side.sql.text})", side.sql.args)

    def _order_by_output(self, node: exp.Expression, columns: Sequence[Column]) -> list[Sql]:
        order = node.args.get("order")
        if not order:
            return []
        parts = []
        for item in order.expressions:
            place = self._output_place(item.this, columns)
            if place is None:
                raise error(104)
            t = columns[place].type
            part = order_sql(f'"c{place}"', t) if t.family != "dto" else f'"c{place}"'
            parts.append(part + (" DESC" if item.args.get("desc") else ""))
        return [Sql("ORDER BY " + ", ".join(parts))]

    @staticmethod
    def _output_place(node: exp.Expression, columns: Sequence[Column]) -> int | None:
        """Which output column an ORDER BY item means, by number or by name."""
        if isinstance(node, exp.Literal) and not node.is_string:
            place = int(node.this)
            if not 1 <= place <= len(columns):
                raise error(108, place)
            return place - 1
        if isinstance(node, exp.Column) and not node.table:
            for i, column in enumerate(columns):
                if column.name.lower() == node.name.lower():
                    return i
        return None

    def _values(self, node: exp.Values, scope: Scope) -> Query:
        rows = [[self.expr(item, scope) for item in row.expressions] for row in node.expressions]
        columns, unified = [], []
        for i in range(len(rows[0])):
            operands, t = self.build.unify([row[i] for row in rows])
            unified.append(operands)
            columns.append(Column(f"c{i}", t))
        selects = []
        for r in range(len(rows)):
            cells = [
                Sql(f'{operands[r].sql.text} AS "c{i}"', operands[r].sql.args)
                for i, operands in enumerate(unified)
            ]
            inner = join(", ", cells)
            selects.append(Sql(f"SELECT {inner.text}", inner.args))
        return Query(join(" UNION ALL ", selects), columns)

    def _select(self, node: exp.Select, scope: Scope) -> Query:
        clauses: list[Sql] = []
        if from_ := node.args.get("from_"):
            clauses.append(self._from(from_.this, node.args.get("joins") or [], scope))
        elif node.args.get("joins"):
            raise unsupported("JOIN without FROM")
        where = node.args.get("where")
        if where:
            clauses.append(self._prefixed("WHERE", self._where(where.this, scope)))
        outputs = self._projections(node, scope)
        if group := node.args.get("group"):
            keys = [self.expr(item, scope) for item in group.expressions]
            parts = [Sql(order_sql(k.sql.text, k.type), k.sql.args) for k in keys]
            clauses.append(self._prefixed("GROUP BY", join(", ", parts)))
        if having := node.args.get("having"):
            clauses.append(self._prefixed("HAVING", self.condition(having.this, scope)))
        columns = [
            Column(
                name,
                e.type,
                e.nullable,
                identity=e.identity,
                computed=e.computed,
            )
            for name, e in outputs
        ]
        distinct = bool(node.args.get("distinct"))
        clauses += self._order(node, scope, outputs, columns, distinct)
        clauses += self._limits(node, scope)
        cells = []
        for i, (_, e) in enumerate(outputs):
            text = e.sql.text
            if distinct and e.type.family == "str":
                text = order_sql(text, e.type)
            cells.append(Sql(f'{text} AS "c{i}"', e.sql.args))
        head = join(", ", cells)
        start = Sql(f"SELECT {'DISTINCT ' if distinct else ''}{head.text}", head.args)
        return Query(join(" ", [start, *clauses]), columns)

    @staticmethod
    def _prefixed(word: str, sql: Sql) -> Sql:
        return Sql(f"{word} {sql.text}", sql.args)

    def _projections(self, node: exp.Select, scope: Scope) -> list[tuple[str, Expr]]:
        outputs: list[tuple[str, Expr]] = []
        for item in node.expressions:
            if isinstance(item, exp.Star) or (
                isinstance(item, exp.Column) and isinstance(item.this, exp.Star)
            ):
                outputs += self._star(item, scope)
                continue
            name = ""
            if isinstance(item, exp.Alias):
                name, item = item.alias, item.this
            elif isinstance(item, exp.Column):
                name = item.name
            e = self.expr(item, scope)
            outputs.append((name, e))
        return outputs

    def _star(self, item: exp.Expression, scope: Scope) -> list[tuple[str, Expr]]:
        wanted = item.table.lower() if isinstance(item, exp.Column) else ""
        found = [
            column
            for source in scope.sources
            if not wanted or source.alias.lower() == wanted
            for column in source.columns
            if column[0] not in source.hidden
        ]
        if not found:
            raise error(4104, f"{wanted}.*") if wanted else error(263)
        return found

    def _order(
        self,
        node: exp.Select,
        scope: Scope,
        outputs: Sequence[tuple[str, Expr]],
        columns: Sequence[Column],
        distinct: bool,
    ) -> list[Sql]:
        order = node.args.get("order")
        if not order:
            return []
        parts = []
        for item in order.expressions:
            place = self._output_place(item.this, columns)
            if place is not None:
                e = outputs[place][1]
            elif distinct:
                raise error(145)
            else:
                e = self.expr(item.this, scope)
            if e.constant:
                continue  # ORDER BY (SELECT NULL) and the like
            if e.type.name in ("xml", "json", "text", "ntext", "image", "geometry", "geography"):
                raise error(305, e.type.name)
            text = order_sql(e.sql.text, e.type)
            parts.append(Sql(text + (" DESC" if item.args.get("desc") else ""), e.sql.args))
        return [self._prefixed("ORDER BY", join(", ", parts))] if parts else []

    def _limits(self, node: exp.Expression, scope: Scope) -> list[Sql]:
        """TOP, and OFFSET with FETCH."""
        limit, offset = node.args.get("limit"), node.args.get("offset")
        if limit is None and offset is None:
            return []
        count: Expr | None = None
        if isinstance(limit, exp.Fetch):
            options = limit.args.get("limit_options")
            if options is not None and (
                options.args.get("percent") or options.args.get("with_ties")
            ):
                raise unsupported("FETCH with PERCENT or TIES")
            count = self.expr(limit.args["count"], scope)
        elif limit is not None:
            count = self.expr(limit.expression, scope)
        if offset is not None and not node.args.get("order"):
            raise error(102, "OFFSET")
        top = self.build.cast(count, BIGINT).sql if count is not None else Sql("-1")
        if offset is None:
            return [self._prefixed("LIMIT", top)]
        skip = self.build.cast(self.expr(offset.expression, scope), BIGINT).sql
        return [self._prefixed("LIMIT", top), self._prefixed("OFFSET", skip)]

    # FROM

    def _from(self, first: exp.Expression, joins: Sequence[exp.Join], scope: Scope) -> Sql:
        nested = first.args.get("joins") or []
        parts = [self._source(first, scope)]
        for item in [*nested, *joins]:
            side, kind = (item.side or "").upper(), (item.kind or "").upper()
            if isinstance(item.this, exp.Lateral):
                parts.append(self._prefixed("CROSS JOIN", self._apply(item.this, scope)))
                continue
            right = self._source(item.this, scope)
            if side in ("RIGHT", "FULL"):
                raise unsupported(f"{side} JOIN")
            word = "LEFT JOIN" if side == "LEFT" else "CROSS JOIN"
            if side == "LEFT":
                scope.sources[-1].columns = [
                    (name, replace(e, nullable=True)) for name, e in scope.sources[-1].columns
                ]
            elif kind not in ("", "INNER", "CROSS", "OUTER"):
                raise unsupported(f"{kind} JOIN")
            on = item.args.get("on")
            if on is not None:
                word = word.replace("CROSS ", "INNER ")
                condition = self.condition(on, scope)
                right = Sql(f"{right.text} ON {condition.text}", right.args + condition.args)
            parts.append(self._prefixed(word, right))
        return self._prefixed("FROM", join(" ", parts))

    def _alias(self) -> str:
        self._aliases += 1
        return f"s{self._aliases}"

    def _source(self, node: exp.Expression, scope: Scope) -> Sql:
        """One table, view, derived table or function; adds it to the scope."""
        if isinstance(node, (exp.Subquery, exp.Values)):
            inner = self.query(node.this if isinstance(node, exp.Subquery) else node, scope.parent)
            if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Select):
                inner = self.query(node.this, Scope(parent=scope.parent, ctes=scope.ctes))
            names = (
                [c.name for c in (node.args["alias"].args.get("columns") or [])]
                if (node.args.get("alias"))
                else []
            )
            return self._derived(inner, node.alias, names, scope)
        if not isinstance(node, exp.Table):
            raise unsupported(node.key.upper())
        if isinstance(node.this, exp.Anonymous):
            return self._table_function(node, scope)
        parts = [part.name for part in node.parts]
        if len(parts) == 1 and (cte := scope.cte(parts[0])):
            return self._derived(cte, node.alias or parts[0], [], scope)
        return self._table(parts, node.alias, scope)

    def _derived(self, inner: Query, alias: str, names: Sequence[str], scope: Scope) -> Sql:
        internal = self._alias()
        columns = []
        for i, column in enumerate(inner.columns):
            name = names[i] if names else column.name
            e = Expr(Sql(f'{internal}."c{i}"'), column.type, column.nullable)
            columns.append((name, e))
        scope.sources.append(Source(alias, (), columns))
        return Sql(f"({inner.sql.text}) AS {internal}", inner.sql.args)

    def _apply(self, node: exp.Lateral, scope: Scope) -> Sql:
        """CROSS APPLY (VALUES ...): a numbered row for each tuple, whose cells are CASEs."""
        inner = node.this.this if isinstance(node.this, exp.Subquery) else node.this
        named = node.args.get("alias")
        names = [c.name for c in (named.args.get("columns") or [])] if named else []
        if node.args.get("cross_apply") is None or not isinstance(inner, exp.Values):
            raise unsupported("APPLY of a query")
        rows = [[self.expr(cell, scope) for cell in row.expressions] for row in inner.expressions]
        if not names or any(len(row) != len(names) for row in rows):
            raise unsupported("VALUES with other columns than its alias")
        internal = self._alias()
        columns = []
        for place, name in enumerate(names):
            operands, t = self.build.unify([row[place] for row in rows])
            cases = [
                Sql(f"WHEN {number} THEN {operand.sql.text}", operand.sql.args)
                for number, operand in enumerate(operands)
            ]
            chosen = join(" ", [Sql(f"(CASE {internal}.n"), *cases, Sql("END)")])
            columns.append((name, Expr(chosen, t)))
        scope.sources.append(Source(node.alias, (), columns))
        numbers = " UNION ALL ".join(f"SELECT {number} AS n" for number in range(len(rows)))
        return Sql(f"({numbers}) AS {internal}")

    def _table(self, parts: Sequence[str], alias: str, scope: Scope) -> Sql:
        full = ".".join(part for part in parts if part)
        if len(parts) > 3:
            raise error(7202, parts[0])
        if len(parts) == 3:
            database = self.env.find_database(parts[0])
            if database is None or database.name != self.env.database.name:
                raise error(208, full)
        name = parts[-1]
        schema = parts[-2] if len(parts) > 1 and parts[-2] else self._default_schema(name)
        key = f"{schema}.{name}".lower()
        if schema.lower() in ("sys", "information_schema"):
            return self._view(key, full, name, alias, scope)
        table = self.env.store.find_object(schema, name)
        if table is None:
            raise error(208, full)
        self.check_permission(table, "SELECT")
        self.tables.append(table)
        if schema.lower() == "cdc":
            self.captured = True
            if key in catalogue.VIEWS:
                return self._view(key, full, name, alias, scope)
        if isinstance(table, ViewDef):
            return self._user_view(table, alias or name, scope)
        internal = self._alias()
        source = Source(alias or name, (schema, name), [])
        scope.sources.append(source)
        self.fill_columns(source, table, internal)
        if table.holds_changes:
            return Sql(f"(SELECT * FROM main.{table.sql} WHERE c1 <= {VISIBLE}) AS {internal}")
        return Sql(f"main.{table.sql} AS {internal}")

    def _default_schema(self, name: str) -> str:
        """The schema of a name that tells none: in a view that of the view, then dbo."""
        own = self._within[-1].schema if self._within else "dbo"
        return own if self.env.store.find_object(own, name) else "dbo"

    def _user_view(self, view: ViewDef, alias: str, scope: Scope) -> Sql:
        """A view as a derived table, bound anew: what no longer binds is an error of its own."""
        if view.failing:
            raise error(view.failing, "linked", view.full_name)
        if len(self._within) >= 32:
            raise error(217)
        try:
            inner = self.bind_view(view)
        except (SqlError, ErrorList) as problem:
            found = problem.problems if isinstance(problem, ErrorList) else [problem]
            if any(isinstance(one, SqlError) and one.number == 102 for one in found):
                raise  # it is this simulator that does not understand it
            raise ErrorList([*found, error(4413, view.full_name)]) from None
        sql = self._derived(inner, alias, [column.name for column in view.columns], scope)
        if not self.env.privileged and not self._within:
            scope.sources[-1].qualifier = (view.schema, view.name)
            self._refuse_columns(scope.sources[-1], view)
        return sql

    def bind_view(self, view: ViewDef) -> Query:
        """The view's query, as wide as its columns were when it was made."""
        from tests.sandbox.mssql.parser import parse_query

        self._within.append(view)
        try:
            inner = self.query(parse_query(view.query))
        finally:
            self._within.pop()
        if not view.columns:  # it is being made
            return inner
        if len(inner.columns) < len(view.columns):
            raise error(4502, view.full_name)
        kept = inner.columns[: len(view.columns)]
        if not view.names and [c.name for c in kept] != [c.name for c in view.columns]:
            raise unsupported(f"{view.full_name}: columns in another order than when it was made")
        return Query(inner.sql, kept)

    def _refuse_columns(self, source: Source, table: TableDef) -> None:
        for column in table.columns:
            if column.denied:
                where = (table.name, self.env.database.name, table.schema)
                source.refused[column.name] = error(230, "SELECT", column.name, *where)

    def fill_columns(self, source: Source, table: TableDef, internal: str) -> None:
        """The table's columns; a computed one is its expression."""
        source.hidden = frozenset(column.name for column in table.columns if column.hidden)
        for column in table.columns:
            if column.computed is None:
                sql = Sql(f"{internal}.{column.sql}")
                e = Expr(sql, column.type, column.nullable, identity=column.identity)
                source.columns.append((column.name, e))
        stored = Scope([Source(source.alias, source.qualifier, list(source.columns))])
        ordered = []
        by_name = dict(source.columns)
        for column in table.columns:
            if column.computed is not None:
                from tests.sandbox.mssql.parser import parse

                tree = parse(f"SELECT {column.computed}")
                e = self.expr(tree.expressions[0], stored)
                ordered.append(
                    (column.name, replace(self.build.cast(e, column.type), computed=True))
                )
            else:
                ordered.append((column.name, by_name[column.name]))
        source.columns[:] = ordered
        if not self.env.privileged:
            self._restrict(source, table)

    def _restrict(self, source: Source, table: TableDef) -> None:
        """What a login without further rights gets of masked, encrypted and refused columns."""
        for place, column in enumerate(table.columns):
            name, e = source.columns[place]
            if column.masked and not self.env.database.unmask:
                mask = const(types.default_mask(column.type), column.type)
                source.columns[place] = (name, mask)
            elif column.encrypted:
                cipher = SqlType("varbinary", length=8000)
                hidden = self.build.apply(_encrypted, cipher, self.build.cast(e, nvarchar(-1)))
                source.columns[place] = (name, hidden)
            if column.graph in _INTERNAL_GRAPH_TYPES:
                source.refused[name] = error(13908, column.name)
        if not self._within:  # else the rights on the view decide
            self._refuse_columns(source, table)

    def check_permission(self, table: TableDef, permission: str) -> None:
        if permission in table.denied and not (self.env.privileged or self._within):
            raise error(229, permission, table.name, self.env.database.name, table.schema, state=5)

    def _view(self, key: str, full: str, name: str, alias: str, scope: Scope) -> Sql:
        view = catalogue.VIEWS.get(key)
        if view is None:
            raise error(208, full)
        if problems := self.env.refused_views.get(key):
            raise problems[0] if len(problems) == 1 else ErrorList(problems)
        self.views.add(key)
        internal = self._alias()
        rules = self.env.database.collation
        kinds = [types.with_collation(column.type, rules) for column in view.columns]
        columns = [
            (column.name, Expr(Sql(f'{internal}."c{i}"'), kinds[i], column.nullable))
            for i, column in enumerate(view.columns)
        ]
        scope.sources.append(Source(alias or name, tuple(key.split(".")), columns))
        return Sql(f'temp."{key}" AS {internal}')

    def _table_function(self, node: exp.Table, scope: Scope) -> Sql:
        call = node.this
        if node.db.lower() == "cdc":
            return cdc.changes(self, node, scope)
        if call.name.upper() != "CHANGETABLE" or len(call.expressions) != 2:
            raise error(208, call.name)
        parts = name_parts(str(self.constant(call.expressions[0], scope)))
        schema = parts[-2] if len(parts) > 1 else "dbo"
        table = self.env.store.table(schema, parts[-1])
        if not table.tracked:
            raise error(22105, table.full_name)
        self.check_permission(table, "VIEW CHANGE TRACKING")
        since = self.build.cast(self.expr(call.expressions[1], scope), BIGINT)
        self.tables.append(table)
        return self._changes(table, since, node.alias, scope)

    def _changes(self, table: TableDef, since: Expr, alias: str, scope: Scope) -> Sql:
        """CHANGETABLE(CHANGES ...): the net change of each key since a version."""
        self.check_permission(table, "VIEW CHANGE TRACKING")
        internal = self._alias()
        key = table.primary_key
        assert key is not None
        keys = [table.column(name) for name, _ in key.columns]
        names = [f"k{i}" for i in range(len(keys))]
        grouped = ", ".join(
            order_sql(name, column.type) for name, column in zip(names, keys, strict=True)
        )
        picked = ", ".join(names)
        inner = (
            f"SELECT max(v) AS v, CASE WHEN max(v * 2 + (op = 'D')) % 2 = 1 THEN 'D' "
            f"WHEN max(op = 'I') THEN 'I' ELSE 'U' END AS op, "
            f"max(CASE WHEN op = 'I' THEN v END) AS created, {picked} "
            f'FROM "ct{table.id}" WHERE v > coalesce(?, -1) GROUP BY {grouped}'
        )
        columns = [
            ("SYS_CHANGE_VERSION", Expr(Sql(f"{internal}.v"), BIGINT)),
            ("SYS_CHANGE_CREATION_VERSION", Expr(Sql(f"{internal}.created"), BIGINT)),
            (
                "SYS_CHANGE_OPERATION",
                Expr(
                    Sql(f"{internal}.op"),
                    SqlType("nchar", 1, collation=self.env.database.collation),
                ),
            ),
            ("SYS_CHANGE_COLUMNS", Expr(Sql("NULL"), SqlType("varbinary", length=4100))),
            ("SYS_CHANGE_CONTEXT", Expr(Sql("NULL"), SqlType("varbinary", length=128))),
        ]
        for name, column in zip(names, keys, strict=True):
            columns.append((column.name, Expr(Sql(f"{internal}.{name}"), column.type, False)))
        scope.sources.append(Source(alias, (), columns))
        return Sql(f"({inner}) AS {internal}", (since.value,))

    # Conditions

    def _where(self, node: exp.Expression, scope: Scope) -> Sql:
        """A WHERE condition. A keyset predicate gets the lower bound that its OR implies,

        as the server's optimiser finds it, so that an index is sought and its order kept.
        """
        parts = []
        for term in _flatten(node, exp.And):
            bound = _implied_bound(term)
            condition = self.condition(term, scope)
            if bound is not None:
                parts.append(self.condition(bound, scope))
                condition = Sql(f"+({condition.text})", condition.args)
            parts.append(condition)
        return join(" AND ", parts)

    def condition(self, node: exp.Expression, scope: Scope) -> Sql:
        if node.args.get("negate"):  # NOT LIKE, NOT IN, NOT BETWEEN
            plain = node.copy()
            plain.set("negate", False)
            inner = self.condition(plain, scope)
            return Sql(f"NOT ({inner.text})", inner.args)
        if isinstance(node, exp.Paren):
            inner = self.condition(node.this, scope)
            return Sql(f"({inner.text})", inner.args)
        if isinstance(node, (exp.And, exp.Or)):
            word = " AND " if isinstance(node, exp.And) else " OR "
            sides = join(word, [self.condition(s, scope) for s in (node.this, node.expression)])
            return Sql(f"({sides.text})", sides.args)
        if isinstance(node, exp.Not):
            inner = self.condition(node.this, scope)
            return Sql(f"NOT ({inner.text})", inner.args)
        if type(node) in _COMPARISONS:
            left, right = self.expr(node.this, scope), self.expr(node.expression, scope)
            found = self.build.compare(left, _COMPARISONS[type(node)], right)
            return Sql(f"({found.text})", found.args)
        handler = self._CONDITIONS.get(type(node))
        if handler is None:
            raise unsupported(node.sql()[:60])
        return handler(self, node, scope)

    def _is(self, node: exp.Expression, scope: Scope) -> Sql:
        if not isinstance(node.expression, exp.Null):
            raise unsupported("IS")
        operand = self.expr(node.this, scope)
        return Sql(f"({operand.sql.text} IS NULL)", operand.sql.args)

    def _in(self, node: exp.Expression, scope: Scope) -> Sql:
        operand = self.expr(node.this, scope)
        subquery = node.args.get("query")
        if subquery is None:
            choices = [
                self.build.compare(operand, "=", self.expr(item, scope))
                for item in node.expressions
            ]
            return _one_of(choices)
        inner = self.query(subquery, scope)
        if len(inner.columns) != 1:
            raise error(116)
        candidate = Expr(Sql('"c0"'), inner.columns[0].type)
        matching = self.build.compare(operand, "=", candidate)
        if not matching.text.endswith('"c0"') and "COLLATE" not in matching.text:
            raise unsupported("IN over different types")
        text = order_sql(operand.sql.text, operand.type)
        return Sql(f"({text} IN ({inner.sql.text}))", operand.sql.args + inner.sql.args)

    def _between(self, node: exp.Expression, scope: Scope) -> Sql:
        operand = self.expr(node.this, scope)
        low = self.build.compare(operand, ">=", self.expr(node.args["low"], scope))
        high = self.build.compare(operand, "<=", self.expr(node.args["high"], scope))
        both = join(" AND ", [low, high])
        return Sql(f"({both.text})", both.args)

    def _exists(self, node: exp.Expression, scope: Scope) -> Sql:
        inner = self.query(node.this, scope)
        return Sql(f"EXISTS ({inner.sql.text})", inner.sql.args)

    def _like(self, node: exp.Expression, scope: Scope) -> Sql:
        escape = ""
        if isinstance(node, exp.Escape):
            escape, node = str(self.constant(node.expression, scope)), node.this
            if node.args.get("negate"):
                raise unsupported("NOT LIKE ... ESCAPE")
        text = self.expr(node.this, scope)
        pattern = self.build.cast(self.expr(node.expression, scope), nvarchar(-1))
        if text.type.family != "str":
            text = self.build.cast(text, nvarchar(-1))
        rules = collation(text.type.collation)
        ignore_case = rules is None or rules.ignore_case

        def run(value: str, wanted: str) -> int:
            return int(bool(functions.like_pattern(wanted, escape, ignore_case).fullmatch(value)))

        found = self.build.apply(run, INT, text, pattern)
        return Sql(f"({found.sql.text} = 1)", found.sql.args)

    _CONDITIONS: ClassVar[
        dict[type[exp.Expression], Callable[[Any, exp.Expression, Scope], Sql]]
    ] = {
        exp.Is: _is,
        exp.In: _in,
        exp.Between: _between,
        exp.Exists: _exists,
        exp.Like: _like,
        exp.Escape: _like,
    }

    # Expressions

    def constant(self, node: exp.Expression, scope: Scope) -> Stored:
        """The value of an expression that must be constant."""
        found = self.expr(node, scope)
        if not found.constant:
            raise unsupported(node.sql()[:60])
        return found.value

    def expr(self, node: exp.Expression, scope: Scope) -> Expr:
        handler = self._EXPRESSIONS.get(type(node))
        if handler is not None:
            return handler(self, node, scope)
        if type(node) in _ARITHMETIC:
            sides = self.expr(node.this, scope), self.expr(node.expression, scope)
            return self.build.arithmetic(_ARITHMETIC[type(node)], *sides)
        raise unsupported(node.sql()[:60])

    def _literal(self, node: exp.Expression, scope: Scope) -> Expr:
        text = node.this
        if node.is_string:
            return const(text, varchar(max(len(text), 1), self.env.database.collation))
        if "e" in text.lower():
            return const(float(text), FLOAT)
        if "." in text:
            whole, _, fraction = text.partition(".")
            digits = len(whole.lstrip("0")) + len(fraction)
            t = types.decimal_type(max(digits, len(fraction), 1), len(fraction))
            return const(types.decimal_store(int((whole + fraction) or "0"), t), t)
        number = int(text)
        if number < 2**31:
            return const(number, INT)
        t = types.decimal_type(len(text), 0)
        return const(types.decimal_store(number, t), t)

    def _national(self, node: exp.Expression, scope: Scope) -> Expr:
        text = str(node.this)
        return const(text, nvarchar(max(len(text), 1), self.env.database.collation))

    def _hex(self, node: exp.Expression, scope: Scope) -> Expr:
        digits = node.this if len(node.this) % 2 == 0 else "0" + node.this
        raw = bytes.fromhex(digits)
        return const(raw, SqlType("varbinary", length=max(len(raw), 1)))

    def _neg(self, node: exp.Expression, scope: Scope) -> Expr:
        operand = self.expr(node.this, scope)
        t = operand.type
        if operand.constant and t.family == "dec" and t.scale == 0:
            number = -types.decimal_load(operand.value, t)
            if -(2**63) <= number < 2**31 and number >= -(2**31):
                return const(number, INT)
        if t.family == "dec":
            return self.build.apply(
                lambda v: types.decimal_store(-types.decimal_load(v, t), t), t, operand
            )
        return self.build.apply(lambda v: -v, t, operand)

    def _parameter(self, node: exp.Expression, scope: Scope) -> Expr:
        if isinstance(node.this, exp.Parameter):
            return functions.global_variable(self, node.this.name)
        found = self.env.variables.get(node.name.lower())
        if found is None:
            raise error(137, "@" + node.name)
        return const(found.value, found.type)

    def _column(self, node: exp.Expression, scope: Scope) -> Expr:
        name, table = node.name, node.args.get("table")
        schema = node.args.get("db")
        if table is not None and (owner := self._owner(node, scope)) is not None:
            return functions.property_of(self, owner, name)
        searched: Scope | None = scope
        while searched is not None:
            found = [
                (source, column, e)
                for source in searched.sources
                if table is None
                or (
                    source.alias.lower() == table.name.lower()
                    and (
                        schema is None
                        or source.qualifier[:1] == (schema.name,)
                        or (
                            bool(source.qualifier)
                            and source.qualifier[0].lower() == schema.name.lower()
                        )
                    )
                )
                for column, e in source.columns
                if column.lower() == name.lower()
            ]
            exact = [one for one in found if one[1] == name]
            found = exact if len(found) > 1 and len(exact) == 1 else found
            if len(found) > 1:
                raise error(209, name)
            if found:
                [(source, column, e)] = found
                if column in source.refused:
                    raise source.refused[column]
                return e
            if table is not None and any(
                s.alias.lower() == table.name.lower() for s in searched.sources
            ):
                raise error(207, name)
            searched = searched.parent
        if table is None and name.upper() in functions.SCALARS and not node.this.quoted:
            return functions.SCALARS[name.upper()](self, scope, [])
        raise error(207, name) if table is None else error(4104, f"{table.name}.{name}")

    def _owner(self, node: exp.Expression, scope: Scope) -> Expr | None:
        """The column of a CLR type of which `alias.column.Name` or `column.Name` is a property."""
        column, alias = node.args["table"], node.args.get("db")
        for source in scope.sources:
            if source.alias.lower() == column.name.lower() and alias is None:
                return None
            if alias is not None and source.alias.lower() != alias.name.lower():
                continue
            for name, e in source.columns:
                if name.lower() == column.name.lower() and e.type.family == "udt":
                    return e
        return None

    def _type(self, node: exp.Expression) -> SqlType:
        kind = node.args.get("kind")
        if kind is None:
            raise unsupported(node.sql())
        return types.parse_type(
            str(kind), collation=self.env.database.collation, default_length=30
        )

    def _cast(self, node: exp.Expression, scope: Scope) -> Expr:
        safe = isinstance(node, exp.TryCast)
        return self.build.cast(
            self.expr(node.this, scope), self._type(node.args["to"]), None, safe
        )

    def _convert(self, node: exp.Expression, scope: Scope) -> Expr:
        style = None
        if node.args.get("style") is not None:
            style = int(self.constant(node.args["style"], scope))
        operand = self.expr(node.args["expression"], scope)
        return self.build.cast(operand, self._type(node.this), style, bool(node.args.get("safe")))

    def case(self, branches: Sequence[tuple[Sql, Expr]], default: Expr) -> Expr:
        operands, t = self.build.unify([*(e for _, e in branches), default])
        parts = [Sql("CASE")]
        for (when, _), value in zip(branches, operands[:-1], strict=True):
            parts += [Sql("WHEN"), when, Sql("THEN"), value.sql]
        parts += [Sql("ELSE"), operands[-1].sql, Sql("END")]
        text = join(" ", parts)
        return Expr(Sql(f"({text.text})", text.args), t, any(o.nullable for o in operands))

    def _case(self, node: exp.Expression, scope: Scope) -> Expr:
        subject = self.expr(node.this, scope) if node.this else None
        branches = []
        for branch in node.args["ifs"]:
            if subject is None:
                when = self.condition(branch.this, scope)
            else:
                when = self.build.compare(subject, "=", self.expr(branch.this, scope))
            branches.append((when, self.expr(branch.args["true"], scope)))
        default = node.args.get("default")
        return self.case(branches, self.expr(default, scope) if default else NULL)

    def _collate(self, node: exp.Expression, scope: Scope) -> Expr:
        name = node.expression.name
        if name.lower() in ("database_default", "catalog_default"):
            name = self.env.database.collation
        rules = collation(name)
        if rules is None:
            raise error(448, name)
        operand = self.expr(node.this, scope)
        if operand.type.family != "str":
            raise error(447, operand.type.name)
        t = types.with_collation(operand.type, rules.name)
        return replace(operand, type=t, explicit_collation=True)

    def _dot(self, node: exp.Expression, scope: Scope) -> Expr:
        """A method call: `column.ToString()`."""
        call = node.expression
        if not isinstance(call, exp.Anonymous):
            raise unsupported(node.sql()[:60])
        target = node.this
        if isinstance(target, exp.Identifier) and target.name.lower() == "sys":
            return cdc.function(self, scope, call)
        names: list[exp.Identifier] = []
        while isinstance(target, exp.Dot):
            names.insert(0, target.expression)
            target = target.this
        if isinstance(target, exp.Identifier):
            names.insert(0, target)
            parts = dict(zip(("this", "table", "db"), reversed(names), strict=False))
            operand = self._column(exp.Column(**parts), scope)
        else:
            operand = self.expr(target, scope)
        return functions.method(self, operand, call.this, call.expressions)

    def _subquery(self, node: exp.Expression, scope: Scope) -> Expr:
        inner = self.query(node.this, scope)
        if len(inner.columns) != 1:
            raise error(116)
        return Expr(Sql(f"({inner.sql.text})", inner.sql.args), inner.columns[0].type)

    def _paren(self, node: exp.Expression, scope: Scope) -> Expr:
        inner = self.expr(node.this, scope)
        return (
            inner
            if inner.constant
            else replace(inner, sql=Sql(f"({inner.sql.text})", inner.sql.args))
        )

    def _at_time_zone(self, node: exp.Expression, scope: Scope) -> Expr:
        zone = str(self.constant(node.args["zone"], scope))
        if zone.upper() != "UTC":
            raise unsupported(f"AT TIME ZONE '{zone}'")
        operand = self.expr(node.this, scope)
        if operand.type.family == "dto":
            return self.build.apply(functions.shift_zone(0), operand.type, operand)
        return self.build.cast(operand, types.DATETIMEOFFSET)

    def _call(self, node: exp.Expression, scope: Scope) -> Expr:
        name = str(node.this).upper()
        if name in _AGGREGATES:
            return _AGGREGATES[name](self, scope, node.expressions)
        handler = functions.SCALARS.get(name)
        if handler is None:
            raise error(195, node.this)
        try:
            return handler(self, scope, node.expressions)
        except (IndexError, ValueError):
            raise error(174, node.this) from None

    def _string_agg(self, node: exp.Expression, scope: Scope) -> Expr:
        inner = node.this.this if isinstance(node.this, exp.Order) else node.this
        text = self.build.cast(self.expr(inner, scope), nvarchar(-1))
        separator = self.expr(node.args["separator"], scope)
        both = join(", ", [text.sql, separator.sql])
        return Expr(Sql(f"group_concat({both.text})", both.args), nvarchar(-1))

    def _neighbour(self, name: str, args: Sequence[exp.Expression], scope: Scope) -> Expr:
        """LAG and LEAD: the value so many rows before or after, or the default."""
        operand = self.expr(args[0], scope)
        offset = int(self.constant(args[1], scope)) if len(args) > 1 else 1
        if offset < 0 or len(args) > 3:
            raise unsupported(f"{name} with an offset of {offset}")
        default = self.expr(args[2], scope) if len(args) > 2 else NULL
        other = self.build.cast(default, operand.type)
        parts = join(", ", [operand.sql, Sql(str(offset)), other.sql])
        nullable = operand.nullable or other.nullable
        return Expr(Sql(f"{name.lower()}({parts.text})", parts.args), operand.type, nullable)

    def _window(self, node: exp.Expression, scope: Scope) -> Expr:
        call = node.this
        name = str(call.this).upper() if isinstance(call, exp.Anonymous) else ""
        if name in _WINDOW_ONLY and not node.args.get("order"):
            raise error(4112, call.this)
        if name in ("LAG", "LEAD"):
            inner = self._neighbour(name, call.expressions, scope)
        elif name in _WINDOW_ONLY:
            inner = Expr(Sql(f"{name.lower()}()"), BIGINT, nullable=False)
        elif name in _AGGREGATES:
            inner = self._call(call, scope)
        else:
            raise unsupported(node.sql()[:60])
        if inner.sql.text.startswith(("tsql(", "sum_wide(")):
            raise unsupported(f"{name} OVER with decimals")
        parts = []
        if partition := node.args.get("partition_by"):
            keys = [self.expr(item, scope) for item in partition]
            listed = [Sql(order_sql(k.sql.text, k.type), k.sql.args) for k in keys]
            parts.append(self._prefixed("PARTITION BY", join(", ", listed)))
        if order := node.args.get("order"):
            listed = []
            for item in order.expressions:
                e = self.expr(item.this, scope)
                way = " DESC" if item.args.get("desc") else ""
                listed.append(Sql(order_sql(e.sql.text, e.type) + way, e.sql.args))
            parts.append(self._prefixed("ORDER BY", join(", ", listed)))
        over = join(" ", parts)
        sql = Sql(f"{inner.sql.text} OVER ({over.text})", inner.sql.args + over.args)
        return replace(inner, sql=sql)

    _EXPRESSIONS: ClassVar[
        dict[type[exp.Expression], Callable[[Any, exp.Expression, Scope], Expr]]
    ] = {
        exp.Literal: _literal,
        exp.National: _national,
        exp.HexString: _hex,
        exp.Null: lambda self, node, scope: NULL,
        exp.Neg: _neg,
        exp.Parameter: _parameter,
        exp.Column: _column,
        exp.Cast: _cast,
        exp.TryCast: _cast,
        exp.Convert: _convert,
        exp.Case: _case,
        exp.Collate: _collate,
        exp.Dot: _dot,
        exp.Subquery: _subquery,
        exp.Paren: _paren,
        exp.AtTimeZone: _at_time_zone,
        exp.Anonymous: _call,
        exp.GroupConcat: _string_agg,
        exp.Window: _window,
    }


class ErrorList(Exception):
    """Several errors of one statement, sent one after the other."""

    def __init__(self, problems: Sequence[Exception]) -> None:
        super().__init__(str(problems[-1]))
        self.problems = list(problems)


# Aggregates


def _argument(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> tuple[Expr, str]:
    """The aggregated expression, and DISTINCT if it is asked for."""
    node, word = args[0], ""
    if isinstance(node, exp.Distinct):
        node, word = node.expressions[0], "DISTINCT "
    return c.expr(node, scope), word


def _count(t: SqlType) -> Callable[[Compiler, Scope, Sequence[exp.Expression]], Expr]:
    def handler(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
        if isinstance(args[0], exp.Star):
            return Expr(Sql("count(*)"), t, nullable=False)
        operand, word = _argument(c, scope, args)
        text = order_sql(operand.sql.text, operand.type)
        return Expr(Sql(f"count({word}{text})", operand.sql.args), t, nullable=False)

    return handler


def _extreme(name: str) -> Callable[[Compiler, Scope, Sequence[exp.Expression]], Expr]:
    def handler(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
        operand, _ = _argument(c, scope, args)
        t = operand.type
        if t.name == "bit" or t.family in ("xml", "json", "udt"):
            raise error(8117, t.name, name)
        text = operand.sql.text
        if t.family == "str":
            text += f" COLLATE {sqlite_name(t.collation, t.national)}"
        return Expr(Sql(f"{name}({text})", operand.sql.args), t)

    return handler


def _sum(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    operand, word = _argument(c, scope, args)
    t = operand.type
    if t.family not in ("int", "dec", "float") or t.name == "bit":
        raise error(8117, t.name, "sum")
    if t.family == "float":
        return Expr(Sql(f"sum({word}{operand.sql.text})", operand.sql.args), FLOAT)
    if t.family == "int":
        result = BIGINT if t.name == "bigint" else INT
        total = Expr(Sql(f"sum({word}{operand.sql.text})", operand.sql.args), result)
        if result is BIGINT:
            return total
        return c.build.apply(lambda v: _checked(v, INT), INT, total)
    result = t if t.name in ("money", "smallmoney") else types.decimal_type(38, t.scale)
    if result.wide:
        return Expr(Sql(f"sum_wide({word}{operand.sql.text})", operand.sql.args), result)
    total = Expr(Sql(f"sum({word}{operand.sql.text})", operand.sql.args), result)
    return c.build.apply(lambda v: types.decimal_store(int(v), result), result, total)


def _checked(value: int, t: SqlType) -> int:
    low, high = types.INT_RANGES[t.name]
    if not low <= value <= high:
        raise error(8115, "expression", t.name)
    return value


def _avg(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    operand, word = _argument(c, scope, args)
    if operand.type.family == "float":
        return Expr(Sql(f"avg({word}{operand.sql.text})", operand.sql.args), FLOAT)
    total = _sum(c, scope, args)
    count = Expr(Sql(f"count({word}{operand.sql.text})", operand.sql.args), BIGINT)
    return c.build.arithmetic("/", total, count)


_AGGREGATES: dict[str, Callable[[Compiler, Scope, Sequence[exp.Expression]], Expr]] = {
    "COUNT": _count(INT),
    "COUNT_BIG": _count(BIGINT),
    "MAX": _extreme("max"),
    "MIN": _extreme("min"),
    "SUM": _sum,
    "AVG": _avg,
}


class SumWide:
    """SUM over decimals, stored as integers or as 16 bytes, as a decimal(38, s)."""

    def __init__(self) -> None:
        self.total: int | None = None

    def step(self, value: int | bytes | None) -> None:
        if isinstance(value, bytes):
            value = int.from_bytes(value, "big") - 2**127
        if value is not None:
            self.total = (self.total or 0) + value

    def result(self) -> bytes | None:
        if self.total is None:
            return None
        if abs(self.total) >= 10**38:
            raise error(8115, "expression", "numeric")
        return (self.total + 2**127).to_bytes(16, "big")


# Lists of values and of queries


def _is_union_all(node: exp.Expression) -> bool:
    return isinstance(node, exp.Union) and not node.args.get("distinct")


def _sides(node: exp.Expression) -> list[exp.Expression]:
    """The queries of a set operation: two, or those of a chain of UNION ALL, which nested in one
    another would be too deep for SQLite."""
    sides: list[exp.Expression] = [node.expression]
    while _is_union_all(node) and _is_union_all(node.this):
        node = node.this
        sides.append(node.expression)
    return [node.this, *reversed(sides)]


def _one_of(choices: Sequence[Sql]) -> Sql:
    """An IN list: the comparisons joined by OR or, where each is of the same expression with one
    value, SQLite's IN, which looks a value up among thousands."""
    [*texts] = {choice.text for choice in choices}
    alike = re.fullmatch(r"([^?]+) = \?( COLLATE \S+)?", texts[0])
    if len(texts) > 1 or alike is None:
        either = join(" OR ", choices)
        return Sql(f"({either.text})", either.args)
    marks = ", ".join("?" * len(choices))
    args = tuple(arg for choice in choices for arg in choice.args)
    return Sql(f"({alike[1]}{alike[2] or ''} IN ({marks}))", args)


# Keyset predicates


def _flatten(node: exp.Expression, kind: type[exp.Expression]) -> list[exp.Expression]:
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, kind):
        return _flatten(node.this, kind) + _flatten(node.expression, kind)
    return [node]


def _implied_bound(term: exp.Expression) -> exp.Expression | None:
    """`a >= x` of `a > x OR (a = x AND b > y)`; None when no column is bounded that way."""
    branches = _flatten(term, exp.Or)
    if len(branches) < 2:
        return None
    for kinds, bound in (((exp.GT, exp.GTE), exp.GTE), ((exp.LT, exp.LTE), exp.LTE)):
        common: set[tuple[str, str]] | None = None
        trees: dict[tuple[str, str], exp.Expression] = {}
        for branch in branches:
            found = set()
            for item in _flatten(branch, exp.And):
                if isinstance(item, (*kinds, exp.EQ)) and isinstance(item.this, exp.Column):
                    pair = (item.this.sql(), item.expression.sql())
                    found.add(pair)
                    trees[pair] = item
            common = found if common is None else common & found
        if common:
            item = trees[sorted(common)[0]]
            return bound(this=item.this.copy(), expression=item.expression.copy())
    return None


def register(connection: sqlite3.Connection, state: Any) -> None:
    """Gives a connection the function and the aggregate that translated text calls.

    `state.functions` are the running statement's callables; what one raises is kept in
    `state.problem`, since SQLite reports only that it failed.
    """

    def tsql(number: int, *values: Stored) -> Stored:
        try:
            return state.functions[number](*values)
        except Exception as problem:
            state.problem = problem
            raise

    class Sum(SumWide):
        def finalize(self) -> bytes | None:
            try:
                return self.result()
            except Exception as problem:
                state.problem = problem
                raise

    connection.create_function("tsql", -1, tsql)
    # typeshed asks for a narrower protocol than sqlite3 does
    connection.create_aggregate("sum_wide", 1, Sum)  # type: ignore[arg-type]
