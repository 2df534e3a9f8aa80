# ruff: noqa: S608 - table names are numbers of our own
"""Change Data Capture as T-SQL sees it: the cdc tables, the functions, and the changes.

https://learn.microsoft.com/sql/relational-databases/system-functions/change-data-capture-functions-transact-sql
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from tests.sandbox.mssql import types
from tests.sandbox.mssql.capture import NO_LSN, VISIBLE, CaptureInstance, lsn_bytes
from tests.sandbox.mssql.catalogue import Context, _view
from tests.sandbox.mssql.errors import error, unsupported
from tests.sandbox.mssql.expressions import Expr, Sql, const, join
from tests.sandbox.mssql.store import order_sql
from tests.sandbox.mssql.types import INT, SqlType, Stored, nvarchar

if TYPE_CHECKING:
    from tests.sandbox.mssql.compiler import Compiler, Scope

LSN = SqlType("binary", length=10)
MASK = SqlType("varbinary", length=128)

# The tables of the schema cdc


def _instances(c: Context) -> list[CaptureInstance]:
    return [i for i in c.store.capture.instances if not i.changes.hidden]


@_view(
    "cdc.change_tables",
    "object_id int!, version int, source_object_id int, capture_instance sysname!, "
    "start_lsn binary(10), end_lsn binary(10), supports_net_changes bit, has_drop_pending bit, "
    "role_name sysname, index_name sysname, filegroup_name sysname, create_date datetime, "
    "partition_switch bit!",
    volatile=True,
)
def _change_tables(c: Context) -> Iterable[tuple[Any, ...]]:
    assert c.connection is not None
    starts = dict(c.connection.execute("SELECT id, start_lsn FROM cdc_instances"))
    for one in _instances(c):
        facts = (int(one.net), None, one.role, one.index, None, one.created, 1)
        number = one.changes.id
        yield number, 0, one.source.id, one.name, starts.get(number), None, *facts


@_view(
    "cdc.captured_columns",
    "object_id int!, column_name sysname!, column_id int, column_type sysname!, "
    "column_ordinal int!, is_computed bit, masking_function nvarchar(4000)",
    volatile=True,
)
def _captured_columns(c: Context) -> Iterable[tuple[Any, ...]]:
    for one in _instances(c):
        for place, column in enumerate(one.columns, 1):
            computed = int(column.computed is not None)
            yield one.changes.id, column.name, column.id, column.type.name, place, computed, None


@_view(
    "cdc.index_columns",
    "object_id int!, column_name sysname!, index_ordinal tinyint!, column_id int!",
    volatile=True,
)
def _index_columns(c: Context) -> Iterable[tuple[Any, ...]]:
    for one in _instances(c):
        for place, column in enumerate(one.keys, 1):
            yield one.changes.id, column.name, place, column.id


@_view(
    "cdc.lsn_time_mapping",
    "start_lsn binary(10)!, tran_begin_time datetime, tran_end_time datetime, "
    "tran_id varbinary(10), tran_begin_lsn binary(10)",
    volatile=True,
)
def _lsn_time_mapping(c: Context) -> Iterable[tuple[Any, ...]]:
    assert c.connection is not None
    rows = c.connection.execute(
        "SELECT lsn, began, ended, tx, idle FROM cdc_log "
        f"WHERE NOT open AND lsn <= {VISIBLE} ORDER BY lsn"
    )
    for lsn, began, ended, transaction, idle in rows:
        number = b"\0" if idle else transaction.to_bytes(6, "big")
        yield lsn, began, ended, number, NO_LSN if idle else lsn


# sys.fn_cdc_...

Function = Callable[["Compiler", "Scope", Sequence[exp.Expression]], Expr]
_FUNCTIONS: dict[str, Function] = {}


def _named(name: str) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        _FUNCTIONS[name] = function
        return function

    return register


def function(c: Compiler, scope: Scope, call: exp.Expression) -> Expr:
    """`sys.name(...)`."""
    found = _FUNCTIONS.get(call.name.lower())
    if found is None:
        raise error(4121, "sys", call.name)
    try:
        return found(c, scope, call.expressions)
    except IndexError:
        raise error(313, f"sys.{call.name}") from None


def _log(c: Compiler) -> None:
    """Notes that the statement reads the log; 208 where there is none."""
    table = c.env.store.find("cdc", "lsn_time_mapping")
    if table is None:
        raise error(208, "cdc.lsn_time_mapping")
    c.tables.append(table)
    c.captured = True


@_named("fn_cdc_get_max_lsn")
def _max_lsn(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    _log(c)
    return Expr(Sql(VISIBLE), LSN)


@_named("fn_cdc_get_min_lsn")
def _min_lsn(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    """Zero for no instance, or one of others; NULL while the agent has not come to it."""
    _log(c)

    def find(name: str) -> int:
        found = c.env.store.capture.find(name)
        return 0 if found is None or not _allowed(c, found) else found.changes.id

    number = c.build.apply(find, INT, c.build.cast(c.expr(args[0], scope), types.SYSNAME))
    lowest = join(
        "",
        [
            Sql("(SELECT CASE id WHEN 0 THEN X'" + NO_LSN.hex() + "' ELSE "),
            Sql(_lowest("one.id") + " END FROM (SELECT "),
            number.sql,
            Sql(" AS id) AS one)"),
        ],
    )
    return Expr(lowest, LSN)


def _lowest(number: str) -> str:
    """The lowest LSN of an instance by the id of its change table, as SQLite text."""
    return (
        f"(SELECT CASE WHEN start_lsn > {VISIBLE} THEN NULL ELSE start_lsn END "
        f"FROM cdc_instances AS known WHERE known.id = {number})"
    )


def _moved(step: int) -> Function:
    def handler(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
        operand = c.build.cast(c.expr(args[0], scope), LSN)
        return c.build.apply(lambda v: lsn_bytes(int.from_bytes(v, "big") + step), LSN, operand)

    return handler


_FUNCTIONS["fn_cdc_increment_lsn"] = _moved(1)
_FUNCTIONS["fn_cdc_decrement_lsn"] = _moved(-1)


@_named("fn_cdc_map_lsn_to_time")
def _lsn_to_time(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    _log(c)
    operand = c.build.cast(c.expr(args[0], scope), LSN)
    text = f"(SELECT ended FROM cdc_log WHERE lsn = {operand.sql.text} AND lsn <= {VISIBLE})"
    return Expr(Sql(text, operand.sql.args), types.DATETIME)


_RELATIONS = {
    "largest less than": ("max", "<"),
    "largest less than or equal": ("max", "<="),
    "smallest greater than": ("min", ">"),
    "smallest greater than or equal": ("min", ">="),
}


@_named("fn_cdc_map_time_to_lsn")
def _time_to_lsn(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    _log(c)
    relation = str(c.constant(args[0], scope)).strip().lower()
    if relation not in _RELATIONS:
        return const(None, LSN)
    extreme, operator = _RELATIONS[relation]
    moment = c.build.cast(c.expr(args[1], scope), types.DATETIME)
    text = (
        f"(SELECT {extreme}(lsn) FROM cdc_log WHERE ended {operator} {moment.sql.text} "
        f"AND NOT open AND lsn <= {VISIBLE})"
    )
    return Expr(Sql(text, moment.sql.args), LSN)


@_named("fn_cdc_is_bit_set")
def _is_bit_set(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    position = c.build.cast(c.expr(args[0], scope), INT)
    mask = c.build.cast(c.expr(args[1], scope), MASK)
    return c.build.apply(
        lambda p, m: int.from_bytes(m, "big") >> (p - 1) & 1 if p > 0 else 0,
        types.BIT,
        position,
        mask,
    )


@_named("fn_cdc_get_column_ordinal")
def _column_ordinal(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    found = c.env.store.capture.find(str(c.constant(args[0], scope)))
    name = str(c.constant(args[1], scope)).lower()
    names = [column.name.lower() for column in found.columns] if found else []
    return const(names.index(name) + 1 if name in names else None, INT)


# cdc.fn_cdc_get_all_changes_<instance> and cdc.fn_cdc_get_net_changes_<instance>


def may_call(c: Compiler, instance: CaptureInstance) -> bool:
    """The right on the functions themselves: everybody's, or that of the gating role."""
    roles = {role.lower() for role in c.env.database.roles}
    gated = instance.role is not None and not {instance.role.lower(), "db_owner"} & roles
    return c.env.privileged or not gated


