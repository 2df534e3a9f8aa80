"""EXEC of the stored procedures that there are: those of Change Data Capture, sp_refreshview.

https://learn.microsoft.com/sql/relational-databases/system-stored-procedures/change-data-capture-stored-procedures-transact-sql
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot.tokens import TokenType  # type: ignore[attr-defined]

from tests.sandbox.mssql import catalogue, ddl, views
from tests.sandbox.mssql.capture import CaptureInstance
from tests.sandbox.mssql.compiler import Compiler, Scope
from tests.sandbox.mssql.errors import error, unsupported
from tests.sandbox.mssql.parser import name_parts, parse_query, tokenize
from tests.sandbox.mssql.store import ColumnDef, TableDef, ViewDef
from tests.sandbox.mssql.types import INT, SqlType, Stored

if TYPE_CHECKING:
    from tests.sandbox.mssql.session import Session

Arguments = dict[str, Stored]  # by name, in lower case and without "@"
_PROCEDURES: dict[str, tuple[tuple[str, ...], Callable[[Session, Arguments], None]]] = {}


def _procedure(name: str, *parameters: str) -> Callable[..., Callable[[Session, Arguments], None]]:
    def register(
        function: Callable[[Session, Arguments], None],
    ) -> Callable[[Session, Arguments], None]:
        _PROCEDURES[name] = (parameters, function)
        return function

    return register


def call(session: Session, text: str) -> None:
    """Runs `EXEC name argument, ...`."""
    tokens = tokenize(text)
    start = 1
    while start + 1 < len(tokens) and tokens[start + 1].token_type is TokenType.DOT:
        start += 2
    name = tokens[start].text if start < len(tokens) else ""
    known = _PROCEDURES.get(name.lower())
    if known is None:
        raise error(2812, name)
    parameters, function = known
    rest = text[tokens[start].end + 1 :].strip()
    given = _arguments(session, name, parameters, rest)
    function(session, given)


def _arguments(session: Session, name: str, parameters: Sequence[str], text: str) -> Arguments:
    given: Arguments = {}
    for place, part in enumerate(_parts(text)):
        left, equals, right = part.partition("=")
        if equals and left.strip().startswith("@"):
            parameter, value = left.strip()[1:].lower(), right.strip()
        elif place < len(parameters):
            parameter, value = parameters[place], part.strip()
        else:
            raise error(8144, name)
        if parameter not in parameters:
            raise error(8145, parameter, name)
        compiler = Compiler(session)
        tree = parse_query(f"SELECT {value}").expressions[0]
        given[parameter] = compiler.constant(tree, Scope())
    return given


def _parts(text: str) -> list[str]:
    """The text between commas."""
    parts, start = [], 0
    for token in tokenize(text) if text else []:
        if token.token_type is TokenType.COMMA:
            parts.append(text[start : token.start])
            start = token.end + 1
    return [*parts, text[start:]] if text else []


# Change Data Capture

_SYSTEM_TABLES = ("change_tables", "captured_columns", "index_columns", "lsn_time_mapping")


def _text(given: Arguments, name: str) -> str:
    return str(given.get(name) or "")


def _enabled(session: Session) -> None:
    if not session.database.cdc:
        raise error(22901, session.database.name)


@_procedure("sp_cdc_enable_db")
def enable_db(session: Session, given: Arguments) -> None:
    store = session.store
    if session.database.cdc:
        return
    store.capture.enable()
    if store.fold("cdc") not in store.schemas:
        store.create_schema("cdc")
    for name in _SYSTEM_TABLES:
        kinds = catalogue.VIEWS[f"cdc.{name}"].columns
        columns = [ColumnDef(i, c.name, c.type, bool(c.nullable)) for i, c in enumerate(kinds, 1)]
        _add_table(session, TableDef(store.new_id(), "cdc", name, columns))
    columns = [
        ColumnDef(1, "tran_id", SqlType("varbinary", length=10)),
        ColumnDef(2, "commit_lsn", SqlType("binary", length=10)),
    ]
    _add_table(session, TableDef(store.new_id(), "dbo", "systranschemas", columns))
    session.database.cdc = True


def _add_table(session: Session, table: TableDef) -> None:
    table.shipped, table.created = True, session.instance.created()
    session.store.create_table(table)


@_procedure("sp_cdc_disable_db")
def disable_db(session: Session, given: Arguments) -> None:
    store = session.store
    if not session.database.cdc:
        return
    store.capture.disable()
    for schema, name in [*(("cdc", n) for n in _SYSTEM_TABLES), ("dbo", "systranschemas")]:
        store.drop_table(store.table(schema, name))
    store.schemas.pop(store.fold("cdc"), None)
    store._schema_changed(None)
    session.database.cdc = False


@_procedure(
    "sp_cdc_enable_table",
    "source_schema",
    "source_name",
    "role_name",
    "capture_instance",
    "supports_net_changes",
    "index_name",
    "captured_column_list",
    "filegroup_name",
    "allow_partition_switch",
)
def enable_table(session: Session, given: Arguments) -> None:
    _enabled(session)
    store, instances = session.store, session.store.capture
    schema, own = _text(given, "source_schema"), _text(given, "source_name")
    source = store.find(schema, own)
    if source is None:
        raise error(22931, f"{schema}.{own}")
    name = _text(given, "capture_instance") or f"{source.schema}_{source.name}"
    if len(source.captures) > 1:
        raise error(22962, source.full_name)
    if instances.find(name) is not None:
        raise error(22926, name)
    columns = _captured(source, _text(given, "captured_column_list"))
    index, keys = _key(source, _text(given, "index_name"))
    net = given.get("supports_net_changes")
    supports = bool(keys) if net is None else bool(int(net))
    if supports and not keys:
        raise error(22939)
    missing = [key for key in keys if key not in columns]
    if missing:
        raise unsupported(f"a captured column list without the key {missing[0].name}")
    changes = _change_table(session, name, columns)
    role = _text(given, "role_name") or None
    created = session.instance.created()
    kept = [replace(column) for column in columns]
    kinds = ("all", "net") if supports else ("all",)
    instances.add(
        CaptureInstance(
            name,
            source,
            changes,
            kept,
            index,
            [kept[columns.index(key)] for key in keys],
            supports,
            role,
            created,
            {f"fn_cdc_get_{kind}_changes_{name}": store.new_id() for kind in kinds},
        )
    )


def _captured(source: TableDef, listed: str) -> list[ColumnDef]:
    if not listed:
        return list(source.columns)
    names = {name_parts(part)[0].lower() for part in listed.split(",")}
    known = {column.name.lower() for column in source.columns}
    for name in sorted(names - known):
        raise error(22930, name, source.full_name)
    return [column for column in source.columns if column.name.lower() in names]


def _key(source: TableDef, name: str) -> tuple[str | None, list[ColumnDef]]:
    """The index that tells rows apart: the named one, or the primary key."""
    index = source.primary_key
    if name:
        index = next((i for i in source.indexes if i.name.lower() == name.lower()), None)
        if index is None or not index.unique:
            raise error(22929, name, source.full_name)
    if index is None:
        return None, []
    return index.name, [source.column(column) for column, _ in index.columns]


def _change_table(session: Session, name: str, columns: Sequence[ColumnDef]) -> TableDef:
    """cdc.<instance>_CT: every captured column may be NULL in it."""
    lsn = SqlType("binary", length=10)
    kinds = [
        ("__$start_lsn", lsn, False),
        ("__$end_lsn", lsn, True),
        ("__$seqval", lsn, False),
        ("__$operation", INT, False),
        ("__$update_mask", SqlType("varbinary", length=128), True),
        *((c.name, _captured_type(c.type), True) for c in columns),
        ("__$command_id", INT, True),
    ]
    made = [ColumnDef(i, n, t, nullable) for i, (n, t, nullable) in enumerate(kinds, 1)]
    table = TableDef(session.store.new_id(), "cdc", f"{name}_CT", made, holds_changes=True)
    _add_table(session, table)
    order = ("__$start_lsn", "__$command_id", "__$seqval", "__$operation")
    ddl.add_index(session.store, table, f"{name}_CT_clustered_idx",
                  [(column, False) for column in order], clustered=True)  # fmt: skip
    return table


def _captured_type(t: SqlType) -> SqlType:
    return SqlType("binary", length=8) if t.name == "timestamp" else t


@_procedure("sp_cdc_disable_table", "source_schema", "source_name", "capture_instance")
def disable_table(session: Session, given: Arguments) -> None:
    _enabled(session)
    schema, own = _text(given, "source_schema"), _text(given, "source_name")
    source = session.store.find(schema, own)
    if source is None:
        raise error(22931, f"{schema}.{own}")
    wanted = _text(given, "capture_instance").lower()
    found = [i for i in source.captures if wanted in ("all", i.name.lower())]
    if not found:
        raise error(22960, wanted)
    for instance in found:
        session.store.capture.drop(instance)


@_procedure("sp_cdc_scan", "maxtrans", "maxscans", "continuous", "pollinginterval")
def scan(session: Session, given: Arguments) -> None:
    _enabled(session)
    session.store.capture.scan()


@_procedure("sp_cdc_cleanup_change_table", "capture_instance", "low_water_mark", "threshold")
def clean_up(session: Session, given: Arguments) -> None:
    _enabled(session)
    instances = session.store.capture
    instance = instances.find(_text(given, "capture_instance"))
    if instance is None:
        raise error(22960, _text(given, "capture_instance"))
    lsn = given.get("low_water_mark")
    if lsn is None:
        return
    if not instances.knows(lsn):
        raise error(22964, f"0x{lsn.hex().upper()}")
    instances.clean_up(instance, lsn)


@_procedure("sp_refreshview", "viewname")
def refresh_view(session: Session, given: Arguments) -> None:
    parts = name_parts(_text(given, "viewname"))
    found = session.store.find_object(parts[-2] if len(parts) > 1 else "dbo", parts[-1])
    if not isinstance(found, ViewDef):
        raise error(208, ".".join(parts))
    views.bind(session, found)
    session.store._schema_changed(found)
