"""CREATE, ALTER and DROP VIEW, and indexes on views.

https://learn.microsoft.com/sql/t-sql/statements/create-view-transact-sql
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from tests.sandbox.mssql.compiler import Compiler
from tests.sandbox.mssql.errors import error, unsupported
from tests.sandbox.mssql.parser import name_parts, parse_query
from tests.sandbox.mssql.store import ColumnDef, IndexDef, TableDef, ViewDef
from tests.sandbox.mssql.wire import Column

if TYPE_CHECKING:
    from tests.sandbox.mssql.session import Session

_PART = r"(?:\[(?:[^\]]|\]\])+\]|[\w$#]+)"
_NAME = rf"({_PART}(?:\s*\.\s*{_PART})*)"
_FLAGS = re.IGNORECASE | re.DOTALL
_DEFINITION = re.compile(
    rf"(CREATE\s+OR\s+ALTER|CREATE|ALTER)\s+VIEW\s+{_NAME}\s*(\([^()]*\))?\s*"
    r"(?:WITH\s+([A-Z_]+(?:\s*,\s*[A-Z_]+)*)\s+)?AS\s+(.+?)(\s+WITH\s+CHECK\s+OPTION)?\s*$",
    _FLAGS,
)
_DROP = re.compile(rf"DROP\s+VIEW\s+(IF\s+EXISTS\s+)?{_NAME}\s*$", _FLAGS)


def define(session: Session, text: str) -> bool:
    """Runs a statement that makes, changes or drops a view; False for any other."""
    if match := _DEFINITION.match(text):
        _create(session, text, match)
    elif match := _DROP.match(text):
        _drop(session, match)
    else:
        return False
    return True


def _place(name: str) -> tuple[str, str]:
    """(schema, name) of a dotted name."""
    parts = name_parts(name)
    return (parts[-2] if len(parts) > 1 else "dbo"), parts[-1]


def _create(session: Session, text: str, match: re.Match[str]) -> None:
    verb, name, names, attributes, query, checked = match.groups()
    store, (schema, own) = session.store, _place(name)
    if store.fold(schema) not in store.schemas:
        raise error(2760, schema)
    old = store.find_object(schema, own)
    verb = " ".join(verb.upper().split())
    if old is not None and (verb == "CREATE" or not isinstance(old, ViewDef)):
        raise error(2714, own)
    if old is None and verb == "ALTER":
        raise error(208, name)
    words = {word.strip().upper() for word in (attributes or "").split(",")} - {""}
    if checked or words - {"SCHEMABINDING", "VIEW_METADATA"}:
        raise unsupported(f"VIEW WITH {', '.join(sorted(words)) or 'CHECK OPTION'}")
    tree = parse_query(query)
    if tree.args.get("order") and not (tree.args.get("limit") or tree.args.get("offset")):
        raise error(1033)
    view = ViewDef(
        old.id if old else store.new_id(),
        old.schema if old else schema,
        old.name if old else own,
        [],
        created=old.created if old else session.instance.created(),
        definition=text,
        query=query,
        names=tuple(name_parts(part)[0] for part in names[1:-1].split(",")) if names else (),
        schema_bound="SCHEMABINDING" in words,
    )
    bind(session, view)
    if old is not None:
        view.denied, view.hidden = old.denied, old.hidden
    store.views[store.fold(view.schema), store.fold(view.name)] = view
    store._schema_changed(view)


def bind(session: Session, view: ViewDef) -> None:
    """Gives the view the columns that its query has now."""
    view.columns = []
    compiler = Compiler(session)
    made = compiler.bind_view(view).columns
    if view.names and len(view.names) != len(made):
        raise error(8158 if len(view.names) < len(made) else 8159, view.name)
    seen: set[str] = set()
    columns = []
    for number, column in enumerate(made, 1):
        name = view.names[number - 1] if view.names else column.name
        if not name:
            raise error(4511, number)
        if session.store.fold(name) in seen:
            raise error(4506, name, view.name)
        seen.add(session.store.fold(name))
        columns.append(_column(number, name, column))
    view.columns = columns
    view.references = frozenset(table.id for table in compiler.tables)


def _column(number: int, name: str, made: Column) -> ColumnDef:
    return ColumnDef(number, name, made.type, made.nullable)


def _drop(session: Session, match: re.Match[str]) -> None:
    store, (schema, own) = session.store, _place(match[2])
    found = store.find_object(schema, own)
    if found is not None and not isinstance(found, ViewDef):
        raise error(3705, "VIEW", match[2], "table", "TABLE")
    if found is not None:
        store.views = {key: view for key, view in store.views.items() if view is not found}
        store._schema_changed(found)
    elif not match[1]:
        raise error(3701, "view", match[2])


def create_index(
    session: Session,
    view: ViewDef,
    name: str,
    columns: list[tuple[str, bool]],
    *,
    unique: bool,
) -> None:
    """An index on a view: in the catalogue, and unique when it is made; nothing is stored."""
    if not view.schema_bound:
        raise error(1939, view.name)
    first = not view.indexes
    if first and not unique:
        raise error(1940, view.name)
    if unique:
        _check_unique(session, view, name, [column for column, _ in columns])
    number = len(view.indexes) + 1
    view.indexes.append(IndexDef(number, name, columns, unique=unique, clustered=first))
    session.store._schema_changed(view)


def _check_unique(session: Session, view: TableDef, index: str, names: Sequence[str]) -> None:
    keys = [exp.column(exp.to_identifier(view.column(name).name, quoted=True)) for name in names]
    source = exp.to_table(view.name, quoted=True)
    source.set("db", exp.to_identifier(view.schema, quoted=True))
    grouped = exp.select(exp.Literal.number(1)).from_(source).group_by(*keys)
    count = exp.Anonymous(this="COUNT", expressions=[exp.Star()])
    compiler = Compiler(session)
    query = compiler.query(grouped.having(exp.GT(this=count, expression=exp.Literal.number(1))))
    result = session.open(compiler, query)
    duplicate = next(iter(result.rows), None)
    result.close()
    if duplicate is not None:
        raise error(1505, view.full_name, index)