def _allowed(c: Compiler, instance: CaptureInstance) -> bool:
    """SELECT on every captured column, and the gating role."""
    if c.env.privileged:
        return True
    names = {column.name for column in instance.columns}
    refused = any(column.denied for column in instance.source.columns if column.name in names)
    return "SELECT" not in instance.source.denied and not refused and may_call(c, instance)


_ALL, _NET = "fn_cdc_get_all_changes_", "fn_cdc_get_net_changes_"
_OPTIONS = {_ALL: ("all", "all update old"), _NET: ("all", "all with merge", "all with mask")}


def changes(c: Compiler, node: exp.Table, scope: Scope) -> Sql:
    """A call of one of the functions in FROM; adds it to the scope."""
    from tests.sandbox.mssql.compiler import Scope

    name, args = node.this.name, node.this.expressions
    found = c.env.store.capture.function(name)
    if found is None:
        raise error(208, f"cdc.{name}")
    instance, kind = found[1], _ALL if name.lower().startswith(_ALL) else _NET
    if not _allowed(c, instance):
        raise error(229, "SELECT", name, c.env.database.name, "cdc", state=5)
    if len(args) != 3:
        raise error(313 if len(args) < 3 else 8144, f"cdc.{name}", state=3)
    _log(c)
    c.tables.append(instance.changes)
    outer = Scope(parent=scope.parent)
    start, end = (c.build.cast(c.expr(arg, outer), LSN) for arg in args[:2])
    option = c.build.cast(c.expr(args[2], outer), nvarchar(30))
    if not option.constant:
        raise unsupported("a row filter option that is not constant")
    wanted = str(option.value or "").strip().lower()
    _check(c, instance, kind, start, end, wanted)
    bounds = join("", [Sql("c1 >= "), start.sql, Sql(" AND c1 <= "), end.sql])
    if kind == _ALL:
        return _all_changes(c, instance, bounds, wanted, node.alias, scope)
    return _net_changes(c, instance, bounds, wanted, node.alias, scope)


def _check(
    c: Compiler, instance: CaptureInstance, kind: str, start: Expr, end: Expr, option: str
) -> None:
    """Error 313 for a range beyond what is known: its text names no instance, and no reason."""

    def run(low: Stored, high: Stored, lowest: Stored, highest: Stored) -> int:
        known = None not in (low, high, lowest, highest)
        if known and option in _OPTIONS[kind] and lowest <= low <= high <= highest:
            return 1
        raise error(313, f"cdc.{kind} ... ", state=3)

    limits = [Expr(Sql(_lowest(str(instance.changes.id))), LSN), Expr(Sql(VISIBLE), LSN)]
    c.checks.append(c.build.apply(run, INT, start, end, *limits, strict=False).sql)
    if option == "all with mask":
        raise unsupported(f"'{option}'")


def _columns(
    c: Compiler, instance: CaptureInstance, internal: str, places: dict[str, SqlType]
) -> list[tuple[str, Expr]]:
    """The columns of a function: those about the change, then the captured ones."""
    captured = instance.changes.columns[5:-1]
    about = [(f"__${name}", Expr(Sql(f"{internal}.{name}"), t)) for name, t in places.items()]
    return [
        *about,
        *(
            (column.name, Expr(Sql(f"{internal}.{column.sql}"), column.type))
            for column in captured
        ),
    ]


def _add(
    c: Compiler,
    instance: CaptureInstance,
    inner: Sql,
    places: dict[str, SqlType],
    alias: str,
    scope: Scope,
) -> Sql:
    from tests.sandbox.mssql.compiler import Source

    internal = c._alias()
    scope.sources.append(Source(alias, (), _columns(c, instance, internal, places)))
    return Sql(f"({inner.text}) AS {internal}", inner.args)


def _all_changes(
    c: Compiler, instance: CaptureInstance, bounds: Sql, option: str, alias: str, scope: Scope
) -> Sql:
    old = "" if option == "all update old" else " AND c4 <> 3"
    names = "c1 AS start_lsn, c3 AS seqval, c4 AS operation, c5 AS update_mask, *"
    inner = Sql(
        f"SELECT {names} FROM main.{instance.changes.sql} WHERE {bounds.text}{old}", bounds.args
    )
    places = {"start_lsn": LSN, "seqval": LSN, "operation": INT, "update_mask": MASK}
    return _add(c, instance, inner, places, alias, scope)


def _net_changes(
    c: Compiler, instance: CaptureInstance, bounds: Sql, option: str, alias: str, scope: Scope
) -> Sql:
    """The last change of each key; none for a key that was inserted and deleted in the range."""
    stored = instance.changes.columns[5:-1]
    keys = [stored[instance.columns.index(key)] for key in instance.keys]
    grouped = ", ".join(order_sql(key.sql, key.type) for key in keys)
    merged = "CASE last WHEN 1 THEN 1 ELSE 5 END"
    exact = "CASE WHEN last = 1 THEN 1 WHEN first = 2 THEN 2 ELSE 4 END"
    operation = merged if option == "all with merge" else exact
    # An insert alone is 2; so is an insert that was updated.
    ranked = (
        f"SELECT *, c4 AS last, "
        f"first_value(c4) OVER (PARTITION BY {grouped} ORDER BY c3, c4) AS first, "
        f"row_number() OVER (PARTITION BY {grouped} ORDER BY c3 DESC, c4 DESC) AS back "
        f"FROM main.{instance.changes.sql} WHERE {bounds.text} AND c4 <> 3"
    )
    inner = Sql(
        f"SELECT c1 AS start_lsn, {operation} AS operation, NULL AS update_mask, * "
        f"FROM ({ranked}) WHERE back = 1 AND NOT (last = 1 AND first = 2)",
        bounds.args,
    )
    places = {"start_lsn": LSN, "operation": INT, "update_mask": MASK}
    return _add(c, instance, inner, places, alias, scope)
